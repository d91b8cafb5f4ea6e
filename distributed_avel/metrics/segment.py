"""Segment-level metrics of localization: accuracy and F1, as in the paper's tables on AVE.

All metrics are computed from one confusion matrix. Confusion matrices of disjoint sets of videos
add up exactly, so each worker counts its own videos and the metrics do not depend on the sharding.

Each segment has one class, because the paper's models predict one: an event, or background (the
last index). `one_label_per_segment` reduces a segment with several annotated events to one class.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes    K = C + 1, background last
    B = resamples of the videos
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Metrics = Mapping[str, float | None]
"""Metrics in percent by name; None if undefined (0/0), such as precision without predictions."""

SEGMENT_METRICS = (
    "accuracy",
    "weighted_f1",
    "non_ave_f1",
    "non_ave_recall",
    "non_ave_precision",
    "ave_f1",
    "ave_recall",
    "ave_precision",
)
"""Keys of `segment_metrics`, in the order of the tables. As in the paper, "AVE" means audio-visual
events and "non-AVE" means background."""


def segment_metrics(
    truth_VT: NDArray[np.integer], prediction_VT: NDArray[np.integer], num_classes: int
) -> dict[str, float | None]:
    """Compute all `SEGMENT_METRICS`, in percent.

    Args:
        truth_VT: Ground-truth class of each segment, in 0..C; C is background.
        prediction_VT: Predicted class of each segment, in 0..C.
        num_classes: C, without background.

    Raises:
        ValueError: The shapes differ, or a class is outside 0..C.
    """
    return metrics_of(confusion_matrix(truth_VT, prediction_VT, num_classes))


def confusion_matrix(
    truth_VT: NDArray[np.integer], prediction_VT: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Count segments by ground-truth class (row) and predicted class (column), shape (K, K).

    Raises:
        ValueError: The shapes differ, a class is outside 0..C, or the dtype is not an integer.
    """
    truth_VT, prediction_VT = np.asarray(truth_VT), np.asarray(prediction_VT)
    if truth_VT.shape != prediction_VT.shape:
        raise ValueError(
            f"ground truth has shape {truth_VT.shape}, but prediction has {prediction_VT.shape}"
        )
    for name, classes_VT in (("truth", truth_VT), ("prediction", prediction_VT)):
        if not np.issubdtype(classes_VT.dtype, np.integer):
            raise ValueError(f"{name} must contain class indices, got {classes_VT.dtype}")
        if classes_VT.size and not 0 <= classes_VT.min() <= classes_VT.max() <= num_classes:
            raise ValueError(
                f"{name} must be in 0..{num_classes} (background), "
                f"got {classes_VT.min()}..{classes_VT.max()}"
            )
    num_columns = num_classes + 1
    cells = truth_VT.ravel().astype(np.int64) * num_columns + prediction_VT.ravel()
    counts = np.bincount(cells, minlength=num_columns**2)
    return counts.reshape(num_columns, num_columns)


