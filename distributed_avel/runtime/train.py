"""Training on Ray Train: one worker is set up, told to run epochs, and reports.

No mathematics here. A worker differs from a plain single-process run in four
ways only: the objective is wrapped in DDP, each global batch is shared out, sums are added up
over the workers, and rank 0 alone writes files.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray
from ray.train import Checkpoint

from distributed_avel.artifacts import Location
from distributed_avel.config import ModelConfig, TrainConfig
from distributed_avel.features.store import FeatureStore
from distributed_avel.losses import VideoLoss
from distributed_avel.metrics.segment import one_label_per_segment, segment_metrics
from distributed_avel.mil import Pooling
from distributed_avel.models import BaseModel, create, model_class
from distributed_avel.randomness import derive
from distributed_avel.refine.partners import PartnerKind, PartnerPool
from distributed_avel.runtime.progress import ProgressBoard, progress
from distributed_avel.runtime.reduce import all_reduce_sums
from distributed_avel.schema import CURVES
from distributed_avel.train.batches import EpochPlan, TrainingSet, worker_batches
from distributed_avel.train.checkpoint import (
    load_weights,
    state_from_bytes,
    state_to_bytes,
    weights_to_bytes,
)
from distributed_avel.train.loop import train_epoch
from distributed_avel.train.objectives import Objective
from distributed_avel.train.predict import segment_codes, segment_scores

WEIGHTS = "model.safetensors"
CURVES_FILE = "curves.parquet"
_STATE = "state.pt"
_BOARD_EVERY_S = 0.5
_MAX_FAILURES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRecipe:
    """How a process builds its own base model, with or without trained weights."""

    config: ModelConfig
    num_classes: int
    audio_shape: tuple[int, ...]
    visual_shape: tuple[int, ...]
    weights: Location | None = None

    def __call__(self) -> BaseModel:
        """A new model."""
        model = create(
            self.config.name,
            num_classes=self.num_classes,
            audio_dim=self.audio_shape[-1],
            regions=self.visual_shape[-2],
            visual_dim=self.visual_shape[-1],
            hidden_size=self.config.hidden_size,
        )
        if self.weights is not None:
            load_weights(model, self.weights.read_bytes(), str(self.weights))
        return model

    @property
    def pooling(self) -> Pooling:
        """The MIL pooling that the configuration asks for."""
        if self.config.pooling != "model":
            return self.config.pooling
        return model_class(self.config.name).pooling

    def trained(self, weights: Location) -> "ModelRecipe":
        """The same model with these weights."""
        return replace(self, weights=weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """What to train, and on what; each worker gets a copy."""

    stage: str
    seed: int
    make_model: Callable[[], BaseModel]
    features: Location
    video_ids: Sequence[str]
    files: Sequence[str]
    labels_VK: NDArray[np.bool_]
    mask_WT: NDArray[np.bool_]
    val_ids: Sequence[str]
    val_labels_VTK: NDArray[np.bool_]
    pooling: Pooling
    loss: VideoLoss
    num_epochs: int
    config: TrainConfig
    window_labels_VWK: NDArray[np.bool_] | None = None
    partners: PartnerKind | None = None

    def training_set(self) -> TrainingSet:
        """The training videos, read into memory."""
        audio_VTD, visual_VTRD = FeatureStore(self.features).read(self.video_ids)
        pool = self.partners and PartnerPool(self.labels_VK, self.files, self.partners)
        return TrainingSet(
            video_ids=self.video_ids,
            files=self.files,
            audio_VTD=audio_VTD,
            visual_VTRD=visual_VTRD,
            labels_VK=self.labels_VK,
            window_labels_VWK=self.window_labels_VWK,
            partners=pool,
        )


def train(job: TrainJob, out: Location) -> None:
    """Train, and leave the weights and the learning curves in `out`.

    Interrupted, it goes on from the last checkpoint; finished, it does nothing.
    """
    if (out / WEIGHTS).exists():
        return
    board = ProgressBoard.remote()
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
        train_loop_config={"job": job, "out": out, "board": board},
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.config.num_workers,
            use_gpu=job.config.use_gpu,
            resources_per_worker={
                "CPU": job.config.cpus_per_worker,
                **({"GPU": 1} if job.config.use_gpu else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=out.path,
            storage_filesystem=None if out.is_local else out.fs,
            failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    with progress(job.stage, job.num_epochs, "epochs") as report:
        _fit(trainer, lambda: _show(board, report))


def _fit(trainer: ray.train.torch.TorchTrainer, watch: Callable[[], None]) -> None:
    """Fit in a thread, so that the main thread can watch and be interrupted."""
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001  (raised below, in the main thread)
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_BOARD_EVERY_S)
        watch()
    if errors:
        raise errors[0]


def _show(board: Any, report: Callable[[int, str], None]) -> None:
    for message in ray.get(board.take.remote()):
        note = "  ".join(f"{name} {value:.4g}" for name, value in message["metrics"].items())
        report(message["epoch"] + 1, note)


def _train_worker(settings: dict[str, Any]) -> None:
    """Body of every worker."""
    job: TrainJob = settings["job"]
    context = ray.train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    torch.set_num_threads(job.config.cpus_per_worker)

    torch.manual_seed(derive(job.seed, job.stage, "weights"))  # the same on every worker
    model = job.make_model()
    objective = Objective(model, torch.from_numpy(job.mask_WT), pooling=job.pooling, loss=job.loss)
    wrapped = ray.train.torch.prepare_model(objective)
    optimizer = torch.optim.Adam(model.parameters(), lr=job.config.learning_rate)
    videos = job.training_set()
    curves, first_epoch = _restore(model, optimizer)

    for epoch in range(first_epoch, job.num_epochs):
        plan = EpochPlan(
            seed=job.seed, stage=job.stage, epoch=epoch, batch_size=job.config.batch_size
        )
        torch.manual_seed(derive(job.seed, job.stage, "dropout", epoch, rank))
        batches = worker_batches(
            videos, plan, rank=rank, num_workers=num_workers, dtype=torch.get_default_dtype()
        )
        model.train()
        total = all_reduce_sums(train_epoch(wrapped, batches, optimizer, device), device)
        metrics = {f"train/{name}": value for name, value in total.means().items()}
        due = (epoch + 1) % job.config.report_every == 0 or epoch + 1 == job.num_epochs
        if rank == 0 and due:
            metrics |= _validate(job, model, device)
        curves += [{"epoch": epoch, "metric": k, "value": v} for k, v in metrics.items()]
        if rank == 0:
            settings["board"].put.remote({"epoch": epoch, "metrics": metrics})
        if due:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
                "curves": curves,
            }
            with _rank_zero_checkpoint(state, rank) as checkpoint:
                ray.train.report(metrics, checkpoint=checkpoint)

    if rank == 0:
        out: Location = settings["out"]
        (out / CURVES_FILE).write_table(pa.Table.from_pylist(curves, schema=CURVES))
        (out / WEIGHTS).write_bytes(weights_to_bytes(model))


def _restore(
    model: BaseModel, optimizer: torch.optim.Optimizer
) -> tuple[list[dict[str, Any]], int]:
    """Take up the last checkpoint, if there is one: the curves so far and the next epoch."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return [], 0
    with checkpoint.as_directory() as directory:
        state = state_from_bytes((Path(directory) / _STATE).read_bytes())
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["curves"], state["epoch"] + 1


def _validate(job: TrainJob, model: BaseModel, device: torch.device) -> dict[str, float]:
    if not job.val_ids:
        return {}
    audio_VTD, visual_VTRD = FeatureStore(job.features).read(job.val_ids)
    codes_VTD = segment_codes(model, audio_VTD, visual_VTRD, device=device)
    scores_VTK = segment_scores(model, codes_VTD)
    class_VT = scores_VTK.argmax(axis=-1)
    truth_VT = one_label_per_segment(job.val_labels_VTK, class_VT)
    metrics = segment_metrics(truth_VT, class_VT, scores_VTK.shape[-1] - 1)
    return {f"val/{name}": metrics[name] for name in ("accuracy", "non_ave_f1", "ave_f1")}


@contextmanager
def _rank_zero_checkpoint(state: dict[str, Any], rank: int) -> Iterator[Checkpoint | None]:
    """A checkpoint directory that lives until `report` has copied it; None off rank 0."""
    if rank != 0:
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / _STATE).write_bytes(state_to_bytes(state))
        yield Checkpoint.from_directory(directory)
