"""Who trains: workers of Ray Train, or this process alone. The training itself is the same.

What differs is who a worker is, whether its objective is wrapped, and where a checkpoint goes.
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
"""Called with the stage, the epoch that is done (from 0) and its metrics."""

_STATE = "state.pt"


class Team(Protocol):
    """The workers of one training, as one of them sees it."""

    rank: int
    num_workers: int
    device: torch.device

    def wrap(self, objective: Objective) -> Callable[[Batch], dict[str, Tensor]]:
        """The objective on this worker's device, its gradients averaged over the workers."""
        ...

    def restore(self) -> dict[str, Any] | None:
        """The state that was saved last, if there is any."""
        ...

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Tell the person who watches; only rank 0 does."""
        ...

    def save(self, state: dict[str, Any], metrics: dict[str, float]) -> None:
        """Keep the state of rank 0; every worker calls this."""
        ...


class RayTeam:
    """Workers of Ray Train, with DDP if there are several.

    Args:
        board: Where rank 0 leaves messages for the driver.
    """

    def __init__(self, board: ActorHandle) -> None:
        context = ray.train.get_context()
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._board = board

    def wrap(self, objective: Objective) -> Callable[[Batch], dict[str, Tensor]]:
        """The objective, prepared by Ray Train."""
        return ray.train.torch.prepare_model(objective)

    def restore(self) -> dict[str, Any] | None:
        """The state in the last checkpoint."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as directory:
            return _usable_state((Path(directory) / _STATE).read_bytes(), str(checkpoint.path))

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Leave a message on the board."""
        self._board.put.remote({"epoch": epoch, "metrics": metrics})

    def save(self, state: dict[str, Any], metrics: dict[str, float]) -> None:
        """Report a checkpoint; off rank 0, only that the epoch is done."""
        if self.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / _STATE).write_bytes(state_to_bytes(state))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(directory))


class Alone:
    """This process, with the state in a file of the stage.

    Args:
        stage: What is trained, for `watch`.
        out: Folder of the stage.
    """

    rank, num_workers = 0, 1

    def __init__(
        self, stage: str, out: Location, device: torch.device, watch: Watch | None
    ) -> None:
        self.device = device
        self._stage, self._state, self._watch = stage, out / _STATE, watch

    def wrap(self, objective: Objective) -> Callable[[Batch], dict[str, Tensor]]:
        """The objective itself."""
        return objective.to(self.device)

    def restore(self) -> dict[str, Any] | None:
        """The state in the file."""
        if not self._state.exists():
            return None
        return _usable_state(self._state.read_bytes(), str(self._state))

    def forget(self) -> None:
        """Remove the file, once the training is over."""
        remove_file(self._state)

    def show(self, epoch: int, metrics: dict[str, float]) -> None:
        """Call `watch`."""
        if self._watch:
            self._watch(self._stage, epoch, metrics)

    def save(self, state: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the file."""
        self._state.write_bytes(state_to_bytes(state))


def _usable_state(content: bytes, source: str) -> dict[str, Any] | None:
    """The state of a training; None where it is damaged, so that the training starts anew."""
    try:
        return state_from_bytes(content, source)
    except ArtifactError as error:
        say(f"WARNING: {error}; training starts anew")
        return None
