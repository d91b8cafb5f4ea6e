"""Training with two workers gives the same model as with one.

Seven videos in batches of three: the number of videos is odd, and the last batch has fewer videos
than there are workers.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from distributed_avel.cluster.reduce import all_reduce_sums
from distributed_avel.train.batches import Batch, EpochPlan, worker_batches
from distributed_avel.train.loop import EpochSums, train_epoch
from tests.train.examples import objective, training_set

NUM_VIDEOS, BATCH_SIZE, NUM_EPOCHS = 7, 3, 17  # 51 optimizer steps
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnDraws(EpochPlan):
    """Wrong on purpose: each worker draws its own partners for the same videos."""

    rank: int

    def partner(self, pool, videos, index: int) -> int:
        own = EpochPlan(
            seed=self.seed + self.rank, stage=self.stage, epoch=self.epoch, batch_size=BATCH_SIZE
        )
        return own.partner(pool, videos, index)


def batches_of(way: str, epoch: int, rank: int, num_workers: int) -> Iterator[Batch]:
    """Yield the batches of a worker, in the correct way or one of two wrong ways."""
    videos = training_set(NUM_VIDEOS, partners="disjoint")
    plan = EpochPlan(seed=0, stage="base", epoch=epoch, batch_size=BATCH_SIZE)
    if way == "own partners":
        plan = OwnDraws(seed=0, stage="base", epoch=epoch, batch_size=BATCH_SIZE, rank=rank)
    for batch in worker_batches(
        videos, plan, rank=rank, num_workers=num_workers, dtype=torch.float64
    ):
        if way == "mean of each worker":
            weight_B = torch.full_like(batch.weight_B, 1 / batch.num_videos)
            yield replace(batch, weight_B=weight_B)
        else:
            yield batch


def train(way: str, rank: int = 0, num_workers: int = 1) -> tuple[torch.Tensor, list[dict]]:
    """Return the weights after all epochs, and the losses of each epoch."""
    step = objective(torch.float64)
    wrapped = step if num_workers == 1 else DistributedDataParallel(step)
    optimizer = torch.optim.Adam(step.parameters(), lr=2e-3)
    reported = []
    for epoch in range(NUM_EPOCHS):
        local = train_epoch(wrapped, batches_of(way, epoch, rank, num_workers), optimizer, CPU)
        total = EpochSums.from_values(all_reduce_sums(local.to_values(), CPU))
        reported.append(total.means())
    return torch.cat([p.detach().flatten() for p in step.parameters()]), reported


def train_on_rank(rank: int, folder: Path, ways: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        torch.save({way: train(way, rank, 2) for way in ways}, folder / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that winds down


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory) -> list[dict[str, tuple[torch.Tensor, list[dict]]]]:
    """Result of `train` on each of two workers, for each way."""
    folder = tmp_path_factory.mktemp("ddp")
    ways = ["global batches", "own partners", "mean of each worker"]
    mp.spawn(train_on_rank, args=(folder, ways), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def one_worker() -> tuple[torch.Tensor, list[dict]]:
    return train("global batches")


@pytest.mark.multiprocess
def test_two_workers_train_the_same_weights_as_one(two_workers, one_worker):
    for worker in two_workers:
        weights, _ = worker["global batches"]
        assert float((weights - one_worker[0]).abs().max()) <= 1e-12


@pytest.mark.multiprocess
def test_two_workers_report_the_same_losses_as_one(two_workers, one_worker):
    for worker in two_workers:
        for ours, alone in zip(worker["global batches"][1], one_worker[1], strict=True):
            assert ours.keys() == {"mil", "auxiliary", "total"}
            assert ours == pytest.approx(alone, abs=1e-12)


@pytest.mark.multiprocess
@pytest.mark.parametrize("way", ["own partners", "mean of each worker"])
def test_the_comparison_detects_wrong_batches(two_workers, one_worker, way):
    weights, _ = two_workers[0][way]

    assert torch.equal(weights, two_workers[1][way][0])  # DDP keeps even these in sync
    assert float((weights - one_worker[0]).abs().max()) > 1e-3
