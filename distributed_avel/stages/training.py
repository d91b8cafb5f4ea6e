"""Training code that Steps 1 and 3 share.

Training with several workers differs from training with one in four ways only: DDP wraps the
objective, each global batch is divided among the workers, sums are reduced over the workers, and
only rank 0 writes files.

Shape suffixes used in this file:
    V = videos    T = segments    W = windows    R = regions    D = feature size
    K = columns of labels
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from distributed_avel.cluster.progress import progress
from distributed_avel.cluster.reduce import all_reduce_sums
from distributed_avel.cluster.training_workers import (
    CHECKPOINTS,
    SingleWorker,
    TrainingWorker,
    Watch,
    WorkerResources,
    run_workers,
)
from distributed_avel.config import TrainConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import ArtifactError, DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.method.partners import PartnerKind, PartnerPool
from distributed_avel.method.windows import WindowsOf
from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.models import BaseModel
from distributed_avel.randomness import derive
from distributed_avel.schema import CURVES, tensor_column, training_targets_schema
from distributed_avel.stages.cache_keys import short_hash
from distributed_avel.stages.data import Data
from distributed_avel.stages.features import FeatureStage
from distributed_avel.stages.stage import Context, ManifestT, Stage
from distributed_avel.storage import Location
from distributed_avel.tasks import EvaluationLabels, Task, best_epoch_metric
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.batches import EpochPlan, TrainingSet, worker_batches
from distributed_avel.train.checkpoint import weights_to_bytes
from distributed_avel.train.loop import EpochSums, train_epoch
from distributed_avel.train.model_recipe import ModelRecipe
from distributed_avel.train.objectives import Objective
from distributed_avel.train.predict import predict_codes

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

WEIGHTS = "model.safetensors"
CURVES_FILE = "curves.parquet"
TARGETS_FILE = "targets.parquet"
INITIAL_WEIGHTS = "initial.safetensors"


class TrainingStage(Stage[ManifestT]):
    """Base class of the stages that train a base model on the features of the training videos.

    Of the data set, the result depends only on the training and validation videos that have
    features: a new test video does not cause a training.
    """

    temporary = CHECKPOINTS

    def __init__(self, context: Context, features: FeatureStage) -> None:
        super().__init__(context)
        self.features = features

    @property
    def data(self) -> Data:
        """The videos."""
        return self.features.data

    def trained(self) -> "ModelRecipe":
        """Return the recipe of the trained model."""
        return self.untrained().trained(self.location / WEIGHTS)

    def untrained(self) -> "ModelRecipe":
        """Return the recipe of the model before training."""
        shapes = self.features.manifest
        return ModelRecipe(
            config=self.config.model,
            num_classes=self.data.videos.num_classes,
            audio_shape=shapes.audio_shape,
            visual_shape=shapes.visual_shape,
        )

    def curves(self) -> pa.Table:
        """Read losses and validation metrics of each epoch, as `schema.CURVES`."""
        return (self.location / CURVES_FILE).read_table()

    def validation_metrics(self) -> dict[str, float | None]:
        """Read the validation metrics of the final weights, in percent."""
        return kept_validation(self.location, self.context.task, self.config.train.keep)

    def videos_identity(self) -> dict[str, Any]:
        """Return fingerprints of the labels and features of the videos that training reads."""
        training, validation = self.features.usable("train"), self.features.usable("val")
        has_lengths = self.features.lengths([]) is not None  # of any video, also of a test video
        return {
            "videos": labels_identity(self.data.videos, training, validation),
            "features": self.features.identity([*training, *validation]),
            **({"has_lengths": True} if has_lengths else {}),  # the number of windows may differ
        }

    def train(
        self,
        out: Location,
        run: "Run",
        *,
        num_epochs: int,
        windows_of: WindowsOf,
        name: str = "",
        targets: "Step3Targets | None" = None,
        partners: PartnerKind | None = None,
        initial: bytes | None = None,
    ) -> int:
        """Train and write targets, weights and learning curves to `out`.

        Args:
            out: Folder of the stage.
            run: MLflow run of the stage.
            num_epochs: Number of epochs.
            windows_of: Windows of the losses.
            name: Name from which random numbers derive; the name of the stage by default.
            targets: Targets of Step 3; None in Step 1.
            partners: Kind of partner videos of the auxiliary loss; None trains without it.
            initial: Weights to start with, as `weights_to_bytes` returns them; random by default.

        Returns:
            The number of training videos.

        Raises:
            AvelError: No training video has features, training diverged, or storage failed.
        """
        task, videos = self.context.task, self.data.videos
        training, validation = self.features.usable("train"), self.features.usable("val")
        if not training:
            raise DatasetError(f"{videos.name}: no training video has features")
        make_model = self.untrained()
        if initial is not None:
            (out / INITIAL_WEIGHTS).write_bytes(initial)
            make_model = make_model.trained(out / INITIAL_WEIGHTS)
        job = TrainJob(
            stage=name or self.name,
            seed=self.config.seed,
            task=task,
            make_model=make_model,
            features=self.features.location,
            video_ids=[v.video_id for v in training],
            files=[v.uri for v in training],
            labels_VK=videos.video_labels(training),
            targets_VK=task.targets(videos, training),
            lengths_V=self.features.lengths(training),
            windows_of=windows_of,
            val_ids=[v.video_id for v in validation],
            val_labels=EvaluationLabels.of(
                task, videos, validation, self.features.lengths(validation)
            )
            if validation
            else None,
            num_epochs=num_epochs,
            config=self.config.train,
            partners=partners,
        )
        if targets is not None:
            job = replace(
                job,
                targets_VK=job.targets_VK if targets.video_VK is None else targets.video_VK,
                window_labels_VWK=targets.windows_VWK,
                fully_supervised=targets.fully_supervised,
            )
        job.check()
        if self.context.execution.in_process:
            train_in_process(job, out, self.context.execution.watch)
        else:
            train(job, out)
        run.curves((out / CURVES_FILE).read_table())
        run.file(out / WEIGHTS)
        return len(training)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step3Targets:
    """Targets of Step 3.

    Args:
        video_VK: Video-level targets of L_MIL; the video-level labels by default.
        windows_VWK: Labels of the windows, or of the segments with `fully_supervised`.
        fully_supervised: Apply g to each segment, and omit L_MIL.
    """

    video_VK: NDArray[np.bool_] | None = None
    windows_VWK: NDArray[np.bool_] | NDArray[np.float32] | None = None
    fully_supervised: bool = False


def labels_identity(
    videos: VideoSet, unannotated: Sequence[Video], annotated: Sequence[Video] = ()
) -> str:
    """Compute a fingerprint of the classes, the timeline and the labels of some videos.

    Args:
        videos: Data set.
        unannotated: Videos of which only the video-level labels are used.
        annotated: Videos of which the segment-level labels are used, too.
    """
    timeline = [videos.timeline.num_segments, videos.timeline.segment_s]
    weak = [[v.video_id, v.uri, v.labels] for v in unannotated]
    strong = [
        [v.video_id, v.uri, v.labels, *map(_plain, (v.spans, v.audio_spans, v.visual_spans))]
        for v in annotated
    ]
    return short_hash([videos.classes, timeline, weak, strong])


def _plain(spans: Sequence[Any] | None) -> list[Any] | None:
    return None if spans is None else [asdict(span) for span in spans]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """Everything that one training depends on; each worker gets a copy.

    Args:
        labels_VK: Video-level labels with background; partner videos are drawn by them.
        targets_VK: Video-level targets of the losses.
        lengths_V: Number of segments of each training video; None if all have T.
        windows_of: Windows of the losses.
        val_labels: Labels and lengths of the validation videos; None if there are none.
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
    windows_of: WindowsOf
    val_ids: Sequence[str]
    val_labels: EvaluationLabels | None
    num_epochs: int
    config: TrainConfig
    lengths_V: NDArray[np.int64] | None = None
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
        labels = self.val_labels
        if self.config.keep == "best" and labels and not labels.has_events(self.task):
            raise DatasetError(
                "train.keep: no validation video has an event or the times of its events, so no "
                "epoch is the best one; add some, or set train.keep to last"
            )
        if self.partners:
            pool = PartnerPool(self.labels_VK, self.files, self.partners)
            for label_K, file in zip(self.labels_VK, self.files, strict=True):
                pool.draw(label_K, file, 0)

    def training_set(self) -> TrainingSet:
        """Read the training videos into memory."""
        audio_VTD, visual_VTRD = FeatureStore(self.features).read(self.video_ids)
        pool = self.partners and PartnerPool(
            self.labels_VK, self.files, self.partners, self.lengths_V
        )
        return TrainingSet(
            video_ids=self.video_ids,
            files=self.files,
            audio_VTD=audio_VTD,
            visual_VTRD=visual_VTRD,
            labels_VK=self.targets_VK,
            lengths_V=self.lengths_V,
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


def train(job: TrainJob, out: Location) -> None:
    """Train on Ray, and write targets, weights and learning curves to `out`.

    An interrupted training resumes from its last checkpoint; checkpoints are removed at the end.

    Raises:
        AvelError: Training diverged, or storage failed on every retry.
    """
    (out / TARGETS_FILE).write_table(job.targets_table())
    resources = WorkerResources(
        num_workers=job.config.num_workers,
        cpus_per_worker=job.config.cpus_per_worker,
        use_gpu=job.config.use_gpu,
    )
    with progress(job.stage, job.num_epochs, "epochs") as report:

        def show(epoch: int, metrics: dict[str, float]) -> None:
            shown = {k: v for k, v in metrics.items() if k[:4] != "val/" or k[4:] in criterion}
            note = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            report(epoch + 1, note)

        criterion = (*job.task.criterion, *VIDEO_METRICS)
        run_workers(partial(_run_epochs, job, out=out), job.stage, out, resources, show)


def train_in_process(job: TrainJob, out: Location, watch: Watch | None = None) -> None:
    """`train` with one worker in the current process, without Ray; the weights are the same."""
    (out / TARGETS_FILE).write_table(job.targets_table())
    worker = SingleWorker(job.stage, out, use_gpu=job.config.use_gpu, watch=watch)
    _run_epochs(job, worker, out)
    worker.remove_checkpoint()


def _run_epochs(job: TrainJob, worker: TrainingWorker, out: Location) -> None:
    """Run the training loop of one worker; rank 0 writes weights and curves."""
    torch.set_num_threads(job.config.cpus_per_worker)
    torch.manual_seed(derive(job.seed, job.stage, "weights"))  # the same on every worker
    model = job.make_model()
    objective = Objective(model, job.windows_of, job.task, fully_supervised=job.fully_supervised)
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
        total = EpochSums.from_values(all_reduce_sums(sums.to_values(), worker.device))
        metrics = {f"train/{name}": value for name, value in total.means().items()}
        due = (epoch + 1) % job.config.report_every == 0 or epoch + 1 == job.num_epochs
        if worker.rank == 0 and due and validation and job.val_labels:
            measured = _validate(job.task, model, validation, job.val_labels, worker.device)
            if job.config.keep == "best":
                value = measured[best_epoch_metric(job.task, measured)]
                best = better_checkpoint(best, model, value)
            metrics |= {f"val/{name}": value for name, value in measured.items()}
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

    if job.num_epochs == 0 and validation and job.val_labels:  # given weights, see model.weights
        measured = _validate(job.task, model, validation, job.val_labels, worker.device)
        curves = [{"epoch": 0, "metric": f"val/{k}", "value": v} for k, v in measured.items()]
    if worker.rank == 0:
        if best:
            model.load_state_dict(best["model"])
        (out / CURVES_FILE).write_table(pa.Table.from_pylist(curves, schema=CURVES))
        (out / WEIGHTS).write_bytes(weights_to_bytes(model))


def kept_validation(
    out: Location, task: Task, keep: Literal["last", "best"]
) -> dict[str, float | None]:
    """Read the validation metrics of the final weights of a training, in percent.

    Learning curves omit undefined values; a missing metric is returned as None.

    Args:
        out: Folder of the training.
        task: Task of the model.
        keep: `train.keep`, which weights are final.

    Raises:
        ArtifactError: The learning curves have no validation metrics.
    """
    by_epoch: dict[int, dict[str, float]] = {}
    for row in (out / CURVES_FILE).read_table().to_pylist():
        if row["metric"].startswith("val/"):
            metric = row["metric"].removeprefix("val/")
            by_epoch.setdefault(row["epoch"], {})[metric] = row["value"]
    found = list(by_epoch.values())
    best_epoch = best_epoch_metric(task, found[-1]) if found else ""
    if not found or best_epoch not in found[-1]:
        raise ArtifactError(
            f"{out / CURVES_FILE}: no figures of the validation split; add validation videos with "
            f"events, or remove {out} to train again if there were some"
        )
    kept = found[-1]
    if keep == "best":
        kept = max(reversed(found), key=lambda metrics: metrics.get(best_epoch, -math.inf))
    has_video_metrics = not kept.keys().isdisjoint(VIDEO_METRICS)
    names = [*task.metrics, *(VIDEO_METRICS if has_video_metrics else ())]
    return {name: kept.get(name) for name in names}


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
    labels: EvaluationLabels,
    device: torch.device,
) -> dict[str, float]:
    with reproducible_arithmetic(device):
        predict = partial(task.segment_prob, model)
        prob_VTK = predict_codes(predict, model, *features, labels.lengths_V, device=device)
    metrics = labels.metrics(task, prob_VTK)
    return {name: value for name, value in metrics.items() if value is not None}
