"""F-scores of audio-visual video parsing (AVVP, LLP), as the public evaluation script of HAN
computes them.

An event may be audible, visible or both, and a segment may have several events. Every metric is
the mean over videos of an F-score of one video. Four details of the public evaluation change the
results:

* The F-score of a video is the mean over the classes that occur in its ground truth or in its
  prediction; it is 1 if there are none.
* Event level: a run of consecutive segments of one class is one event. A predicted event is a
  true positive if any ground-truth event of its class overlaps it with IoU >= 0.5. A ground-truth
  event is missed if no predicted event does. One-to-one matching is unnecessary: two runs that are
  separated by a gap cannot both overlap a third run with IoU >= 0.5.
* A segment is audio-visual if its class is both audible and visible. `Event@AV` pools the counts
  of audio and visual events, without the audio-visual ones.
* Predictions are first masked with the video-level prediction (`tasks.Parsing.segment_prob`).

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes (there is no background column)
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MODALITIES = ("heard", "seen")
"""Names of the audio and the visual modality in schemas, thresholds and figures."""

LEVELS = ("segment", "event")
TYPES = ("a", "v", "av", "type", "event")
PARSING_METRICS = tuple(f"{level}_{kind}" for level in LEVELS for kind in TYPES)
"""Keys of `parsing_metrics`: at both levels, the F-score of audio, visual and audio-visual events,
their mean (Type@AV), and the F-score of audio and visual events pooled (Event@AV)."""

DECISION_THRESHOLD = 0.5
"""An event is predicted if its probability is at least this, for a video and for a segment."""

_MIN_IOU = 0.5


class Counts(NamedTuple):
    """True positives, false positives and misses (false negatives), each of shape (V, C)."""

    true_positive_VC: NDArray[np.int64]
    false_positive_VC: NDArray[np.int64]
    missed_VC: NDArray[np.int64]

    def pooled(self, other: "Counts") -> "Counts":
        """Return the elementwise sum of both counts."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def parsing_metrics(
    truth_audio_VTC: NDArray[np.bool_],
    truth_visual_VTC: NDArray[np.bool_],
    audio_VTC: NDArray[np.bool_],
    visual_VTC: NDArray[np.bool_],
) -> dict[str, float]:
    """Compute all `PARSING_METRICS`, in percent, as means over the videos.

    Args:
        truth_audio_VTC: Ground-truth audible events of each segment.
        truth_visual_VTC: Ground-truth visible events of each segment.
        audio_VTC: Predicted audible events, masked with the video-level prediction.
        visual_VTC: Predicted visible events, masked with the video-level prediction.

    Raises:
        ValueError: The shapes differ, or there is no video.
    """
    scores_by_level = video_f_scores(truth_audio_VTC, truth_visual_VTC, audio_VTC, visual_VTC)
    metrics = {}
    for level, scores in scores_by_level.items():
        audio, visual, both, pooled = (100 * float(scores_V.mean()) for scores_V in scores)
        values = (audio, visual, both, (audio + visual + both) / 3, pooled)
        metrics |= {f"{level}_{kind}": value for kind, value in zip(TYPES, values, strict=True)}
    return metrics


def video_f_scores(
    truth_audio_VTC: NDArray[np.bool_],
    truth_visual_VTC: NDArray[np.bool_],
    audio_VTC: NDArray[np.bool_],
    visual_VTC: NDArray[np.bool_],
) -> dict[str, tuple[NDArray[np.float64], ...]]:
    """Compute the F-scores of each video, in 0..1.

    Arguments and errors are those of `parsing_metrics`.

    Returns:
        For each of `LEVELS`, four arrays of shape (V,): audio, visual, audio-visual, and audio
        and visual pooled.
    """
    arrays = [
        np.asarray(array_VTC, dtype=bool)
        for array_VTC in (truth_audio_VTC, truth_visual_VTC, audio_VTC, visual_VTC)
    ]
    shapes = {array_VTC.shape for array_VTC in arrays}
    if len(shapes) > 1 or arrays[0].ndim != 3 or not len(arrays[0]):
        raise ValueError(f"expected four arrays of one shape (V, T, C), got {sorted(shapes)}")
    truth_audio_VTC, truth_visual_VTC, audio_VTC, visual_VTC = arrays

    scores = {}
    for level, count in (("segment", segment_counts), ("event", event_counts)):
        audio = count(truth_audio_VTC, audio_VTC)
        visual = count(truth_visual_VTC, visual_VTC)
        both = count(truth_audio_VTC & truth_visual_VTC, audio_VTC & visual_VTC)
        scores[level] = tuple(f_score(c) for c in (audio, visual, both, audio.pooled(visual)))
    return scores


