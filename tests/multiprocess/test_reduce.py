"""Reduced sums of two workers equal those of one worker."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from distributed_avel.cluster.reduce import all_reduce_sums
from distributed_avel.train.loop import EpochSums

CPU = torch.device("cpu")


def reduce_on_rank(rank: int, store: Path, shards: list[EpochSums], whole: EpochSums) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        total = all_reduce_sums(shards[rank].to_values(), CPU)
        assert EpochSums.from_values(total) == whole
        dist.barrier()
    finally:
        dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort an interpreter that winds down


@pytest.mark.multiprocess
def test_sums_of_uneven_shards_equal_the_total(tmp_path):
    shards = [
        EpochSums(loss_sums={"mil": 6.0, "auxiliary": 0.25}, num_videos=3),
        EpochSums(loss_sums={"auxiliary": 0.5, "mil": 10.0}, num_videos=1),
    ]
    whole = EpochSums(loss_sums={"auxiliary": 0.75, "mil": 16.0}, num_videos=4)
    assert whole.means()["mil"] == 4.0  # and not 6.0, the mean of the two means

    mp.spawn(reduce_on_rank, args=(tmp_path / "store", shards, whole), nprocs=2)


def test_a_single_worker_keeps_its_sums():
    own = EpochSums(loss_sums={"mil": 6.0}, num_videos=3)

    assert EpochSums.from_values(all_reduce_sums(own.to_values(), CPU)) == own
