"""Arrow schemas of the artifacts that stages exchange.

Schemas are explicit, never inferred: an inferred schema depends on which rows share a block, so
one broken video could change the type of a column. Arrays are stored as fixed-shape tensors, so
that no Python lists of floats are built. Tensors are never null, because pyarrow cannot read such
a Parquet column back; failures therefore have their own table.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa


def _required(name: str, dtype: pa.DataType) -> pa.Field:
    return pa.field(name, dtype, nullable=False)


SPAN = pa.struct(
    [
        _required("label", pa.int32()),
        _required("start_s", pa.float64()),
        _required("end_s", pa.float64()),
    ]
)
"""An event of class `label` from `start_s` to `end_s`, in seconds."""

VIDEOS = pa.schema(
    [
        _required("video_id", pa.string()),
        _required("uri", pa.string()),
        _required("split", pa.string()),
        _required("labels", pa.list_(pa.int32())),
        pa.field("spans", pa.list_(SPAN)),
        pa.field("audio_spans", pa.list_(SPAN)),
        pa.field("visual_spans", pa.list_(SPAN)),
    ]
)
"""One row per video of a data set. `labels`: video-level event classes, empty for a video without
an event. `spans`: audio-visual events, null if the segments are not annotated. `audio_spans`,
`visual_spans`: audible and visible events, null if the modalities are not annotated separately."""

FAILURES = pa.schema(
    [
        _required("video_id", pa.string()),
        _required("uri", pa.string()),
        _required("stage", pa.string()),
        _required("error", pa.string()),
        _required("seconds", pa.float64()),
    ]
)
"""One row per video that a stage could not process, with the reason."""

SOURCES = pa.schema(
    [
        _required("uri", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
    ]
)
"""One row per media file as it was when its features were extracted: bytes, and time of change,
which some storages do not have."""


NUM_SEGMENTS = "num_segments"
"""Column with the number of segments of a video, where videos may be shorter than T."""


def features_schema(
    audio: tuple[int, ...], visual: tuple[int, ...], *, any_length: bool = False
) -> pa.Schema:
    """Return the schema of features: one row per extracted video.

    Args:
        audio: Shape of the audio features of one video, such as (10, 128).
        visual: Shape of the visual features of one video, such as (10, 49, 512).
        any_length: Add the column `NUM_SEGMENTS`; features beyond it are zero.
    """
    fields = [
        _required("video_id", pa.string()),
        _required("audio", pa.fixed_shape_tensor(pa.float32(), audio)),
        _required("visual", pa.fixed_shape_tensor(pa.float16(), visual)),
    ]
    return pa.schema([*fields, *[_required(NUM_SEGMENTS, pa.int32())] * any_length])


def window_scores_schema(num_windows: int, num_columns: int) -> pa.Schema:
    """Return the schema of Step 2: one row per relabelled video, before thresholding (eq. 10).

    `partners` are the ids of the partner videos, empty if windows are scored without partners.
    `scores` is Z-hat (T1, K), 0 for every class outside the video-level label.

    Args:
        num_windows: T1.
        num_columns: K; see `tasks.base`.
    """
    return pa.schema(
        [
            _required("video_id", pa.string()),
            _required("partners", pa.list_(pa.string())),
            _required("scores", pa.fixed_shape_tensor(pa.float32(), (num_windows, num_columns))),
        ]
    )


PREDICTIONS_FILE = "predictions.parquet"
"""Name of the predictions of a run, in its directory."""


def predictions_schema(num_classes: int, *, annotated: bool = True) -> pa.Schema:
    """Return the schema of predictions: one row per arm and segment of a test video.

    `scores` are softmax probabilities of the C + 1 classes, background last. `prediction` and
    `truth` (ground truth) are class indices; of several events in a segment, `truth` is the first.
    `truth` is null for videos without times.

    Args:
        num_classes: C.
        annotated: Whether all test videos have times, so that no ground truth is null.
    """
    return pa.schema(
        [
            _required("arm", pa.string()),
            _required("video_id", pa.string()),
            _required("segment", pa.int32()),
            pa.field("truth", pa.int32(), nullable=not annotated),
            _required("prediction", pa.int32()),
            _required("scores", pa.list_(pa.float32(), num_classes + 1)),
        ]
    )


def parsing_predictions_schema(num_classes: int, *, annotated: bool = True) -> pa.Schema:
    """Return the schema of predictions of parsing: one row per arm and segment of a test video.

    `heard` and `seen` are the predicted classes of the audio and the visual modality, `truth_...`
    the ground truth (null for videos without times), and `..._scores` the C probabilities.

    Args:
        num_classes: C.
        annotated: Whether all test videos have times, so that no ground truth is null.
    """
    classes, scores = pa.list_(pa.int32()), pa.list_(pa.float32(), num_classes)
    return pa.schema(
        [
            _required("arm", pa.string()),
            _required("video_id", pa.string()),
            _required("segment", pa.int32()),
            pa.field("truth_heard", classes, nullable=not annotated),
            pa.field("truth_seen", classes, nullable=not annotated),
            _required("heard", classes),
            _required("seen", classes),
            _required("heard_scores", scores),
            _required("seen_scores", scores),
        ]
    )


def training_targets_schema(num_columns: int, *, video: bool, num_windows: int) -> pa.Schema:
    """Return the schema of training targets: one row per training video, in 0..1.

    Args:
        num_columns: K; see `tasks.base`.
        video: Whether there is a video-level target, `video` (K), for L_MIL.
        num_windows: Rows of `windows` (W, K), the targets of windows or, with full supervision, of
            segments (W = T); 0 in Step 1.
    """
    tensor = partial(pa.fixed_shape_tensor, pa.float32())
    fields = [_required("video_id", pa.string())]
    fields += [_required("video", tensor((num_columns,)))] * video
    fields += [_required("windows", tensor((num_windows, num_columns)))] * bool(num_windows)
    return pa.schema(fields)


CURVES = pa.schema(
    [
        _required("epoch", pa.int32()),
        _required("metric", pa.string()),
        _required("value", pa.float64()),
    ]
)
"""Learning curves of one training: one row per epoch and metric."""

THRESHOLDS = pa.schema(
    [
        _required("part", pa.string()),
        _required("threshold", pa.float64()),
        _required("sensitivity", pa.float64()),
        _required("specificity", pa.float64()),
        _required("num_present", pa.int64()),
        _required("num_absent", pa.int64()),
    ]
)
"""Agreement of window pseudo-labels with segment labels on the validation split, over tau
(Sec. 5.3). `part`: one of `tasks.Task.parts`."""


def tensor_column(arrays: Sequence[np.ndarray] | np.ndarray, dtype: pa.DataType) -> pa.Array:
    """Convert arrays to a column of fixed-shape tensors, with one copy.

    Raises:
        ValueError: An array does not have the shape of the column.
    """
    assert isinstance(dtype, pa.FixedShapeTensorType)
    shape = tuple(dtype.shape)
    values = np.asarray(arrays) if len(arrays) else np.empty((0, *shape))
    if values.shape[1:] != shape:
        raise ValueError(f"expected arrays of shape {shape}, got {values.shape[1:]}")
    values = values.astype(dtype.value_type.to_pandas_dtype(), copy=False)
    size = int(np.prod(shape))
    storage = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), size)
    return pa.ExtensionArray.from_storage(dtype, storage)


def tensor_array(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Convert a column of fixed-shape tensors to one array, with the row as the first axis."""
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 0:
            return np.empty((0, *column.type.shape), column.type.value_type.to_pandas_dtype())
        column = column.combine_chunks()
    return column.to_numpy_ndarray()
