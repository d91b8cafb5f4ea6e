"""Event-level metrics of localization: F1 of events, and mAP at temporal IoU (tIoU).

A run of consecutive segments of one class is one event, of the ground truth as of a prediction.

Event F1 pools all videos and classes. A predicted event is correct if a ground-truth event of its
class and video overlaps it with IoU >= 0.5, as in `metrics.parsing`.

mAP is that of ActivityNet: predicted events are ranked by confidence within a class, over all
videos; in this order, each takes the free ground-truth event that it overlaps most, if their IoU
reaches the threshold. Precision is interpolated (the highest at any larger recall), and classes
without ground-truth events are left out. The confidence is the mean probability of the class over
the segments of the event, as in `predict.prediction`. Since a segment has one predicted class,
there are no overlapping candidates, as detectors have them, so recall and hence mAP are bounded by
the segment-level decisions.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes    N = events    B = resamples
    H = correct events
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distributed_avel.metrics.parsing import event_counts

SHOWN_TIOUS = (0.3, 0.5, 0.7)
MEAN_TIOUS = tuple(round(0.1 * step, 1) for step in range(1, 10))
"""Thresholds of the mean mAP, as for UnAV-100."""

DETECTION_METRICS = (
    "event_f1",
    *(f"map_{round(100 * tiou)}" for tiou in SHOWN_TIOUS),
    "map_mean",
)
"""Keys of `detection_metrics`."""

_ROUNDING = 1e-9


class Events(NamedTuple):
    """Events as arrays of shape (N,): video, class, first segment, end (excluded), confidence."""

    video_N: NDArray[np.intp]
    class_N: NDArray[np.intp]
    start_N: NDArray[np.intp]
    end_N: NDArray[np.intp]
    confidence_N: NDArray[np.float64]


def events_of(present_VTC: NDArray[np.bool_], prob_VTC: NDArray[np.floating]) -> Events:
    """Find the events: maximal runs of segments with a class.

    Args:
        present_VTC: Classes of each segment.
        prob_VTC: Probability of each class, for the confidences.
    """
    steps_VCT = np.diff(present_VTC.swapaxes(1, 2).astype(np.int8), axis=2, prepend=0, append=0)
    video_N, class_N, start_N = np.nonzero(steps_VCT == 1)
    end_N = np.nonzero(steps_VCT == -1)[2]
    sums_VCT = np.cumsum(prob_VTC.swapaxes(1, 2), axis=2, dtype=np.float64)
    sums_VCT = np.concatenate([np.zeros_like(sums_VCT[..., :1]), sums_VCT], axis=2)
    sums_N = sums_VCT[video_N, class_N, end_N] - sums_VCT[video_N, class_N, start_N]
    return Events(video_N, class_N, start_N, end_N, sums_N / (end_N - start_N))


def detection_metrics(
    truth_VTC: NDArray[np.bool_],
    predicted_VTC: NDArray[np.bool_],
    prob_VTC: NDArray[np.floating],
    weights_BV: NDArray[np.floating] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Compute all `DETECTION_METRICS` in percent, shape (B,); NaN if undefined (0/0).

    Args:
        truth_VTC: Ground-truth events of each segment.
        predicted_VTC: Predicted events of each segment.
        prob_VTC: Probabilities of the events.
        weights_BV: Weight of each video in each resample (`metrics.bootstrap`); by default, one
            sample of all videos.
    """
    if weights_BV is None:
        weights_BV = np.ones((1, len(truth_VTC)))
    metrics = {"event_f1": _event_f1(truth_VTC, predicted_VTC, weights_BV)}
    truth = events_of(truth_VTC, truth_VTC.astype(np.float64))
    predicted = events_of(predicted_VTC, prob_VTC)
    map_of = _maps(truth, predicted, weights_BV)
    metrics |= {f"map_{round(100 * tiou)}": map_of[tiou] for tiou in SHOWN_TIOUS}
    return metrics | {"map_mean": np.mean([*map_of.values()], axis=0)}


def match(truth: Events, predicted: Events, tiou: float) -> NDArray[np.bool_]:
    """Decide which predicted events are correct, shape (N,), in the order of `predicted`.

    Args:
        truth: Ground-truth events.
        predicted: Predicted events.
        tiou: Smallest IoU of a correct event, in (0, 1].
    """
    free = defaultdict(list)
    for number, key in enumerate(zip(truth.video_N.tolist(), truth.class_N.tolist(), strict=True)):
        free[key].append(number)
    correct_N = np.zeros(len(predicted.video_N), dtype=bool)
    for number in np.argsort(-predicted.confidence_N, kind="stable").tolist():
        candidates = free[int(predicted.video_N[number]), int(predicted.class_N[number])]
        if not candidates:
            continue
        ious = [_iou(predicted, number, truth, other) for other in candidates]
        best = int(np.argmax(ious))
        if ious[best] >= tiou - _ROUNDING:
            correct_N[number] = True
            candidates.pop(best)
    return correct_N


