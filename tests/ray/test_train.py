"""Training in this process, in a Ray task and with Ray Train gives the same weights."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from distributed_avel.cluster import training_workers
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import WEIGHTS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500), pytest.mark.usefixtures("ray_cluster")]


def pipeline(root: Path, execution: Execution | None = None, *, num_workers: int = 1) -> Pipeline:
    sizes = {"num_train": 28, "num_event_free": 4, "num_val": 28, "num_test": 28}
    training = {"base_epochs": 2, "retrain_epochs": 2, "report_every": 1, "cpus_per_worker": 1}
    values = {
        "run_dir": str(root / "run"),
        "data": {"dataset": "synthetic", "synthetic": sizes},
        "model": {"hidden_size": 8},
        "train": {**training, "num_workers": num_workers},
        "refine": {"num_actors": 1},
    }
    return Pipeline(RunConfig.model_validate(values), untracked(), execution=execution)


def weights_of(stage) -> bytes:
    return (stage.ensure().location / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def in_a_task(tmp_path_factory, ray_cluster) -> Pipeline:
    """A pipeline that trains with one worker, in a Ray task."""
    return pipeline(tmp_path_factory.mktemp("task"))


def test_a_training_in_this_process_gives_the_same_weights(in_a_task, tmp_path):
    here = pipeline(tmp_path, Execution(in_process=True))

    assert weights_of(here.retrain(auxiliary=True)) == weights_of(in_a_task.retrain(auxiliary=True))


def test_one_worker_of_ray_train_gives_the_same_weights(in_a_task, tmp_path, monkeypatch):
    def in_ray_train(loop, stage, out, resources, progress_actor):
        training_workers.run_with_ray_train(loop, out, resources, progress_actor)

    monkeypatch.setattr(training_workers, "_run_in_task", in_ray_train)
    alone = pipeline(tmp_path)

    assert weights_of(alone.base(auxiliary=True)) == weights_of(in_a_task.base(auxiliary=True))


def test_two_workers_of_ray_train_give_the_weights_up_to_rounding(in_a_task, tmp_path):
    two = weights_of(pipeline(tmp_path, num_workers=2).base(auxiliary=True))
    one = weights_of(in_a_task.base(auxiliary=True))

    assert two != one  # sums are rounded differently, so there were two
    for name, tensor in safetensors.torch.load(two).items():
        torch.testing.assert_close(tensor, safetensors.torch.load(one)[name], rtol=0, atol=1e-5)
