"""Stage `evaluate`: evaluate every arm and the naive baselines on the test split.

No other stage reads the test split.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions    D = feature or code size
    C = event classes    K = columns of labels    N = V * T
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from distributed_avel.arms import arm_label
from distributed_avel.cluster.progress import say
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.metrics.naive import repeat
from distributed_avel.predict.inference import segment_probabilities
from distributed_avel.report.alarms import prediction_warnings
from distributed_avel.schema import (
    PREDICTIONS_FILE,
    parsing_predictions_schema,
    predictions_schema,
)
from distributed_avel.stages.features import FeatureStage
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.stages.training import TrainingStage, labels_identity
from distributed_avel.storage import Location
from distributed_avel.tasks import EvaluationLabels, Parsing, Task
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.model_recipe import ModelRecipe
from distributed_avel.train.predict import predict_codes

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

PREDICTIONS = PREDICTIONS_FILE
METRICS_FILE = "metrics.json"


@dataclass(frozen=True, slots=True)
class EvaluationManifest:
    """Facts about the evaluation.

    Args:
        background: Share of the test segments without a predicted event, in 0..1, by arm.
    """

    background: dict[str, float]


class Evaluate(Stage[EvaluationManifest]):
    """Metrics and predictions of all arms on the test split.

    Args:
        arms: The stage that trains each arm, by the name of the arm in tables.
    """

    name = "evaluate"
    revision = 5
    command = "avel evaluate"
    manifest_type = EvaluationManifest

    def __init__(
        self,
        context: Context,
        features: FeatureStage,
        arms: Mapping[str, TrainingStage[Any]],
    ) -> None:
        super().__init__(context)
        self.features, self.arms = features, arms

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return the features and the trained models."""
        return (self.features, *self.arms.values())

    def depends(self) -> Mapping[str, Any]:
        """Return fingerprints of the models, and of the labels and features of the test videos."""
        test = self.features.usable("test")
        return {
            "arms": {name: arm.fingerprint for name, arm in self.arms.items()},
            "videos": labels_identity(self.features.data.videos, [], test),
            "features": self.features.identity(test),
        }

    def compute(self, out: Location, run: "Run") -> EvaluationManifest:
        """Evaluate all arms."""
        background = evaluate(
            self.context.task,
            self.features.data.videos,
            self.features.location,
            {name: arm.trained() for name, arm in self.arms.items()},
            repeated=[arm_label(self.config.model.name, "base")],
            out=out,
            lengths_V=self.features.lengths(self.features.usable("test")),
        )
        run.file(out / METRICS_FILE)
        for warning in prediction_warnings(background):
            say(f"WARNING: {warning}")
        return EvaluationManifest(background)

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Read the metrics in percent, by arm; None if a metric is undefined (0/0)."""
        return (self.location / METRICS_FILE).read_json()

    def predictions(self) -> pa.Table:
        """Read probabilities, predictions and ground truth of every segment."""
        return (self.location / PREDICTIONS).read_table()


def evaluate(
    task: Task,
    videos: VideoSet,
    features: Location,
    arms: Mapping[str, ModelRecipe],
    repeated: Sequence[str],
    out: Location,
    lengths_V: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """Write metrics, in percent, and predictions of every arm to `out`.

    Args:
        task: Task of the models.
        videos: Data set.
        features: Folder of the features.
        arms: Trained models by name.
        repeated: Names of the models whose video-level prediction is also evaluated, repeated over
            all segments.
        out: Folder of the stage.
        lengths_V: Number of segments of each test video, sorted by id; None if all have T.

    Returns:
        Share of the segments that each arm predicts as background, in 0..1.

    Raises:
        DatasetError: No test video has features.
        FloatingPointError: A probability is not finite, because the training diverged.
    """
    store = FeatureStore(features)
    chosen = [v for v in videos.split("test") if v.video_id in store]
    if not chosen:
        raise DatasetError(f"{videos.name}: no video of the test split has features")
    labels = EvaluationLabels.of(task, videos, chosen, lengths_V)
    valid_VT = labels.valid
    table = _parsing_table if isinstance(task, Parsing) else _localization_table
    metrics, background, tables = {}, {}, []
    for arm, prob_VTK in _predictions(task, videos, chosen, store, arms, repeated, lengths_V):
        metrics[arm] = labels.metrics(task, prob_VTK)
        background[arm] = task.background_share(prob_VTK, valid_VT)
        rows = table(arm, chosen, labels, prob_VTK, task.predicted(prob_VTK))
        tables.append(rows if valid_VT is None else rows.filter(pa.array(valid_VT.reshape(-1))))
    (out / PREDICTIONS).write_table(pa.concat_tables(tables))
    (out / METRICS_FILE).write_json(metrics)
    return background


@torch.no_grad()
def _predictions(
    task: Task,
    videos: VideoSet,
    chosen: Sequence[Video],
    store: FeatureStore,
    arms: Mapping[str, ModelRecipe],
    repeated: Sequence[str],
    lengths_V: NDArray[np.int64] | None,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    num_segments = videos.timeline.num_segments
    yield "GT-repeat", repeat(task.targets(videos, chosen), num_segments)
    device = torch.device("cpu")  # the same results on machines with and without a GPU
    audio_VTD, visual_VTRD = store.read([v.video_id for v in chosen])
    for arm, recipe in arms.items():
        model = recipe().eval()
        # One video at a time, so that its prediction does not depend on other videos and is the
        # same as that of the exported model folder.
        ends_V = [num_segments] * len(chosen) if lengths_V is None else lengths_V.tolist()
        prob_VTK = np.stack(
            [
                _padded(
                    segment_probabilities(
                        task, model, audio_TD[:end], visual_TRD[:end], num_segments
                    ),
                    num_segments,
                )
                for audio_TD, visual_TRD, end in zip(audio_VTD, visual_VTRD, ends_V, strict=True)
            ]
        )
        yield arm, prob_VTK
        if arm in repeated:
            with reproducible_arithmetic(device):
                predict = partial(task.repeated, model)
                prediction_VK = predict_codes(
                    predict, model, audio_VTD, visual_VTRD, lengths_V, device=device
                )
            yield f"{arm}-repeat", repeat(prediction_VK, num_segments)


def _padded(prob_MK: NDArray[np.float32], num_segments: int) -> NDArray[np.float32]:
    """Append zeros up to a number of segments, shape (T, K)."""
    return np.pad(prob_MK, [(0, num_segments - len(prob_MK)), (0, 0)])


def _localization_table(
    arm: str,
    chosen: Sequence[Video],
    labels: EvaluationLabels,
    prob_VTK: NDArray[np.float32],
    predicted_VTK: NDArray[np.bool_],
) -> pa.Table:
    _, num_segments, num_columns = prob_VTK.shape
    truth_AT = labels.truth_ATK.argmax(axis=-1).astype(np.int32)
    columns = [
        *_segments(arm, chosen, num_segments),
        _with_nulls(pa.array(truth_AT.reshape(-1)), labels, num_segments),
        pa.array(predicted_VTK.argmax(axis=-1).reshape(-1).astype(np.int32)),
        _scores(prob_VTK),
    ]
    schema = predictions_schema(num_columns - 1, annotated=bool(labels.annotated_V.all()))
    return pa.Table.from_arrays(columns, schema=schema)


def _parsing_table(
    arm: str,
    chosen: Sequence[Video],
    labels: EvaluationLabels,
    prob_VTK: NDArray[np.float32],
    predicted_VTK: NDArray[np.bool_],
) -> pa.Table:
    scores, num_segments = np.split(prob_VTK, 2, axis=-1), prob_VTK.shape[1]
    columns = [
        *_segments(arm, chosen, num_segments),
        *(
            _with_nulls(_classes(truth_ATC), labels, num_segments)
            for truth_ATC in np.split(labels.truth_ATK, 2, axis=-1)
        ),
        *(_classes(predicted_VTC) for predicted_VTC in np.split(predicted_VTK, 2, axis=-1)),
        *(_scores(prob_VTC) for prob_VTC in scores),
    ]
    annotated = bool(labels.annotated_V.all())
    schema = parsing_predictions_schema(scores[0].shape[-1], annotated=annotated)
    return pa.Table.from_arrays(columns, schema=schema)


def _with_nulls(of_annotated: pa.Array, labels: EvaluationLabels, num_segments: int) -> pa.Array:
    """Insert a null for each segment of a video without times."""
    is_annotated_N = np.repeat(labels.annotated_V, num_segments)
    rows_N = np.cumsum(is_annotated_N) - 1
    return of_annotated.take(pa.array(rows_N, pa.int64(), mask=~is_annotated_N))


def _segments(arm: str, chosen: Sequence[Video], num_segments: int) -> list[pa.Array]:
    """Return the arm, the video id and the index of each segment."""
    return [
        pa.array([arm] * (len(chosen) * num_segments)),
        pa.array(np.repeat([v.video_id for v in chosen], num_segments), pa.string()),
        pa.array(np.tile(np.arange(num_segments, dtype=np.int32), len(chosen))),
    ]


def _scores(prob_VTK: NDArray[np.float32]) -> pa.Array:
    values = pa.array(prob_VTK.reshape(-1).astype(np.float32))
    return pa.FixedSizeListArray.from_arrays(values, prob_VTK.shape[-1])


def _classes(events_VTC: NDArray[np.bool_]) -> pa.Array:
    """Return the list of the classes of each segment."""
    rows_NC = events_VTC.reshape(-1, events_VTC.shape[-1])
    ends_N = np.concatenate([[0], rows_NC.sum(axis=1).cumsum()]).astype(np.int32)
    classes = np.nonzero(rows_NC)[1].astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends_N), pa.array(classes))