def average_precision(
    correct_N: NDArray[np.bool_],
    weights_BN: NDArray[np.floating],
    num_true_B: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Compute the area under the interpolated precision-recall curve in 0..1, shape (B,).

    Args:
        correct_N: Which predicted events are correct, the most confident first.
        weights_BN: Weight of each of them in each resample.
        num_true_B: Weighted number of ground-truth events; NaN is returned where it is 0.
    """
    return _average_precision(correct_N, weights_BN, np.cumsum(weights_BN, axis=1), num_true_B)


def _average_precision(
    correct_N: NDArray[np.bool_],
    weights_BN: NDArray[np.floating],
    total_BN: NDArray[np.floating],
    num_true_B: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Compute `average_precision` from the cumulative weights `total_BN`."""
    # Recall grows, and precision has its local maxima, at correct events only (index H).
    weights_BH, total_BH = weights_BN[:, correct_N], total_BN[:, correct_N]
    hits_BH = np.cumsum(weights_BH, axis=1)
    precision_BH = np.divide(hits_BH, total_BH, out=np.zeros_like(hits_BH), where=total_BH > 0)
    envelope_BH = np.maximum.accumulate(precision_BH[:, ::-1], axis=1)[:, ::-1]
    area_B = np.einsum("bh,bh->b", envelope_BH, weights_BH)
    undefined_B = np.full(len(weights_BN), np.nan)
    return np.divide(area_B, num_true_B, out=undefined_B, where=num_true_B > 0)


def _maps(
    truth: Events, predicted: Events, weights_BV: NDArray[np.floating]
) -> dict[float, NDArray[np.float64]]:
    """Compute mAP at each of `MEAN_TIOUS` in percent, shape (B,)."""
    correct = {tiou: match(truth, predicted, tiou) for tiou in MEAN_TIOUS}
    order_N = np.argsort(-predicted.confidence_N, kind="stable")
    precisions: dict[float, list[NDArray[np.float64]]] = {tiou: [] for tiou in MEAN_TIOUS}
    for class_ in np.unique(truth.class_N):
        mine = order_N[predicted.class_N[order_N] == class_]
        num_true_B = weights_BV[:, truth.video_N[truth.class_N == class_]].sum(axis=1)
        weights_BN = weights_BV[:, predicted.video_N[mine]]
        total_BN = np.cumsum(weights_BN, axis=1)
        for tiou, correct_N in correct.items():
            ap_B = _average_precision(correct_N[mine], weights_BN, total_BN, num_true_B)
            precisions[tiou].append(ap_B)
    return {tiou: _mean_over_classes(ap_CB, len(weights_BV)) for tiou, ap_CB in precisions.items()}


def _mean_over_classes(ap_CB: list[NDArray[np.float64]], num_rows: int) -> NDArray[np.float64]:
    """Average the classes in percent; a resample may lack the videos of a class (NaN)."""
    if not ap_CB:
        return np.full(num_rows, np.nan)
    num_B = (~np.isnan(ap_CB)).sum(axis=0)
    return 100 * np.nansum(ap_CB, axis=0) / np.where(num_B > 0, num_B, np.nan)


def _event_f1(
    truth_VTC: NDArray[np.bool_], predicted_VTC: NDArray[np.bool_], weights_BV: NDArray[np.floating]
) -> NDArray[np.float64]:
    counts = event_counts(truth_VTC, predicted_VTC)
    correct_B, false_B, missed_B = (weights_BV @ count_VC.sum(axis=1) for count_VC in counts)
    denominator_B = 2 * correct_B + false_B + missed_B
    undefined_B = np.full(len(weights_BV), np.nan)
    return np.divide(200 * correct_B, denominator_B, out=undefined_B, where=denominator_B > 0)


def _iou(events: Events, number: int, others: Events, other: int) -> float:
    start = max(events.start_N[number], others.start_N[other])
    end = min(events.end_N[number], others.end_N[other])
    intersection = max(0, end - start)
    length = events.end_N[number] - events.start_N[number]
    other_length = others.end_N[other] - others.start_N[other]
    return float(intersection / (length + other_length - intersection))
