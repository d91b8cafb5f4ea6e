"""How good a localization is, segment by segment (the paper's tables on AVE).

Everything follows from one confusion matrix. Matrices of parts of a test split add up
exactly, so workers may each count their own and the figures do not depend on how the
videos were shared out.

A segment has one class here, because the paper's models predict one: an event, or
background, the last index. `one_label_per_segment` says what becomes of a segment in which
several events were annotated.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes    K = C + 1, background last
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Metrics = Mapping[str, float | None]
"""Figures in percent by name; None where a figure is undefined, as precision is where nothing was
predicted."""

METRICS = (
    "accuracy",
    "weighted_f1",
    "non_ave_f1",
    "non_ave_recall",
    "non_ave_precision",
    "ave_f1",
    "ave_recall",
    "ave_precision",
)
"""What `segment_metrics` returns, in the order in which tables show it. "AVE" stands for the
audio-visual events, "non-AVE" for background, as in the paper."""


def segment_metrics(
    truth_VT: NDArray[np.integer], prediction_VT: NDArray[np.integer], num_classes: int
) -> dict[str, float | None]:
    """All figures of `METRICS`, in percent.

    Args:
        truth_VT: Class of each segment; `num_classes` is background.
        prediction_VT: What was predicted for it.
        num_classes: C, without background.
    """
    return metrics_of(confusion_matrix(truth_VT, prediction_VT, num_classes))


def confusion_matrix(
    truth_VT: NDArray[np.integer], prediction_VT: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Counts of segments, shape (K, K): row the true class, column the predicted one.

    Raises:
        ValueError: The shapes differ, or a class lies outside 0..C.
    """
    truth_VT, prediction_VT = np.asarray(truth_VT), np.asarray(prediction_VT)
    if truth_VT.shape != prediction_VT.shape:
        raise ValueError(f"truth is {truth_VT.shape}, but prediction is {prediction_VT.shape}")
    for name, classes_VT in (("truth", truth_VT), ("prediction", prediction_VT)):
        if not np.issubdtype(classes_VT.dtype, np.integer):
            raise ValueError(f"{name} must hold class indices, got {classes_VT.dtype}")
        if classes_VT.size and not 0 <= classes_VT.min() <= classes_VT.max() <= num_classes:
            raise ValueError(
                f"{name} must lie in 0..{num_classes} (background), "
                f"got {classes_VT.min()}..{classes_VT.max()}"
            )
    num_columns = num_classes + 1
    cells = truth_VT.ravel().astype(np.int64) * num_columns + prediction_VT.ravel()
    counts = np.bincount(cells, minlength=num_columns**2)
    return counts.reshape(num_columns, num_columns)


def metrics_of(confusion_KK: NDArray[np.integer]) -> dict[str, float | None]:
    """The figures of `METRICS` from a confusion matrix, in percent.

    weighted F1 is the mean of the classes' F1, each weighted with its true segments
    (scikit-learn's average="weighted", over all K columns). non-AVE recall and precision are
    those of background. AVE recall and precision are micro-averages over the events: segments
    given their right event, out of all true event segments and out of all segments predicted
    as any event.

    A ratio of 0 to 0 is undefined, and None: precision where the class was never predicted,
    recall where it never occurs. F1 is 2 TP / (2 TP + FP + FN), as in scikit-learn, so it is 0
    where only one of them is undefined, and undefined where both are.
    """
    confusion_KK = np.asarray(confusion_KK)
    correct_K, true_K = np.diag(confusion_KK), confusion_KK.sum(axis=1)
    predicted_K = confusion_KK.sum(axis=0)
    num_segments = confusion_KK.sum()
    background = [correct_K[-1], true_K[-1], predicted_K[-1]]
    events = [correct_K[:-1].sum(), true_K[:-1].sum(), predicted_K[:-1].sum()]
    values = (
        _ratio(correct_K.sum(), num_segments),
        _ratio((np.nan_to_num(per_class_f1(confusion_KK)) * true_K).sum() / 100, num_segments),
        *_f1_recall_precision(*background),
        *_f1_recall_precision(*events),
    )
    return {
        name: None if value is None else 100 * value
        for name, value in zip(METRICS, values, strict=True)
    }


def per_class_f1(confusion_KK: NDArray[np.integer]) -> NDArray[np.float64]:
    """F1 of each class in percent, shape (K,); NaN for one that never occurs or is predicted."""
    correct_K = 2.0 * np.diag(confusion_KK)
    counted_K = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1)
    undefined_K = np.full_like(correct_K, np.nan)
    return 100 * np.divide(correct_K, counted_K, out=undefined_K, where=counted_K > 0)


def one_label_per_segment(
    labels_VTK: NDArray[np.bool_], prediction_VT: NDArray[np.integer]
) -> NDArray[np.int64]:
    """The true class against which each prediction is counted, shape (V, T).

    AVE's segments have one class each, so there this is only another way to write the truth.
    Where several events were annotated, a model that predicts one class is right if it names
    any of them; a miss is charged to the first of them (the lowest index), so that each
    segment still counts once. Accuracy and the AVE and non-AVE figures do not depend on that
    choice, only per-class F1 and weighted F1 do. It flatters in one way: naming one event of
    two is a full success. Data sets with many overlaps belong to `metrics.parsing`.

    Raises:
        ValueError: A segment has no label; background has a column of its own.
    """
    labels_VTK = np.asarray(labels_VTK, dtype=bool)
    if not labels_VTK.any(axis=-1).all():
        raise ValueError("a segment has no label; without an event it must have background")
    hit_VT = np.take_along_axis(labels_VTK, np.asarray(prediction_VT)[..., None], axis=-1)[..., 0]
    return np.where(hit_VT, prediction_VT, labels_VTK.argmax(axis=-1)).astype(np.int64)


def _f1_recall_precision(correct: int, true: int, predicted: int) -> tuple[float | None, ...]:
    f1 = _ratio(2 * correct, true + predicted)
    return f1, _ratio(correct, true), _ratio(correct, predicted)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
