"""What stages hand to each other: one explicit Arrow schema per artifact.

Schemas are written down, never inferred. An inferred schema depends on which
rows share a block, so a single broken video could change the type of a column.
Arrays travel as fixed-shape tensors: no Python list of floats is ever built. They
are never null (Parquet cannot read such a column back), so failures are their own table.
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
"""An event of class `label` from `start_s` to `end_s`."""

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
"""One row per video of a data set. `labels`: video-level event classes, empty for a video
without an event. `spans`: events both seen and heard, null where nobody annotated the segments.
`audio_spans`, `visual_spans`: what is heard and what is seen, null where nobody annotated the
two apart."""

FAILURES = pa.schema(
    [
        _required("video_id", pa.string()),
        _required("uri", pa.string()),
        _required("stage", pa.string()),
        _required("error", pa.string()),
        _required("seconds", pa.float64()),
    ]
)
"""One row per video that a stage could not use, and why."""


def features_schema(audio: tuple[int, ...], visual: tuple[int, ...]) -> pa.Schema:
    """One row per video that was extracted whole.

    Args:
        audio: Shape of the audio features of one video, such as (10, 128).
        visual: Shape of the visual features of one video, such as (10, 49, 512).
    """
    return pa.schema(
        [
            _required("video_id", pa.string()),
            _required("audio", pa.fixed_shape_tensor(pa.float32(), audio)),
            _required("visual", pa.fixed_shape_tensor(pa.float16(), visual)),
        ]
    )


def window_scores_schema(num_windows: int, num_columns: int) -> pa.Schema:
    """One row per relabelled video: its window probabilities before thresholding (eq. 10).

    `partners` names the partner videos, none where windows were scored alone; `scores` is Z-hat,
    (T1, K), zero for every class outside the video-level label. K: see `tasks.base`.
    """
    return pa.schema(
        [
            _required("video_id", pa.string()),
            _required("partners", pa.list_(pa.string())),
            _required("scores", pa.fixed_shape_tensor(pa.float32(), (num_windows, num_columns))),
        ]
    )


def predictions_schema(num_classes: int) -> pa.Schema:
    """One row per segment of a test video, for every arm.

    `scores` are softmax probabilities over the C + 1 classes, background last; `prediction`
    and `truth` are class indices; of several events in a segment, `truth` is the first.
    """
    return pa.schema(
        [
            _required("arm", pa.string()),
            _required("video_id", pa.string()),
            _required("segment", pa.int32()),
            _required("truth", pa.int32()),
            _required("prediction", pa.int32()),
            _required("scores", pa.list_(pa.float32(), num_classes + 1)),
        ]
    )


def parsing_predictions_schema(num_classes: int) -> pa.Schema:
    """The same for parsing: `heard` and `seen` are the classes predicted in each modality,
    `truth_...` those that are there, and `..._scores` the C probabilities."""
    classes, scores = pa.list_(pa.int32()), pa.list_(pa.float32(), num_classes)
    return pa.schema(
        [
            _required("arm", pa.string()),
            _required("video_id", pa.string()),
            _required("segment", pa.int32()),
            _required("truth_heard", classes),
            _required("truth_seen", classes),
            _required("heard", classes),
            _required("seen", classes),
            _required("heard_scores", scores),
            _required("seen_scores", scores),
        ]
    )


def training_targets_schema(num_columns: int, *, video: bool, num_windows: int) -> pa.Schema:
    """One row per training video: what its losses took for labels, in 0..1.

    Args:
        num_columns: K; see `tasks.base`.
        video: Whether there is a video-level target, `video` (K), for L_MIL.
        num_windows: Rows of `windows` (W, K), the targets of windows or, fully supervised, of
            segments (W = T); 0 where Step 1 is all.
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
"""Learning curves of one training."""

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
"""tau on the validation split: window pseudo-labels against segment labels (Sec. 5.3). `part`:
one of `tasks.Task.parts`."""


def tensor_column(arrays: Sequence[np.ndarray] | np.ndarray, dtype: pa.DataType) -> pa.Array:
    """Pack arrays of one shape into a column of fixed-shape tensors, with one copy.

    Raises:
        ValueError: An array has another shape than the column.
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
    """A column of fixed-shape tensors as one array, the row first."""
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 0:
            return np.empty((0, *column.type.shape), column.type.value_type.to_pandas_dtype())
        column = column.combine_chunks()
    return column.to_numpy_ndarray()