def segment_counts(truth_VTC: NDArray[np.bool_], prediction_VTC: NDArray[np.bool_]) -> Counts:
    """Count segments by video and class."""
    return Counts(
        true_positive_VC=(truth_VTC & prediction_VTC).sum(axis=1),
        false_positive_VC=(~truth_VTC & prediction_VTC).sum(axis=1),
        missed_VC=(truth_VTC & ~prediction_VTC).sum(axis=1),
    )


def event_counts(truth_VTC: NDArray[np.bool_], prediction_VTC: NDArray[np.bool_]) -> Counts:
    """Count events (runs of consecutive segments) by video and class, matched by IoU."""
    num_videos, _, num_classes = truth_VTC.shape
    counts = Counts(*np.zeros((3, num_videos, num_classes), dtype=np.int64))
    occurs_VC = (truth_VTC | prediction_VTC).any(axis=1)
    for video, class_ in np.argwhere(occurs_VC):
        true = list(_runs(truth_VTC[video, :, class_]))
        predicted = list(_runs(prediction_VTC[video, :, class_]))
        num_correct = sum(any(_overlap(event, other) for other in true) for event in predicted)
        num_detected = sum(any(_overlap(event, other) for other in predicted) for event in true)
        counts.true_positive_VC[video, class_] = num_correct
        counts.false_positive_VC[video, class_] = len(predicted) - num_correct
        counts.missed_VC[video, class_] = len(true) - num_detected
    return counts


def f_score(counts: Counts) -> NDArray[np.float64]:
    """Compute the F-score of each video in 0..1, shape (V,).

    It is the mean over the classes that occur or are predicted, or 1 if there are none.
    """
    # F1 = 2 TP / (2 TP + FP + FN), for each video and class.
    numerator_VC = 2.0 * counts.true_positive_VC
    denominator_VC = numerator_VC + counts.false_positive_VC + counts.missed_VC
    occurs_VC = denominator_VC > 0
    f_VC = np.divide(
        numerator_VC, denominator_VC, out=np.zeros_like(denominator_VC), where=occurs_VC
    )
    num_classes_V = occurs_VC.sum(axis=1)
    return np.where(num_classes_V > 0, f_VC.sum(axis=1) / np.maximum(num_classes_V, 1), 1.0)


def per_class_f1(counts: Counts) -> NDArray[np.float64]:
    """Compute the F1 of each class over all videos, in percent, shape (C,).

    It is NaN for a class that neither occurs nor is predicted.
    """
    true_positive_C, false_positive_C, missed_C = (array_VC.sum(axis=0) for array_VC in counts)
    denominator_C = 2.0 * true_positive_C + false_positive_C + missed_C
    undefined_C = np.full_like(denominator_C, np.nan)
    return 200 * np.divide(true_positive_C, denominator_C, out=undefined_C, where=denominator_C > 0)


def _runs(present_T: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield the first segment and the end (exclusive) of each run."""
    steps = np.diff(present_T.astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _overlap(event: tuple[int, int], other: tuple[int, int]) -> bool:
    intersection = max(0, min(event[1], other[1]) - max(event[0], other[0]))
    union = (event[1] - event[0]) + (other[1] - other[0]) - intersection
    return intersection >= _MIN_IOU * union
