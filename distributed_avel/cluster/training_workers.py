"""Training workers: Ray Train workers, a Ray task, or the current process.

All run the same training loop. They differ in rank and device, in whether DDP wraps the objective,
and in where checkpoints are written.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.train
import ray.train.torch
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError
from ray.train import Checkpoint
from torch import nn

from distributed_avel.cluster.progress import ProgressActor, messages, say, watched
from distributed_avel.errors import ArtifactError, AvelError, StorageError
from distributed_avel.storage import Location, remove_file, remove_folder, storage_error
from distributed_avel.train.checkpoint import state_from_bytes, state_to_bytes

Watch = Callable[[str, int, dict[str, float]], None]
"""Callback after each epoch: stage, epoch (0-based) and metrics."""

Show = Callable[[int, dict[str, float]], None]
"""Callback of the driver after each epoch: epoch (0-based) and metrics."""

_STATE = "state.pt"
_CHECKPOINTS = "ray"

CHECKPOINTS = (_STATE, f"{_CHECKPOINTS}/")
"""Path prefixes of checkpoints below the folder of a stage."""

_MAX_FAILURES = 5
_NO_STORAGE_ERRORS = (ConnectionError, FileNotFoundError)


class TrainingWorker(Protocol):
    """One worker of a training."""

    rank: int
    num_workers: int
    device: torch.device

    def wrap(self, objective: nn.Module) -> nn.Module:
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

    def wrap(self, objective: nn.Module) -> nn.Module:
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
        use_gpu: Train on the GPU.
        watch: Called after each epoch.
    """

    rank, num_workers = 0, 1

    def __init__(
        self, stage: str, out: Location, *, use_gpu: bool, watch: Watch | None = None
    ) -> None:
        self.device = torch.device("cuda" if use_gpu else "cpu")
        self._stage, self._state, self._watch = stage, out / _STATE, watch

    def wrap(self, objective: nn.Module) -> nn.Module:
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


Loop = Callable[[TrainingWorker], None]
"""A training loop, which each worker runs; pickled and called in other processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerResources:
    """Number and resources of the workers of a training."""

    num_workers: int
    cpus_per_worker: int
    use_gpu: bool


def run_workers(
    loop: Loop, stage: str, out: Location, resources: WorkerResources, show: Show
) -> None:
    """Run a training loop in each worker until all are done.

    An interrupted training resumes from its last checkpoint; checkpoints are removed at the end.
    Several workers run in Ray Train. A single worker runs in a Ray task, because Ray reuses its
    process: a second training starts in 1 s instead of 14 s, with weights equal bit for bit.

    Args:
        stage: Name of the stage, for callbacks.
        out: Folder of the stage, where checkpoints are kept meanwhile.
        show: Called in this process with the metrics of rank 0 after each epoch.

    Raises:
        AvelError: Training diverged, or storage failed on every retry.
    """
    progress_actor: Any = ProgressActor.remote()

    def show_messages() -> None:
        for message in messages(progress_actor):
            show(message["epoch"], message["metrics"])

    def run() -> None:
        if resources.num_workers == 1:
            _run_in_task(loop, stage, out, resources, progress_actor)
        else:
            run_with_ray_train(loop, out, resources, progress_actor)

    try:
        watched(run, show_messages)
    except (ray.train.TrainingFailedError, RayTaskError) as error:
        mistake = _user_error(error, out)
        if mistake is None:
            raise
        raise mistake from None
    remove_folder(out / _CHECKPOINTS)


def _run_in_task(
    loop: Loop, stage: str, out: Location, resources: WorkerResources, progress_actor: Any
) -> None:
    """Train with one worker in a Ray task; if its process dies, a new one resumes."""
    task = ray.remote(_train_in_this_process).options(
        name=_run_in_task.__name__,
        num_cpus=resources.cpus_per_worker,
        num_gpus=int(resources.use_gpu),
        max_retries=_MAX_FAILURES,
        retry_exceptions=[OSError, StorageError],
    )
    ray.get(task.remote(loop, stage, out, resources.use_gpu, progress_actor))


def _train_in_this_process(
    loop: Loop, stage: str, out: Location, use_gpu: bool, progress_actor: Any
) -> None:
    """Body of the task."""

    def watch(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        progress_actor.put.remote({"epoch": epoch, "metrics": metrics})

    worker = SingleWorker(stage, out, use_gpu=use_gpu, watch=watch)
    loop(worker)
    worker.remove_checkpoint()


def run_with_ray_train(
    loop: Loop, out: Location, resources: WorkerResources, progress_actor: Any
) -> None:
    """Train with workers of Ray Train.

    Args:
        progress_actor: Receives the metrics of rank 0 after each epoch.
    """
    trainer = _Trainer(
        _train_worker,
        train_loop_config={"loop": loop, "progress_actor": progress_actor},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": 1} if resources.use_gpu else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=_CHECKPOINTS,
            storage_path=out.path,
            storage_filesystem=None if out.is_local else out.fs,
            failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    trainer.fit()


def _train_worker(settings: dict[str, Any]) -> None:
    """Body of every worker of Ray Train."""
    settings["loop"](RayTrainWorker(settings["progress_actor"]))


class _Trainer(ray.train.torch.TorchTrainer):
    """A trainer without Ray's handler of SIGINT, which ends the process with status 1."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _user_error(error: Exception, out: Location) -> AvelError | None:
    """The user-facing error behind a failed training: storage or divergence; else None."""
    causes = [*getattr(error, "worker_failures", {}).values()]
    causes += [getattr(error, name, None) for name in ("controller_failure", "cause")]
    for cause in causes:
        if isinstance(cause, AvelError):
            return cause
        if isinstance(cause, FloatingPointError):
            return ArtifactError(f"training diverged ({cause}); lower train.learning_rate")
        if isinstance(cause, OSError) and not isinstance(cause, _NO_STORAGE_ERRORS):
            return storage_error("written", out, cause)
    return None
