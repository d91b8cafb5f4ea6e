"""What a report page shows, as plain data.

Whoever evaluates fills a `Report`; the page, the tables and the figures read nothing else.
Every section but the results may be empty and is then left out of the page.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes    K = C + 1, background last
    M = modalities: heard, seen
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.metrics.parsing import MODALITIES, Counts
from distributed_avel.timeline import Timeline

BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of a figure over `count` runs, such as seeds.

    `undefined` more runs had no such figure, as precision has none where nothing was predicted.
    A single run has no standard deviation.
    """

    mean: float
    sd: float | None
    count: int
    undefined: int = 0


Figure = float | Spread
"""One cell of a table of results."""

Figures = Mapping[str, Figure | None]
"""Cells of a row by metric; None is undefined."""


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
class ParsedVideo:
    """One test video of parsing: which events are heard and seen in it, and what each arm says.

    `labels` are the events of the video-level label. `truth_MTC` and the arrays of
    `predictions` say for both modalities which events each segment has. `frames` are JPEG
    files, one a segment, or none.
    """

    video_id: str
    labels: tuple[int, ...]
    truth_MTC: NDArray[np.bool_]
    predictions: Mapping[str, NDArray[np.bool_]]
    frames: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WindowSummary:
    """What Step 2 made of the windows of the training videos.

    Where what is heard and what is seen have labels of their own, a window counts twice among
    those of an event.

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
class Report(ABC):
    """All that the page of one run shows, whichever task it has.

    Args:
        title: Heading of the page.
        dataset: Name of the data set.
        synthetic: The data were generated; the page says so wherever it shows a figure.
        classes: Names of the events, without background.
        timeline: Segments of a video.
        results: Figures of the test split in percent, by arm, then by metric; in the order in
            which the table shows them. None is undefined, 0/0.
        conditions: What the figures depend on, such as g and the rule for tau.
        settings: The settings that the results depend on, which may be nested.
        provenance: What else is needed to repeat it: commit, versions, hardware, fingerprints.
        warnings: What a reader must know before the figures, such as a collapse to background.
        threshold_curves: By what has a tau of its own: events, or what is heard and what is seen.
        failures_elsewhere: Where the rest stands when `failures` is not all of them.
        num_failures: All videos that could not be used; by default those of `failures`.
        timeline_selection: How the videos of `timelines` were chosen: "They were …".

    Raises:
        ValueError: An array has another shape than the classes and the timeline say.
    """

    task: ClassVar[str]
    """What the model does, in the words of the papers."""

    title: str
    dataset: str
    synthetic: bool
    classes: tuple[str, ...]
    timeline: Timeline
    results: Mapping[str, Figures]
    conditions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    threshold_curves: Mapping[str, ThresholdCurve] = field(default_factory=dict)
    learning_curves: tuple[LearningCurve, ...] = ()
    windows: WindowSummary | None = None
    timelines: Sequence[VideoTimeline | ParsedVideo] = ()
    timeline_selection: str = ""
    failures: tuple[Failure, ...] = ()
    num_failures: int | None = None
    failures_elsewhere: str = "failures.parquet"

    def __post_init__(self) -> None:
        """Refuse what the page would draw wrongly."""
        if self.windows is not None:
            for name in ("of_video_C", "kept_C"):
                _check(name, getattr(self.windows, name), (len(self.classes),))
        for video in self.timelines:
            num_frames, num_segments = len(video.frames), self.timeline.num_segments
            if num_frames not in (0, num_segments):
                raise ValueError(
                    f"{video.video_id}: {num_frames} frames, expected {num_segments} or none"
                )

    @property
    @abstractmethod
    def compared(self) -> tuple[str, ...]:
        """The arms that are shown in detail.

        The first is the base model and the last one the refined model: the page compares these
        two, and shows the F1 of every class for those between as well.
        """

    @property
    @abstractmethod
    def num_test_videos(self) -> int:
        """How many videos the figures are of; 0 where nothing says so."""


@dataclass(frozen=True, kw_only=True)
class LocalizationReport(Report):
    """A run that says of each segment which one event it has, or background.

    Args:
        confusion: Counts of segments (K, K) by arm, in the order of `compared`, true classes in
            rows.
    """

    task = "audio-visual event localization"

    confusion: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    timelines: Sequence[VideoTimeline] = ()

    def __post_init__(self) -> None:
        """Refuse what the page would draw wrongly."""
        super().__post_init__()
        num_columns, num_segments = len(self.classes) + 1, self.timeline.num_segments
        for arm, confusion_KK in self.confusion.items():
            _check(f"confusion of {arm}", confusion_KK, (num_columns, num_columns))
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

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the K columns."""
        return (*self.classes, BACKGROUND)

    @property
    def compared(self) -> tuple[str, ...]:
        """The arms with a confusion matrix."""
        return tuple(self.confusion)

    @property
    def num_test_videos(self) -> int:
        """Every segment is in a confusion matrix once."""
        counts = [int(confusion_KK.sum()) for confusion_KK in self.confusion.values()]
        return counts[0] // self.timeline.num_segments if counts else 0


@dataclass(frozen=True, kw_only=True)
class ParsingReport(Report):
    """A run that says which events are heard in each segment and which are seen.

    Args:
        counts: Segments of each video and class that were right, invented and missed, heard and
            seen, by arm, in the order of `compared`.
        exchanged: What Step 2 labelled were whole modalities, each scored beside the other one of
            a second video, and not windows.
    """

    task = "audio-visual video parsing"

    counts: Mapping[str, tuple[Counts, Counts]] = field(default_factory=dict)
    timelines: Sequence[ParsedVideo] = ()
    exchanged: bool = False

    def __post_init__(self) -> None:
        """Refuse what the page would draw wrongly."""
        super().__post_init__()
        num_classes = len(self.classes)
        for arm, by_modality in self.counts.items():
            for modality, counts in zip(MODALITIES, by_modality, strict=True):
                for array_VC in counts:
                    name = f"{modality} segments of {arm}"
                    _check(name, array_VC, (self.num_test_videos, num_classes))
        shape = (len(MODALITIES), self.timeline.num_segments, num_classes)
        for video in self.timelines:
            for row, events_MTC in {"truth": video.truth_MTC, **video.predictions}.items():
                _check(f"{video.video_id}: {row}", events_MTC, shape)

    @property
    def compared(self) -> tuple[str, ...]:
        """The arms with counts."""
        return tuple(self.counts)

    @property
    def num_test_videos(self) -> int:
        """Every video has a row of counts."""
        return next((len(heard.right_VC) for heard, _ in self.counts.values()), 0)


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {np.shape(array)}")
