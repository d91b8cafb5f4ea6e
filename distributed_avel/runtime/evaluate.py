"""Evaluation: every arm and the naive strategies on the test split, and nothing else reads it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from distributed_avel.artifacts import Location
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.metrics.naive import repeat
from distributed_avel.metrics.segment import one_label_per_segment, segment_metrics
from distributed_avel.runtime.train import ModelRecipe
from distributed_avel.schema import predictions_schema
from distributed_avel.train.predict import segment_codes, segment_scores, video_scores

PREDICTIONS = "predictions.parquet"
METRICS = "metrics.json"


@dataclass(frozen=True, slots=True)
class _Prediction:
    """What an arm says of the test videos: scores (V, T, K) and classes (V, T)."""

    scores_VTK: NDArray[np.float32]
    class_VT: NDArray[np.int64]


def evaluate(
    videos: VideoSet,
    features: Location,
    arms: Mapping[str, ModelRecipe],
    repeated: Sequence[str],
    out: Location,
) -> dict[str, float]:
    """Write metrics, in percent, and predictions of every arm to `out`.

    Args:
        arms: Trained models by name.
        repeated: Those whose video-level prediction is also repeated over all segments.

    Returns:
        The share of the segments that each arm calls background.
    """
    store = FeatureStore(features)
    chosen = [v for v in videos.split("test") if v.video_id in store]
    if not chosen:
        raise DatasetError(f"{videos.name}: no video of the test split has features")
    labels_VTK = videos.segment_labels(chosen)
    metrics, background, tables = {}, {}, []
    for arm, prediction in _predictions(videos, chosen, store, arms, repeated):
        counted_VT = one_label_per_segment(labels_VTK, prediction.class_VT)
        metrics[arm] = segment_metrics(counted_VT, prediction.class_VT, videos.num_classes)
        background[arm] = float((prediction.class_VT == videos.num_classes).mean())
        tables.append(_table(arm, chosen, labels_VTK.argmax(axis=-1), prediction))
    (out / PREDICTIONS).write_table(pa.concat_tables(tables))
    (out / METRICS).write_json(metrics)
    return background


def _predictions(
    videos: VideoSet,
    chosen: Sequence[Video],
    store: FeatureStore,
    arms: Mapping[str, ModelRecipe],
    repeated: Sequence[str],
) -> Iterator[tuple[str, _Prediction]]:
    num_segments, num_classes = videos.timeline.num_segments, videos.num_classes
    true_class_V = videos.video_labels(chosen).argmax(axis=1)
    yield "GT-repeat", _repeated(true_class_V, num_segments, num_classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    audio_VTD, visual_VTRD = store.read([v.video_id for v in chosen])
    for arm, recipe in arms.items():
        model = recipe().to(device)
        codes_VTD = segment_codes(model, audio_VTD, visual_VTRD, device=device)
        scores_VTK = segment_scores(model, codes_VTD)
        yield arm, _Prediction(scores_VTK, scores_VTK.argmax(axis=-1))
        if arm in repeated:
            class_V = video_scores(model, codes_VTD, recipe.pooling).argmax(axis=-1)
            yield f"{arm}-repeat", _repeated(class_V, num_segments, num_classes)


def _repeated(class_V: NDArray[np.int64], num_segments: int, num_classes: int) -> _Prediction:
    class_VT = repeat(class_V, num_segments)
    return _Prediction(np.eye(num_classes + 1, dtype=np.float32)[class_VT], class_VT)


def _table(
    arm: str, chosen: Sequence[Video], truth_VT: NDArray[np.int64], prediction: _Prediction
) -> pa.Table:
    num_videos, num_segments, num_columns = prediction.scores_VTK.shape
    rows = num_videos * num_segments
    scores = pa.array(prediction.scores_VTK.reshape(-1), pa.float32())
    columns: list[Any] = [
        pa.array([arm] * rows),
        pa.array(np.repeat([v.video_id for v in chosen], num_segments), pa.string()),
        pa.array(np.tile(np.arange(num_segments, dtype=np.int32), num_videos)),
        pa.array(truth_VT.reshape(-1).astype(np.int32)),
        pa.array(prediction.class_VT.reshape(-1).astype(np.int32)),
        pa.FixedSizeListArray.from_arrays(scores, num_columns),
    ]
    return pa.Table.from_arrays(columns, schema=predictions_schema(num_columns - 1))
