"""The data of a report page.

The stage `report` fills a `Report`; the page, the tables and the figures read nothing else.
Every field except `results` may be empty; the page then omits its section.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes    K = C + 1, background last
    M = modalities: audio ("heard"), visual ("seen")
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.metrics.bootstrap import Interval
from distributed_avel.metrics.parsing import MODALITIES, Counts
from distributed_avel.timeline import Timeline

BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation of a metric over runs, such as seeds.

    Args:
        mean: Over the `count` runs in which the metric is defined.
        sd: None for a single run.
        count: Runs in which the metric is defined.
        undefined: Runs in which it is undefined (0/0), such as precision without predictions.
    """

    mean: float
    sd: float | None
    count: int
    undefined: int = 0


Figure = float | Spread
"""One cell of a table of results."""

Figures = Mapping[str, Figure | None]
"""Cells of a row by metric; None if the metric is undefined (0/0)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """Segment-level scores of one class, in percent; None if undefined (0/0).

    Args:
        name: Name of the class; in parsing, with the modality.
        support: Number of ground-truth segments.
        precision: Share of the predicted segments that are correct.
        recall: Share of the ground-truth segments that are found.
        f1: Harmonic mean of both.
    """

    name: str
    support: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True)
class ThresholdPlot:
    """Agreement of window pseudo-labels with segment labels on the validation split, over tau.

    Args:
        thresholds: Values of tau, in (0, 1).
        sensitivity: Rate at each threshold, in 0..1.
        specificity: Rate at each threshold, in 0..1.
        chosen: The tau that was used, in (0, 1).
        arm: The arm that was trained on these pseudo-labels.

    Raises:
        ValueError: The lengths differ, or a threshold is outside (0, 1).
    """

    thresholds: tuple[float, ...]
    sensitivity: tuple[float, ...]
    specificity: tuple[float, ...]
    chosen: float
    arm: str = ""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        if not len(self.thresholds) == len(self.sensitivity) == len(self.specificity):
            raise ValueError("a threshold curve needs both rates for each threshold")
        if not all(0 < threshold < 1 for threshold in (self.chosen, *self.thresholds)):
            raise ValueError("thresholds must be between 0 and 1, exclusive")


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """One quantity over the epochs of one training; `arm` is a key of `Report.results`."""

    arm: str
    metric: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A video that a stage could not process, with the reason."""

    video_id: str
    stage: str
    error: str


