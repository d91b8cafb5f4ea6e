"""Training workers: Ray Train workers or the current process.

Both run the same training loop. They differ in rank and device, in whether DDP wraps the objective,
and in where checkpoints go.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from ray.train import Checkpoint
from torch import Tensor

from distributed_avel.artifacts import Location, remove_file
from distributed_avel.errors import ArtifactError
from distributed_avel.runtime.progress import say
from distributed_avel.train.batches import Batch
from distributed_avel.train.checkpoint import state_from_bytes, state_to_bytes
from distributed_avel.train.objectives import Objective

Watch = Callable[[str, int, dict[str, float]], None]
"""Callback after each epoch: stage, epoch (0-based) and metrics."""

_STATE = "state.pt"


class TrainingWorker(Protocol):
    """One worker of a training."""

    rank: int
    num_workers: int
    device: torch.device

    def wrap(self, objective: Objective) -> Callable[[Batch], dict[str, Tensor]]:
        """Move the objective to the device of this worker; DDP averages gradients over workers."""
        ...

    def restore(self) -> dict[str, Any] | None:
        """Load the last checkpoint, or return None."""
        ...

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Report the metrics of an epoch (0-based). Only rank 0 calls it."""
        ...

    def save(self, state: dict[str, Any], metrics: dict[str, float]) -> None:
        """Save a checkpoint of rank 0. Every worker calls it."""
        ...


class RayTrainWorker:
    """A worker of Ray Train; with several workers, DDP averages gradients.

    Args:
        progress: The `ProgressActor` that receives the metrics of rank 0.
    """

    def __init__(self, progress: ActorHandle) -> None:
        context = ray.train.get_context()
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._progress = progress

    def wrap(self, objective: Objective) -> Callable[[Batch], dict[str, Tensor]]:
        """Prepare the objective with Ray Train."""
        return ray.train.torch.prepare_model(objective)

    def restore(self) -> dict[str, Any] | None:
        """Load the last checkpoint of Ray Train."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as directory:
            return _usable_state((Path(directory) / _STATE).read_bytes(), str(checkpoint.path))

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Send the metrics to the progress actor."""
        self._progress.put.remote({"epoch": epoch, "metrics": metrics})

    def save(self, state: dict[str, Any], metrics: dict[str, float]) -> None:
        """Report a checkpoint; ranks other than 0 report metrics only."""
        if self.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / _STATE).write_bytes(state_to_bytes(state))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(directory))


class SingleWorker:
    """The current process, which keeps its checkpoint in the folder of the stage.

    Args:
        stage: Name of the stage, passed to `watch`.
        out: Folder of the stage.
        device: Device to train on.
        watch: Called after each epoch.
    """

    rank, num_workers = 0, 1

    def __init__(
        self, stage: str, out: Location, device: torch.device, watch: Watch | None
    ) -> None:
        self.device = device
        self._stage, self._state, self._watch = stage, out / _STATE, watch

    def wrap(self, objective: Objective) -> Callable[[Batch], dict[str, Tensor]]:
        """Move the objective to the device."""
        return objective.to(self.device)

    def restore(self) -> dict[str, Any] | None:
        """Load the checkpoint file."""
        if not self._state.exists():
            return None
        return _usable_state(self._state.read_bytes(), str(self._state))

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint file after training."""
        remove_file(self._state)

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Call `watch`."""
        if self._watch:
            self._watch(self._stage, epoch, metrics)

    def save(self, state: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the checkpoint file."""
        self._state.write_bytes(state_to_bytes(state))


def _usable_state(content: bytes, source: str) -> dict[str, Any] | None:
    """Parse a checkpoint; return None with a warning if it is damaged, so training restarts."""
    try:
        return state_from_bytes(content, source)
    except ArtifactError as error:
        say(f"WARNING: {error}; training starts again")
        return None
