"""What a report page shows, as plain data.

Whoever evaluates fills a `Report`; the page, the tables and the figures read nothing else.
Every section but the results may be empty and is then left out of the page.

Shape suffixes used in this file:
    T = segments    C = event classes    K = C + 1, background last
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.timeline import Timeline

BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of a figure over `count` runs, such as seeds."""

    mean: float
    sd: float
    count: int


Figure = float | Spread
"""One cell of a table of results."""


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """How well thresholded windows of the validation split agree with its segment labels.

    `sensitivity` and `specificity`, in 0..1, belong to the thresholds of the same position.
    `chosen` is the tau that was used; it and the thresholds lie between 0 and 1, ends excluded.
    `arm` names the arm that was trained on such pseudo-labels.
    """

    thresholds: tuple[float, ...]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    chosen: float
    arm: str = ""

    def __post_init__(self) -> None:
        """Refuse a curve with a missing point."""
        if not len(self.thresholds) == len(self.sensitivity) == len(self.specificity):
            raise ValueError("a threshold curve needs both rates for each threshold")
        if not all(0 < threshold < 1 for threshold in (self.chosen, *self.thresholds)):
            raise ValueError("thresholds must lie between 0 and 1, ends excluded")


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """One quantity over the epochs of one training; `arm` is a name of `Report.results`."""

    arm: str
    metric: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A video that a stage could not use, and why."""

    video_id: str
    stage: str
    error: str


@dataclass(frozen=True, kw_only=True)
class VideoTimeline:
    """One test video and what each arm made of it.

    `labels` are the events of the video-level label. `truth_T` and the arrays of `predictions`
    hold the class of each segment. `scores`, where an arm has them, are its softmax
    probabilities (T, K). `frames` are JPEG files, one a segment, or none.
    """

    video_id: str
    labels: tuple[int, ...]
    truth_T: NDArray[np.integer]
    predictions: Mapping[str, NDArray[np.integer]]
    scores: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    frames: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WindowSummary:
    """What Step 2 made of the windows of the training videos.

    Args:
        num_videos: Training videos that were relabelled.
        num_windows: Their windows.
        num_background: Windows in which no event reached the threshold.
        of_video_C: For each event, the windows of the videos whose label has it.
        kept_C: Those of them whose pseudo-label still has it.
    """

    num_videos: int
    num_windows: int
    num_background: int
    of_video_C: tuple[int, ...]
    kept_C: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page of one run shows.

    Args:
        title: Heading of the page.
        dataset: Name of the data set.
        synthetic: The data were generated; the page says so wherever it shows a figure.
        classes: Names of the events, without background.
        timeline: Segments of a video.
        results: Figures of the test split in percent, by arm, then by metric; in the order in
            which the table shows them.
        settings: The configuration of the run, which may be nested.
        provenance: What else is needed to repeat it: commit, versions, hardware, fingerprints.
        warnings: What a reader must know before the figures, such as a collapse to background.
        confusion: Counts of segments (K, K) by arm, true classes in rows. The first arm is the
            base model and the last one the refined model: the page compares these two, and shows
            the F1 of every class for those between as well.
        failures_elsewhere: Where the rest stands when `failures` is not all of them.
        num_failures: All videos that could not be used; by default those of `failures`.
        timeline_selection: How the videos of `timelines` were chosen: "They were …".

    Raises:
        ValueError: An array has another shape than the classes and the timeline say.
    """

    title: str
    dataset: str
    synthetic: bool
    classes: tuple[str, ...]
    timeline: Timeline
    results: Mapping[str, Mapping[str, Figure]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    confusion: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    threshold_curve: ThresholdCurve | None = None
    learning_curves: tuple[LearningCurve, ...] = ()
    windows: WindowSummary | None = None
    timelines: tuple[VideoTimeline, ...] = ()
    timeline_selection: str = ""
    failures: tuple[Failure, ...] = ()
    num_failures: int | None = None
    failures_elsewhere: str = "failures.parquet"

    def __post_init__(self) -> None:
        """Refuse what the page would draw wrongly."""
        num_columns, num_segments = len(self.classes) + 1, self.timeline.num_segments
        for arm, confusion_KK in self.confusion.items():
            _check(f"confusion of {arm}", confusion_KK, (num_columns, num_columns))
        if self.windows is not None:
            for name in ("of_video_C", "kept_C"):
                _check(name, getattr(self.windows, name), (len(self.classes),))
        for video in self.timelines:
            rows = {"truth": video.truth_T, **video.predictions}
            for row, classes_T in rows.items():
                _check(f"{video.video_id}: {row}", classes_T, (num_segments,))
                if not 0 <= np.min(classes_T) <= np.max(classes_T) < num_columns:
                    raise ValueError(
                        f"{video.video_id}: {row}: classes must lie in 0..{num_columns - 1}"
                    )
            for arm, scores_TK in video.scores.items():
                name = f"{video.video_id}: scores of {arm}"
                _check(name, scores_TK, (num_segments, num_columns))
            if len(video.frames) not in (0, num_segments):
                raise ValueError(
                    f"{video.video_id}: {len(video.frames)} frames, expected {num_segments} or none"
                )

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the K columns."""
        return (*self.classes, BACKGROUND)


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {np.shape(array)}")
