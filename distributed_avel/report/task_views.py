"""Captions and figures of the report page that depend on the task.

The rest of the page is the same for localization and parsing.

Shape suffixes used in this file:
    C = event classes    K = C + 1, background last
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from distributed_avel.metrics import parsing, segment
from distributed_avel.report import figures
from distributed_avel.report.page_data import (
    LocalizationReport,
    ParsedVideo,
    ParsingReport,
    Report,
    VideoTimeline,
    WindowSummary,
)
from distributed_avel.report.timelines import Drawing, draw_parsed, draw_timeline

_NUM_STYLES = 8
_MANY_CLASSES = 12
_FRAMES = "Test videos with one frame per segment, the ground truth and the prediction of each arm."


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Figures with one caption: a single `figure`, or several by name (`named`)."""

    title: str
    words: str
    figure: str = ""
    named: Mapping[str, str] = field(default_factory=dict)


class TaskView(ABC):
    """Captions and figures of a report, for one task."""

    tiles: ClassVar[tuple[str, ...]]
    """Metrics whose change from the base model to the refined model is shown above the table."""

    table_words: ClassVar[str]
    """Explains the metrics."""

    repeated_over: ClassVar[str] = "all segments"
    """What the baselines repeat the video-level label over."""

    task: ClassVar[str]
    """Class name in the style sheet."""

    timeline_words: ClassVar[str]
    windows_title: ClassVar[str] = "Windows that keep their event."
    windows_words: ClassVar[str] = (
        "Grey: training windows of the videos whose label has the event. Filled, and in percent: "
        "windows whose pseudo-label keeps the event."
    )
    threshold_words: ClassVar[str] = (
        "Sensitivity: share of the events present in a window that are kept. Specificity: share "
        "of the events of a video that are absent from a window and are removed."
    )
    scored: ClassVar[str] = "Window pseudo-labels"
    unit: ClassVar[str] = "windows"
    """What Step 2 labels."""

    def __init__(self, report: Report) -> None:
        self.styles = arm_styles(report)
        self._report = report

    @abstractmethod
    def panels(self) -> list[Panel]:
        """Draw the results of the compared arms for each class."""

    @abstractmethod
    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the names and SVG figures to write to separate files."""

    @abstractmethod
    def drawing(self, video: Any) -> Drawing:
        """Return the timeline of a video of the report."""

    @abstractmethod
    def labels(self, video: Any) -> tuple[str, ...]:
        """Return the names of all classes that a video has or that an arm predicts in it."""

    @abstractmethod
    def sort_columns(self) -> tuple[str, ...]:
        """Return the names of `sort_values`."""

    @abstractmethod
    def sort_values(self, video: Any) -> tuple[float | None, ...]:
        """Return numbers to sort the videos by, such as the share of correct segments."""

    def drawings(self) -> list[Drawing]:
        """Return the timelines with pictures."""
        return [self.drawing(video) for video in self._report.timelines]

    def refined_words(self, windows: WindowSummary) -> str:
        """Summarize Step 2 in a sentence or two."""
        return (
            f"Step 2 relabelled {windows.num_windows:,} windows of {windows.num_videos:,} "
            f"training videos. In {_share(windows)}, no event reached the threshold; they became "
            "background."
        )


class LocalizationView(TaskView):
    """Localization: confusion matrices, F1 of each class, timelines with one class per segment."""

    task = "localization"
    tiles = ("non_ave_f1", "ave_f1", "accuracy", "weighted_f1")
    table_words = (
        "R is recall, P precision. Non-AVE is the background class; AVE figures are "
        "micro-averages over all events."
    )
    timeline_words = (
        f"{_FRAMES} Background is hatched. A red line marks wrong segments; the number next to an "
        "arm counts the correct ones."
    )

    def __init__(self, report: LocalizationReport) -> None:
        super().__init__(report)
        self._report: LocalizationReport = report

    def panels(self) -> list[Panel]:
        """Draw the F1 of each class, and confusion matrices of the first and the last arm."""
        report = self._report
        if not report.confusion:
            return []
        arms, names = report.compared, report.column_names
        f1_by_arm = {arm: segment.per_class_f1(matrix) for arm, matrix in report.confusion.items()}
        few = len(report.classes) < _MANY_CLASSES
        return [
            Panel(
                title="F1 of each class on the test segments.",
                words=f"Classes sorted by the F1 of {arms[0]}, background on top.",
                figure=Markup(figures.f1_figure(f1_by_arm, names, self.styles)),
            ),
            Panel(
                title="Confusion matrices.",
                words="Ground-truth classes in rows, predicted classes in columns with the same "
                f"numbers, background last. Shade{' and number' if few else ''}: share of the row"
                f"{', in percent' if few else ''}.",
                named={
                    arm: Markup(figures.confusion_figure(confusion_KK, names))
                    for arm, confusion_KK in report.confusion.items()
                    if arm in (arms[0], arms[-1])
                },
            ),
        ]

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the confusion matrices of all compared arms."""
        for arm, confusion_KK in self._report.confusion.items():
            figure = figures.confusion_figure(confusion_KK, self._report.column_names)
            yield f"confusion_{arm.replace('+', '_')}.svg", figure

    def drawing(self, video: VideoTimeline) -> Drawing:
        """Return the timeline of a video of the report."""
        return draw_timeline(video, self._report)

    def labels(self, video: VideoTimeline) -> tuple[str, ...]:
        """Return the names of all classes that a video has or that an arm predicts in it."""
        rows = [*video.predictions.values(), *([] if video.truth_T is None else [video.truth_T])]
        classes = {*video.labels, *np.unique(np.stack(rows)).tolist()}
        return tuple(self._report.column_names[c] for c in sorted(classes))

    def sort_columns(self) -> tuple[str, ...]:
        """Return the names of `sort_values`."""
        arms = self._report.compared
        return (
            *(f"correct segments, {arm}" for arm in arms),
            *(f"probability of an event, {arm}" for arm in arms),
            *_others(arms),
        )

    def sort_values(self, video: VideoTimeline) -> tuple[float | None, ...]:
        """Return the share of correct segments, the highest probability of an event, and others."""
        arms = self._report.compared
        predictions = {arm: video.predictions[arm] for arm in arms}
        return (
            *(
                None if video.truth_T is None else float((video.truth_T == classes_T).mean())
                for classes_T in predictions.values()
            ),
            *(
                float(1 - video.scores[arm][:, -1].min()) if arm in video.scores else None
                for arm in arms
            ),
            *_other_values([classes_T[:, None] for classes_T in predictions.values()]),
        )


