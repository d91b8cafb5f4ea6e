"""Audio-visual video parsing: the F-scores of the AVVP task (LLP), as its public evaluation
computes them.

There, an event may be heard, seen or both, several at once, and every figure is an F-score of
single videos, averaged. Four habits of that evaluation are easy to lose and change the
figures, so they are spelt out:

* An F-score is the mean over the classes that occur in the truth or in the prediction of this
  video; where none does, it is 1.
* Event level: a run of segments is one event. A predicted event is right when some true
  event of its class overlaps it with IoU >= 0.5, and a true event is found when some predicted
  one does. Nothing has to be matched one to one: two runs with a gap between them cannot both
  overlap a third by half.
* A segment is audio-visual where its class is both heard and seen. `Event` pools the counts of
  audio and visual events; audio-visual ones do not enter it.
* Predictions are masked with the video-level prediction first (`models.han.Han.localize`).

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes (there is no background column)
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MODALITIES = ("heard", "seen")

LEVELS = ("segment", "event")
TYPES = ("a", "v", "av", "type", "event")
METRICS = tuple(f"{level}_{kind}" for level in LEVELS for kind in TYPES)
"""What `parsing_metrics` returns: F of audio, visual and audio-visual events, their mean
(Type@AV), and F over audio and visual events together (Event@AV), at both levels."""

_MIN_IOU = 0.5


class Counts(NamedTuple):
    """What was right, invented and missed, each of shape (V, C)."""

    right_VC: NDArray[np.int64]
    invented_VC: NDArray[np.int64]
    missed_VC: NDArray[np.int64]

    def pooled(self, other: "Counts") -> "Counts":
        """The counts of both together."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def parsing_metrics(
    truth_audio_VTC: NDArray[np.bool_],
    truth_visual_VTC: NDArray[np.bool_],
    audio_VTC: NDArray[np.bool_],
    visual_VTC: NDArray[np.bool_],
) -> dict[str, float]:
    """All figures of `METRICS`, in percent: the mean over the videos.

    Args:
        truth_audio_VTC: Which events are heard in each segment.
        truth_visual_VTC: Which are seen.
        audio_VTC: Which were predicted to be heard, masked so.
        visual_VTC: Which were predicted to be seen.

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
    """F of each video in 0..1, for each of `LEVELS`: audio, visual, audio-visual, pooled.

    Four arrays of shape (V,) a level, in that order. Arguments and errors as in
    `parsing_metrics`.
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
    """Counts of segments, by video and class."""
    return Counts(
        right_VC=(truth_VTC & prediction_VTC).sum(axis=1),
        invented_VC=(~truth_VTC & prediction_VTC).sum(axis=1),
        missed_VC=(truth_VTC & ~prediction_VTC).sum(axis=1),
    )


def event_counts(truth_VTC: NDArray[np.bool_], prediction_VTC: NDArray[np.bool_]) -> Counts:
    """Counts of events, runs of segments, by video and class."""
    num_videos, _, num_classes = truth_VTC.shape
    counts = Counts(*np.zeros((3, num_videos, num_classes), dtype=np.int64))
    occurs_VC = (truth_VTC | prediction_VTC).any(axis=1)
    for video, class_ in np.argwhere(occurs_VC):
        true = list(_runs(truth_VTC[video, :, class_]))
        predicted = list(_runs(prediction_VTC[video, :, class_]))
        right = sum(any(_overlap(event, other) for other in true) for event in predicted)
        found = sum(any(_overlap(event, other) for other in predicted) for event in true)
        counts.right_VC[video, class_] = right
        counts.invented_VC[video, class_] = len(predicted) - right
        counts.missed_VC[video, class_] = len(true) - found
    return counts


def f_score(counts: Counts) -> NDArray[np.float64]:
    """F of each video in 0..1, shape (V,): the mean over the classes that occur, or 1."""
    twice_right_VC = 2.0 * counts.right_VC
    all_VC = twice_right_VC + counts.invented_VC + counts.missed_VC
    occurs_VC = all_VC > 0
    f_VC = np.divide(twice_right_VC, all_VC, out=np.zeros_like(all_VC), where=occurs_VC)
    num_classes_V = occurs_VC.sum(axis=1)
    return np.where(num_classes_V > 0, f_VC.sum(axis=1) / np.maximum(num_classes_V, 1), 1.0)


def per_class_f1(counts: Counts) -> NDArray[np.float64]:
    """F1 of each class over all videos, in percent, shape (C,).

    NaN for a class that neither occurs nor is predicted.
    """
    right_C, invented_C, missed_C = (array_VC.sum(axis=0) for array_VC in counts)
    all_C = 2.0 * right_C + invented_C + missed_C
    return 200 * np.divide(right_C, all_C, out=np.full_like(all_C, np.nan), where=all_C > 0)


def _runs(present_T: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where the segments of each run begin and end, the end excluded."""
    steps = np.diff(present_T.astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    yield from zip(starts.tolist(), ends.tolist(), strict=True)


def _overlap(event: tuple[int, int], other: tuple[int, int]) -> bool:
    common = max(0, min(event[1], other[1]) - max(event[0], other[0]))
    union = (event[1] - event[0]) + (other[1] - other[0]) - common
    return common >= _MIN_IOU * union
