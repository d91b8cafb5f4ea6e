"""Training on Ray, with one worker or with the workers of Ray Train.

No mathematics here. One of several workers differs from a single one in four ways only: its
objective is wrapped in DDP, each global batch is divided among the workers, sums are added up
over them, and rank 0 alone writes files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from distributed_avel.arms import WindowLabels
from distributed_avel.artifacts import Location, remove_folder, storage_error
from distributed_avel.config import ModelConfig, TrainConfig
from distributed_avel.errors import ArtifactError, AvelError, DatasetError, StorageError
from distributed_avel.features.store import FeatureStore
from distributed_avel.models import BaseModel, model_class, model_options
from distributed_avel.randomness import derive
from distributed_avel.refine.partners import PartnerKind, PartnerPool
from distributed_avel.runtime.progress import ProgressActor, messages, progress, watched
from distributed_avel.runtime.reduce import all_reduce_sums
from distributed_avel.runtime.training_workers import RayTrainWorker, SingleWorker, TrainingWorker
from distributed_avel.runtime.training_workers import Watch as Watch
from distributed_avel.schema import CURVES, tensor_column, training_targets_schema
from distributed_avel.tasks import Task
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.batches import EpochPlan, TrainingSet, worker_batches
from distributed_avel.train.checkpoint import load_weights, weights_to_bytes
from distributed_avel.train.loop import train_epoch
from distributed_avel.train.objectives import Objective
from distributed_avel.train.predict import segment_codes

WEIGHTS = "model.safetensors"
CURVES_FILE = "curves.parquet"
TARGETS_FILE = "targets.parquet"
_CHECKPOINTS = "ray"
_MAX_FAILURES = 5
_NO_STORAGE_ERRORS = (ConnectionError, FileNotFoundError)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRecipe:
    """Picklable factory of a base model, with or without trained weights.

    It holds the class, so workers need not import the package that registered it by name.
    """

    config: ModelConfig
    num_classes: int
    audio_shape: tuple[int, ...]
    visual_shape: tuple[int, ...]
    weights: Location | None = None
    model: type[BaseModel] = field(init=False)
    options: BaseModel.Config = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", model_class(self.config.name))
        object.__setattr__(self, "options", model_options(self.config.name, self.config.options))

    def __call__(self) -> BaseModel:
        """A new model."""
        model = self.model(
            num_classes=self.num_classes,
            audio_dim=self.audio_shape[-1],
            regions=self.visual_shape[-2],
            visual_dim=self.visual_shape[-1],
            hidden_size=self.config.hidden_size,
            **dict(self.options),
        )
        if self.weights is not None:
            load_weights(model, self.weights.read_bytes(), str(self.weights))
        return model

    def trained(self, weights: Location) -> "ModelRecipe":
        """The same model with these weights."""
        return replace(self, weights=weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """Everything that one training depends on; each worker gets a copy.

    Args:
        labels_VK: Video-level labels with background; partner videos are drawn by them.
        targets_VK: Video-level targets of the losses.
        fully_supervised: `window_labels_VWK` are segment-level labels (V, T, K), and g is applied
            to each segment; `targets_VK` is not used.
    """

    stage: str
    seed: int
    task: Task
    make_model: Callable[[], BaseModel]
    features: Location
    video_ids: Sequence[str]
    files: Sequence[str]
    labels_VK: NDArray[np.bool_]
    targets_VK: NDArray[np.bool_]
    mask_WT: NDArray[np.bool_]
    val_ids: Sequence[str]
    val_truth_VTK: NDArray[np.bool_]
    num_epochs: int
    config: TrainConfig
    window_labels_VWK: NDArray[np.bool_] | NDArray[np.float32] | None = None
    partners: PartnerKind | None = None
    fully_supervised: bool = False

    def check(self) -> None:
        """Check, before workers start, what each of them would fail on.

        Raises:
            AvelError: The model cannot be made, or a training video has no partner.
        """
        self.make_model()
        if self.config.keep == "best" and not self.val_ids:
            raise DatasetError(
                "train.keep: no validation video has features, so no epoch is the best one; "
                "annotate some, or set train.keep to last"
            )
        if self.partners:
            pool = PartnerPool(self.labels_VK, self.files, self.partners)
            for label_K, file in zip(self.labels_VK, self.files, strict=True):
                pool.draw(label_K, file, 0)

    def training_set(self) -> TrainingSet:
        """Read the training videos into memory."""
        audio_VTD, visual_VTRD = FeatureStore(self.features).read(self.video_ids)
        pool = self.partners and PartnerPool(self.labels_VK, self.files, self.partners)
        return TrainingSet(
            video_ids=self.video_ids,
            files=self.files,
            audio_VTD=audio_VTD,
            visual_VTRD=visual_VTRD,
            labels_VK=self.targets_VK,
            window_labels_VWK=self.window_labels_VWK,
            partners=pool,
            background=self.task.background,
        )

    def targets_table(self) -> pa.Table:
        """Training targets of each video, as `schema.training_targets_schema`."""
        windows_VWK, columns = self.window_labels_VWK, [pa.array(self.video_ids, pa.string())]
        schema = training_targets_schema(
            self.targets_VK.shape[-1],
            video=not self.fully_supervised,
            num_windows=0 if windows_VWK is None else windows_VWK.shape[1],
        )
        if not self.fully_supervised:
            columns.append(tensor_column(self.targets_VK, schema.field("video").type))
        if windows_VWK is not None:
            columns.append(tensor_column(windows_VWK, schema.field("windows").type))
        return pa.Table.from_arrays(columns, schema=schema)


def targets_of(labels_VWK: NDArray[Any], windows: WindowLabels) -> dict[str, Any]:
    """Arguments of `TrainJob` for the labels of Step 3."""
    if windows == "exchanged":  # video-level labels of each modality
        return {"targets_VK": labels_VWK[:, 0]}
    if windows == "segments":
        mask_WT = np.eye(labels_VWK.shape[1], dtype=bool)
        return {"window_labels_VWK": labels_VWK, "mask_WT": mask_WT, "fully_supervised": True}
    return {"window_labels_VWK": labels_VWK}


def train(job: TrainJob, out: Location) -> None:
    """Train, and write targets, weights and learning curves to `out`.

    An interrupted training resumes from its last checkpoint; checkpoints are removed at the end.

    Several workers run in Ray Train. A single worker runs in a Ray task, because Ray reuses its
    process: a second training starts in 1 s instead of 14 s, with weights equal bit for bit.

    Raises:
        AvelError: Training diverged, or storage failed on every retry.
    """
    (out / TARGETS_FILE).write_table(job.targets_table())
    progress_actor = ProgressActor.remote()
    run = _train_in_task if job.config.num_workers == 1 else train_with_ray_train
    with progress(job.stage, job.num_epochs, "epochs") as report:
        try:
            watched(
                lambda: run(job, out, progress_actor),
                lambda: _show(progress_actor, report, job.task.criterion),
            )
        except (ray.train.TrainingFailedError, RayTaskError) as error:
            mistake = _user_error(error, out)
            if mistake is None:
                raise
            raise mistake from None
    remove_folder(out / _CHECKPOINTS)


def _train_in_task(job: TrainJob, out: Location, progress_actor: Any) -> None:
    """Train with one worker in a Ray task; if its process dies, a new one resumes."""
    task = ray.remote(_train_in_this_process).options(
        name=_train_in_task.__name__,
        num_cpus=job.config.cpus_per_worker,
        num_gpus=int(job.config.use_gpu),
        max_retries=_MAX_FAILURES,
        retry_exceptions=[OSError, StorageError],
    )
    ray.get(task.remote(job, out, progress_actor))


def _train_in_this_process(job: TrainJob, out: Location, progress_actor: Any) -> None:
    """Body of the task."""

    def show(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        progress_actor.put.remote({"epoch": epoch, "metrics": metrics})

    _train_alone(job, out, show)


def train_with_ray_train(job: TrainJob, out: Location, progress_actor: Any) -> None:
    """Train with `train.num_workers` workers of Ray Train.

    Args:
        job: The training.
        out: Folder of the stage.
        progress_actor: Receives the metrics of rank 0 after each epoch.
    """
    trainer = _Trainer(
        _train_worker,
        train_loop_config={"job": job, "out": out, "progress_actor": progress_actor},
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.config.num_workers,
            use_gpu=job.config.use_gpu,
            resources_per_worker={
                "CPU": job.config.cpus_per_worker,
                **({"GPU": 1} if job.config.use_gpu else {}),
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


def _show(
    progress_actor: Any, report: Callable[[int, str], None], criterion: Sequence[str]
) -> None:
    for message in messages(progress_actor):
        metrics = message["metrics"].items()
        shown = {k: v for k, v in metrics if k[:4] != "val/" or k[4:] in criterion}
        note = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        report(message["epoch"] + 1, note)


def train_in_process(job: TrainJob, out: Location, watch: Watch | None = None) -> None:
    """`train` with one worker in the current process, without Ray; the weights are the same."""
    (out / TARGETS_FILE).write_table(job.targets_table())
    _train_alone(job, out, watch)


def _train_alone(job: TrainJob, out: Location, watch: Watch | None) -> None:
    device = torch.device("cuda" if job.config.use_gpu else "cpu")
    worker = SingleWorker(job.stage, out, device, watch)
    _run_epochs(job, worker, out)
    worker.remove_checkpoint()


def _train_worker(settings: dict[str, Any]) -> None:
    """Body of every worker of Ray Train."""
    _run_epochs(settings["job"], RayTrainWorker(settings["progress_actor"]), settings["out"])


def _run_epochs(job: TrainJob, worker: TrainingWorker, out: Location) -> None:
    """Run the training loop of one worker; rank 0 writes weights and curves."""
    torch.set_num_threads(job.config.cpus_per_worker)
    torch.manual_seed(derive(job.seed, job.stage, "weights"))  # the same on every worker
    model = job.make_model()
    mask_WT = torch.from_numpy(job.mask_WT)
    objective = Objective(model, mask_WT, job.task, fully_supervised=job.fully_supervised)
    wrapped = worker.wrap(objective)
    optimizer = torch.optim.Adam(model.parameters(), lr=job.config.learning_rate)
    videos = job.training_set()
    validates = worker.rank == 0 and job.val_ids
    validation = FeatureStore(job.features).read(job.val_ids) if validates else None
    curves: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    first_epoch = 0
    if state := worker.restore():
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        curves, first_epoch, best = state["curves"], state["epoch"] + 1, state["best"]

    for epoch in range(first_epoch, job.num_epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(job.config, epoch)
        plan = EpochPlan(
            seed=job.seed, stage=job.stage, epoch=epoch, batch_size=job.config.batch_size
        )
        torch.manual_seed(derive(job.seed, job.stage, "dropout", epoch, worker.rank))
        batches = worker_batches(
            videos,
            plan,
            rank=worker.rank,
            num_workers=worker.num_workers,
            dtype=torch.get_default_dtype(),
        )
        model.train()
        with reproducible_arithmetic(worker.device):
            sums = train_epoch(wrapped, batches, optimizer, worker.device)
        total = all_reduce_sums(sums, worker.device)
        metrics = {f"train/{name}": value for name, value in total.means().items()}
        due = (epoch + 1) % job.config.report_every == 0 or epoch + 1 == job.num_epochs
        if worker.rank == 0 and due and validation:
            metrics |= _validate(job.task, model, validation, job.val_truth_VTK, worker.device)
            if job.config.keep == "best":
                best = better_checkpoint(best, model, metrics[f"val/{job.task.best_epoch}"])
        curves += [{"epoch": epoch, "metric": k, "value": v} for k, v in metrics.items()]
        if due:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
                "curves": curves,
                "best": best,
            }
            worker.save(state, metrics)
        if worker.rank == 0:
            worker.show(epoch, metrics)

    if worker.rank == 0:
        if best:
            model.load_state_dict(best["model"])
        (out / CURVES_FILE).write_table(pa.Table.from_pylist(curves, schema=CURVES))
        (out / WEIGHTS).write_bytes(weights_to_bytes(model))


def kept_validation(
    out: Location, task: Task, keep: Literal["last", "best"]
) -> dict[str, float | None]:
    """Validation metrics of the weights that a training kept.

    Learning curves omit undefined values; a metric that is missing there is None.

    Args:
        out: Folder of the training.

    Raises:
        ArtifactError: The learning curves have no validation metrics.
    """
    by_epoch: dict[int, dict[str, float]] = {}
    for row in (out / CURVES_FILE).read_table().to_pylist():
        if row["metric"].startswith("val/"):
            metric = row["metric"].removeprefix("val/")
            by_epoch.setdefault(row["epoch"], {})[metric] = row["value"]
    found = list(by_epoch.values())
    if not found or task.best_epoch not in found[-1]:
        raise ArtifactError(
            f"{out / CURVES_FILE}: no figures of the validation split; remove {out} to train again"
        )
    kept = found[-1]
    if keep == "best":
        kept = max(reversed(found), key=lambda metrics: metrics[task.best_epoch])
    return {name: kept.get(name) for name in task.metrics}


def better_checkpoint(
    best: dict[str, Any] | None, model: BaseModel, value: float
) -> dict[str, Any]:
    """Return the better of the best checkpoint so far and the current weights (ties: current)."""
    if best and value < best["value"]:
        return best
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return {"value": value, "model": weights}


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Learning rate of epoch `epoch` (0-based)."""
    return config.learning_rate * config.lr_decay ** (epoch // config.lr_decay_epochs)


@torch.no_grad()
def _validate(
    task: Task,
    model: BaseModel,
    features: tuple[NDArray[np.float32], NDArray[np.float16]],
    truth_VTK: NDArray[np.bool_],
    device: torch.device,
) -> dict[str, float]:
    with reproducible_arithmetic(device):
        codes_VTD = segment_codes(model, *features, device=device)
        prob_VTK = task.segment_prob(model, codes_VTD).cpu().numpy()
    metrics = task.judge(truth_VTK, prob_VTK)
    return {f"val/{name}": value for name, value in metrics.items() if value is not None}