class ParsingView(TaskView):
    """Parsing: F1 of each class and modality, timelines with a lane for each modality."""

    task = "parsing"
    tiles = tuple(f"{level}_{kind}" for level in parsing.LEVELS for kind in ("type", "event"))
    table_words = (
        "F-scores of single videos, averaged over the test videos: audio events (A), visual events "
        "(V) and audio-visual events (AV). Type@AV is the mean of these three; Event@AV pools "
        "audio and visual events. At event level, a run of consecutive segments is one event; it "
        "is correct if its IoU with a ground-truth event is at least 0.5."
    )
    repeated_over = "all segments of both modalities"
    timeline_words = (
        f"{_FRAMES} Audio (heard) and visual (seen) events have separate lanes, with a row for "
        "each class that occurs or is predicted. A lane without events is hatched. A red line "
        "marks wrong segments: a missed event is outlined, a false positive is filled. The number "
        "next to an arm counts the segments without errors."
    )

    windows_words = (
        "Grey: training windows of the videos whose label has the event, counted once for each "
        "modality. Filled, and in percent: those whose pseudo-label keeps the event."
    )

    def __init__(self, report: ParsingReport) -> None:
        super().__init__(report)
        self._report: ParsingReport = report

    def panels(self) -> list[Panel]:
        """Draw the F1 of each class, for each modality."""
        arms = self._report.compared
        return [
            Panel(
                title=f"F1 of each class, {modality}.",
                words=f"Over all test segments; classes sorted by the F1 of {arms[0]}.",
                figure=Markup(figure),
            )
            for modality, figure in self._f1_figures()
        ]

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the F1 of each class, for each modality."""
        for modality, figure in self._f1_figures():
            yield f"f1_{modality}.svg", figure

    def drawing(self, video: ParsedVideo) -> Drawing:
        """Return the timeline of a video of the report."""
        return draw_parsed(video, self._report)

    def labels(self, video: ParsedVideo) -> tuple[str, ...]:
        """Return the names of all classes that a video has or that an arm predicts in it."""
        known = [] if video.truth_MTC is None else [video.truth_MTC]
        events = np.stack([*known, *video.predictions.values()])
        classes = {*video.labels, *np.flatnonzero(events.any(axis=(0, 1, 2))).tolist()}
        return tuple(self._report.classes[c] for c in sorted(classes))

    def sort_columns(self) -> tuple[str, ...]:
        """Return the names of `sort_values`."""
        arms = self._report.compared
        return (*(f"segments without errors, {arm}" for arm in arms), *_others(arms))

    def sort_values(self, video: ParsedVideo) -> tuple[float | None, ...]:
        """Return the share of segments without errors, and others."""
        predictions = [video.predictions[arm] for arm in self._report.compared]
        return (
            *(
                None
                if video.truth_MTC is None
                else float((video.truth_MTC == events_MTC).all(axis=-1).mean())
                for events_MTC in predictions
            ),
            *_other_values([events_MTC.swapaxes(0, 1) for events_MTC in predictions]),
        )

    def refined_words(self, windows: WindowSummary) -> str:
        """Summarize Step 2 in a sentence or two."""
        return (
            f"Step 2 relabelled {windows.num_windows:,} windows of {windows.num_videos:,} "
            f"training videos. In {_share(windows)}, no event reached the threshold in either "
            "modality."
        )

    def _f1_figures(self) -> Iterator[tuple[str, str]]:
        counts = self._report.counts
        for number, modality in enumerate(parsing.MODALITIES if counts else ()):
            f1_by_arm = {
                arm: parsing.per_class_f1(by_modality[number])
                for arm, by_modality in counts.items()
            }
            classes = self._report.classes
            yield modality, figures.f1_figure(f1_by_arm, classes, self.styles, background=False)


class ExchangeView(ParsingView):
    """Parsing with arm MA, whose Step 2 labels whole modalities instead of windows."""

    scored, unit = "Pseudo-labels of whole modalities", "modalities"
    windows_title = "Modalities that keep their event."
    windows_words = (
        "Grey: both modalities of the training videos whose label has the event. Filled, and in "
        "percent: modalities that keep the label, because the event reached the threshold in them "
        "or in neither modality."
    )
    threshold_words = (
        "Sensitivity: share of the events present in a modality that are kept. Specificity: share "
        "of the events of a video that are absent from a modality and are removed."
    )

    def refined_words(self, windows: WindowSummary) -> str:
        """Summarize Step 2 in a sentence or two."""
        num_labels = sum(windows.of_video_C)
        num_lost = num_labels - sum(windows.kept_C)
        return (
            f"Step 2 scored the events of {windows.num_videos:,} training videos in each modality "
            f"separately. Of {num_labels:,} labels of a modality, {num_lost:,} "
            f"({100 * num_lost / (num_labels or 1):.0f} %) were removed, because only the other "
            "modality reached the threshold."
        )


def view_of(report: Report) -> TaskView:
    """Return the view for the task of a report."""
    if isinstance(report, ParsingReport):
        return ExchangeView(report) if report.exchanged else ParsingView(report)
    assert isinstance(report, LocalizationReport)
    return LocalizationView(report)


def _others(arms: Sequence[str]) -> tuple[str, ...]:
    """Return the names of `_other_values`."""
    return (*([f"disagreement, {arms[0]} and {arms[-1]}"] * (len(arms) > 1)), "length")


def _other_values(predictions: Sequence[NDArray[Any]]) -> tuple[float, ...]:
    """Return the share of segments in which the first and the last arm differ, and the length."""
    first, last = predictions[0], predictions[-1]
    differs_T = (first != last).reshape(len(first), -1).any(axis=1)
    return (*([float(differs_T.mean())] * (len(predictions) > 1)), float(len(first)))


def arm_styles(report: Report) -> dict[str, int]:
    """Assign a style number to each arm, the same in all figures; compared arms come first."""
    curves = (curve.arm for curve in report.learning_curves)
    arms = dict.fromkeys([*report.compared, *curves, *report.results])
    return {arm: index % _NUM_STYLES for index, arm in enumerate(arms)}


def _share(windows: WindowSummary) -> str:
    """Format the number and percentage of windows that have no event left."""
    percent = 100 * windows.num_background / (windows.num_windows or 1)
    return f"{windows.num_background:,} of them ({percent:.0f} %)"