@dataclass(frozen=True, kw_only=True)
class SoundPicture:
    """Pictures of the sound of a video.

    Args:
        low_N: Lowest value of the waveform in each of N columns of equal length, in -1..1.
        high_N: Highest value.
        log_mel: PNG file of the log-mel spectrogram, low frequencies at the bottom.
    """

    low_N: NDArray[np.floating]
    high_N: NDArray[np.floating]
    log_mel: bytes


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures of a media file: frames as JPEG files, at equal distances, and the sound."""

    frames: tuple[bytes, ...] = ()
    sound: SoundPicture | None = None


@dataclass(frozen=True, kw_only=True)
class VideoTimeline:
    """Ground truth and predictions of one test video (localization).

    Args:
        labels: Event classes of the video-level label.
        truth_T: Ground-truth class of each segment; None for a video without times.
        predictions: Predicted class of each segment (T,), by arm.
        scores: Softmax probabilities (T, K) by arm, for arms that have them.
        frames: One JPEG file per segment, or empty.
        sound: Pictures of the sound, if there are any.
    """

    video_id: str
    labels: tuple[int, ...]
    truth_T: NDArray[np.integer] | None
    predictions: Mapping[str, NDArray[np.integer]]
    scores: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    frames: tuple[bytes, ...] = ()
    sound: SoundPicture | None = None

    @property
    def num_segments(self) -> int:
        """Number of segments of the video, at most T."""
        return len(next(iter(self.predictions.values())))


@dataclass(frozen=True, kw_only=True)
class ParsedVideo:
    """Ground truth and predictions of one test video (parsing).

    Args:
        labels: Event classes of the video-level label.
        truth_MTC: Events that each modality of each segment has; None for a video without times.
        predictions: Predicted events (M, T, C), by arm.
        frames: One JPEG file per segment, or empty.
        sound: Pictures of the sound, if there are any.
    """

    video_id: str
    labels: tuple[int, ...]
    truth_MTC: NDArray[np.bool_] | None
    predictions: Mapping[str, NDArray[np.bool_]]
    frames: tuple[bytes, ...] = ()
    sound: SoundPicture | None = None

    @property
    def num_segments(self) -> int:
        """Number of segments of the video, at most T."""
        return next(iter(self.predictions.values())).shape[1]


@dataclass(frozen=True, kw_only=True)
class WindowSummary:
    """Counts of the windows that Step 2 relabelled.

    In parsing, `of_video_C` and `kept_C` count a window once for each modality.

    Args:
        num_videos: Training videos that were relabelled.
        num_windows: Windows of these videos.
        num_background: Windows in which no event reached the threshold.
        of_video_C: For each event, the windows of videos whose video-level label has the event.
        kept_C: For each event, those of `of_video_C` whose pseudo-label keeps the event.
    """

    num_videos: int
    num_windows: int
    num_background: int
    of_video_C: tuple[int, ...]
    kept_C: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Report(ABC):
    """The data of the page of one run, for either task.

    Args:
        title: Heading of the page.
        dataset: Name of the data set.
        synthetic: Whether the data were generated; the page then labels every figure synthetic.
        classes: Names of the event classes, without background.
        timeline: Number and length of the segments of a video.
        results: Metrics on the test split in percent, by arm, then by metric, in the order of the
            table. None is undefined (0/0).
        intervals: Metrics of each arm with their bootstrap intervals; None is undefined.
        differences: By metric, that of the last of `compared` minus that of the first.
        chance: Value of the metric `headline` without any model, in percent, if there is one.
        class_scores: Scores of each class, by arm, in the order of `compared`.
        conditions: What all results depend on, such as g and the rule for tau.
        settings: The settings that the results depend on; may be nested.
        provenance: Commit, versions, hardware and fingerprints.
        warnings: Warnings to show above the results, such as a collapse to background.
        threshold_curves: By group of columns with its own tau (`Task.parts`).
        spliced: Whether these curves are of spliced training videos, not of validation videos.
        learning_curves: Training loss and validation metrics of each arm.
        windows: Counts of Step 2, if it ran.
        shown: The arms to compare if there are no segment metrics, see `compared`.
        num_videos: Number of test videos; by default those with segment metrics.
        timelines: Test videos to draw with pictures.
        timeline_selection: How `timelines` were selected; completes the sentence "Those with
            pictures were …".
        videos: All test videos, those of `timelines` first, to search and sort.
        media: Path of the media file of each video below the folder of the media files, by id.
        failures: The first videos that could not be used.
        num_failures: Number of videos that could not be used; `len(failures)` by default.
        failures_elsewhere: File that lists all failures if `failures` does not.

    Raises:
        ValueError: The shape of an array does not match `classes` and `timeline`.
    """

    task: ClassVar[str]
    """Name of the task in the papers."""

    headline: ClassVar[str]
    """Metric by which arms are compared in warnings."""

    title: str
    dataset: str
    synthetic: bool
    classes: tuple[str, ...]
    timeline: Timeline
    results: Mapping[str, Figures]
    intervals: Mapping[str, Mapping[str, Interval | None]] = field(default_factory=dict)
    differences: Mapping[str, Interval | None] = field(default_factory=dict)
    chance: float | None = None
    class_scores: Mapping[str, tuple[ClassScores, ...]] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    threshold_curves: Mapping[str, ThresholdPlot] = field(default_factory=dict)
    spliced: bool = False
    learning_curves: tuple[LearningCurve, ...] = ()
    windows: WindowSummary | None = None
    shown: tuple[str, ...] = ()
    num_videos: int | None = None
    timelines: Sequence[VideoTimeline | ParsedVideo] = ()
    timeline_selection: str = ""
    videos: Sequence[VideoTimeline | ParsedVideo] = ()
    media: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    num_failures: int | None = None
    failures_elsewhere: str = "failures.parquet"

    def __post_init__(self) -> None:
        """Check the shapes of all arrays."""
        if self.windows is not None:
            for name in ("of_video_C", "kept_C"):
                _check(name, getattr(self.windows, name), (len(self.classes),))
        for video in self.timelines:
            num_frames, num_segments = len(video.frames), video.num_segments
            if num_frames not in (0, num_segments):
                raise ValueError(
                    f"{video.video_id}: {num_frames} frames, expected {num_segments} or none"
                )

    @property
    @abstractmethod
    def compared(self) -> tuple[str, ...]:
        """The arms that the page shows in detail.

        The first is the base model and the last is the refined model. The page compares these
        two and shows the F1 of every class for all of them.
        """

    @property
    @abstractmethod
    def num_test_videos(self) -> int:
        """Number of test videos; 0 if unknown."""


@dataclass(frozen=True, kw_only=True)
class LocalizationReport(Report):
    """Report of a localization run: each segment has one event class or background.

    Args:
        confusion: Confusion matrices of segments (K, K) by arm, in the order of `compared`;
            ground-truth classes in rows.
    """

    task = "audio-visual event localization"
    headline = "accuracy"

    confusion: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)
    timelines: Sequence[VideoTimeline] = ()
    videos: Sequence[VideoTimeline] = ()

    def __post_init__(self) -> None:
        """Check the shapes of all arrays."""
        super().__post_init__()
        num_columns = len(self.classes) + 1
        for arm, confusion_KK in self.confusion.items():
            _check(f"confusion of {arm}", confusion_KK, (num_columns, num_columns))
        for video in (*self.timelines, *self.videos):
            num_segments = video.num_segments
            rows = dict(video.predictions)
            if video.truth_T is not None:
                rows["truth"] = video.truth_T
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
        """The arms with a confusion matrix, or `shown`."""
        return tuple(self.confusion) or self.shown

    @property
    def num_test_videos(self) -> int:
        """Number of test videos, by default from the total of a confusion matrix."""
        if self.num_videos is not None:
            return self.num_videos
        counts = [int(confusion_KK.sum()) for confusion_KK in self.confusion.values()]
        return counts[0] // self.timeline.num_segments if counts else 0


@dataclass(frozen=True, kw_only=True)
class ParsingReport(Report):
    """Report of a parsing run: each modality of each segment has any number of event classes.

    Args:
        counts: True positives, false positives and missed segments of audio and of visual events,
            by arm, in the order of `compared`.
        exchanged: Whether Step 2 labelled whole modalities instead of windows, each scored
            together with the other modality of a second video (arm MA).
    """

    task = "audio-visual video parsing"
    headline = "segment_type"

    counts: Mapping[str, tuple[Counts, Counts]] = field(default_factory=dict)
    timelines: Sequence[ParsedVideo] = ()
    videos: Sequence[ParsedVideo] = ()
    exchanged: bool = False

    def __post_init__(self) -> None:
        """Check the shapes of all arrays."""
        super().__post_init__()
        num_classes = len(self.classes)
        for arm, by_modality in self.counts.items():
            for modality, counts in zip(MODALITIES, by_modality, strict=True):
                for array_VC in counts:
                    name = f"{modality} segments of {arm}"
                    _check(name, array_VC, (self._num_counted, num_classes))
        for video in (*self.timelines, *self.videos):
            shape = (len(MODALITIES), video.num_segments, num_classes)
            rows = dict(video.predictions)
            if video.truth_MTC is not None:
                rows["truth"] = video.truth_MTC
            for row, events_MTC in rows.items():
                _check(f"{video.video_id}: {row}", events_MTC, shape)

    @property
    def compared(self) -> tuple[str, ...]:
        """The arms with counts, or `shown`."""
        return tuple(self.counts) or self.shown

    @property
    def num_test_videos(self) -> int:
        """Number of test videos, by default from the rows of the counts."""
        if self.num_videos is not None:
            return self.num_videos
        return self._num_counted

    @property
    def _num_counted(self) -> int:
        return next((len(audio.true_positive_VC) for audio, _ in self.counts.values()), 0)


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {np.shape(array)}")