def metrics_of(confusion_KK: NDArray[np.integer]) -> dict[str, float | None]:
    """Compute all `SEGMENT_METRICS` from a confusion matrix, in percent.

    * Weighted F1: mean of the F1 of the K classes, weighted by ground-truth segments
      (scikit-learn's `average="weighted"`).
    * Non-AVE F1, recall and precision: those of the background class.
    * AVE F1, recall and precision: micro-averages over the event classes. Recall is the share of
      ground-truth event segments, precision the share of segments predicted as any event, in
      which the predicted event is correct.

    A metric of 0/0 is undefined and returned as None: precision of a class that is never
    predicted, recall of a class that never occurs. F1 is 2 TP / (2 TP + FP + FN), as in
    scikit-learn: 0 if only one of precision and recall is undefined, undefined if both are.
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
        for name, value in zip(SEGMENT_METRICS, values, strict=True)
    }


def weighted_segment_metrics(
    truth_VT: NDArray[np.integer],
    prediction_VT: NDArray[np.integer],
    num_classes: int,
    weights_BV: NDArray[np.floating],
) -> dict[str, NDArray[np.float64]]:
    """Compute accuracy and the three F1 of `segment_metrics` for resamples of the videos.

    Args:
        truth_VT: See `segment_metrics`.
        prediction_VT: See `segment_metrics`.
        num_classes: C, without background.
        weights_BV: Weight of each video in each resample (`metrics.bootstrap`).

    Returns:
        Percent, shape (B,); NaN if undefined (0/0).
    """
    classes_K = np.arange(num_classes + 1)
    # A confusion matrix per video would have (C + 1) ** 2 numbers; these sums are enough.
    true_BK, predicted_BK, correct_BK = (
        weights_BV @ np.stack([(rows_VT == c).sum(axis=1) for c in classes_K], axis=1)
        for rows_VT in (truth_VT, prediction_VT, np.where(truth_VT == prediction_VT, truth_VT, -1))
    )
    num_B = true_BK.sum(axis=1)
    f1_BK = _percent(2 * correct_BK, true_BK + predicted_BK)
    return {
        "accuracy": _percent(correct_BK.sum(axis=1), num_B),
        "weighted_f1": _percent((np.nan_to_num(f1_BK) * true_BK).sum(axis=1) / 100, num_B),
        "non_ave_f1": f1_BK[:, -1],
        "ave_f1": _percent(
            2 * correct_BK[:, :-1].sum(axis=1),
            true_BK[:, :-1].sum(axis=1) + predicted_BK[:, :-1].sum(axis=1),
        ),
    }


def _percent(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.float64]:
    undefined = np.full(np.shape(part), np.nan)
    return 100 * np.divide(part, whole, out=undefined, where=whole > 0)


def per_class_f1(confusion_KK: NDArray[np.integer]) -> NDArray[np.float64]:
    """Compute the F1 of each class in percent, shape (K,).

    It is NaN for a class that neither occurs nor is predicted.
    """
    # F1 = 2 TP / (2 TP + FP + FN); row and column sums of a class add up to the denominator.
    numerator_K = 2.0 * np.diag(confusion_KK)
    denominator_K = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1)
    undefined_K = np.full_like(numerator_K, np.nan)
    return 100 * np.divide(numerator_K, denominator_K, out=undefined_K, where=denominator_K > 0)


def one_label_per_segment(
    labels_VTK: NDArray[np.bool_], prediction_VT: NDArray[np.integer]
) -> NDArray[np.int64]:
    """Choose the ground-truth class that each prediction is compared with, shape (V, T).

    Segments of AVE have one class, which is returned unchanged. In a segment with several
    annotated events, a prediction is correct if it is any of them; otherwise the segment counts
    as an error of the event with the lowest index, so that each segment counts once. That choice
    affects only the per-class F1 and weighted F1. The rule is lenient: predicting one of two
    events counts as fully correct. Use `metrics.parsing` for data sets with many overlaps.

    Args:
        labels_VTK: Ground-truth classes of each segment, with a column for background.
        prediction_VT: Predicted class of each segment.

    Raises:
        ValueError: A segment has no label; background must have its own column.
    """
    labels_VTK = np.asarray(labels_VTK, dtype=bool)
    if not labels_VTK.any(axis=-1).all():
        raise ValueError("a segment has no label; set background for a segment without an event")
    hit_VT = np.take_along_axis(labels_VTK, np.asarray(prediction_VT)[..., None], axis=-1)[..., 0]
    return np.where(hit_VT, prediction_VT, labels_VTK.argmax(axis=-1)).astype(np.int64)


def _f1_recall_precision(correct: int, true: int, predicted: int) -> tuple[float | None, ...]:
    f1 = _ratio(2 * correct, true + predicted)
    return f1, _ratio(correct, true), _ratio(correct, predicted)


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
