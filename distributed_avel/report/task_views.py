"""What the page says and draws of each task; everything else on it is the same for both.

Shape suffixes used in this file:
    C = event classes    K = C + 1, background last
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from distributed_avel.metrics import parsing, segment
from distributed_avel.report import figures
from distributed_avel.report.page_data import (
    LocalizationReport,
    ParsingReport,
    Report,
    WindowSummary,
)
from distributed_avel.report.timelines import Drawing, draw_parsed, draw_timeline

_NUM_STYLES = 8
_MANY_CLASSES = 12
_FRAMES = "Test videos, one frame a segment, above their true segments and what each arm predicted."


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Figures under one caption: a single one, or several under their names."""

    title: str
    words: str
    figure: str = ""
    named: Mapping[str, str] = field(default_factory=dict)


class TaskView(ABC):
    """One report, as its task wants to be seen."""

    tiles: ClassVar[tuple[str, ...]]
    """Metrics whose change from base to refined model stands above the table."""

    table_words: ClassVar[str]
    """What a reader must know of the metrics."""

    repeated_over: ClassVar[str] = "all segments"
    """Where the naive strategies repeat the events of a video."""

    task: ClassVar[str]
    """The name that the style sheet knows."""

    timeline_words: ClassVar[str]
    windows_title: ClassVar[str] = "Windows that kept their event."
    windows_words: ClassVar[str] = (
        "Grey: training windows of the videos that are labelled with an event. Filled, and in "
        "percent: those whose pseudo-label still has it."
    )
    threshold_words: ClassVar[str] = (
        "Sensitivity: of the events in a window, those kept. Specificity: of the events of a "
        "video that are absent from a window, those dropped."
    )
    scored: ClassVar[str] = "Window pseudo-labels"
    unit: ClassVar[str] = "windows"

    def __init__(self, report: Report) -> None:
        self.styles = arm_styles(report)

    @abstractmethod
    def panels(self) -> list[Panel]:
        """How the compared arms do on each class."""

    @abstractmethod
    def files(self) -> Iterator[tuple[str, str]]:
        """The figures of single classes to be kept beside the page, by name."""

    @abstractmethod
    def drawings(self) -> list[Drawing]:
        """The timelines."""

    def refined_words(self, windows: WindowSummary) -> str:
        """What Step 2 did, in a sentence or two."""
        return (
            f"Step 2 relabelled {windows.num_windows:,} windows of {windows.num_videos:,} "
            f"training videos. In {_share(windows)} no event reached the threshold, so "
            "that they became background."
        )


class LocalizationView(TaskView):
    """One class a segment: confusion matrices, and one row a lane."""

    task = "localization"
    tiles = ("non_ave_f1", "ave_f1", "accuracy", "weighted_f1")
    table_words = (
        "R is recall, P precision. Non-AVE is the background class; AVE figures are "
        "micro-averages over all events."
    )
    timeline_words = (
        f"{_FRAMES} Hatched is background. A red line lies under each wrong segment, and the "
        "number beside the arm counts the right ones."
    )

    def __init__(self, report: LocalizationReport) -> None:
        super().__init__(report)
        self._report = report

    def panels(self) -> list[Panel]:
        """F1 of each class, and the confusion matrices of the first and the last arm."""
        report = self._report
        if not report.confusion:
            return []
        arms, names = report.compared, report.column_names
        f1_by_arm = {arm: segment.per_class_f1(matrix) for arm, matrix in report.confusion.items()}
        few = len(report.classes) < _MANY_CLASSES
        return [
            Panel(
                title="F1 of each class on the test segments.",
                words=f"Classes in the order of {arms[0]}, background on top.",
                figure=Markup(figures.f1_figure(f1_by_arm, names, self.styles)),
            ),
            Panel(
                title="Confusion matrices.",
                words="True classes in rows, predicted ones in columns under the same numbers, "
                f"background last. Shade{' and number' if few else ''}: the share of the row"
                f"{', in percent' if few else ''}.",
                named={
                    arm: Markup(figures.confusion_figure(confusion_KK, names))
                    for arm, confusion_KK in report.confusion.items()
                    if arm in (arms[0], arms[-1])
                },
            ),
        ]

    def files(self) -> Iterator[tuple[str, str]]:
        """The confusion matrices of all arms."""
        for arm, confusion_KK in self._report.confusion.items():
            figure = figures.confusion_figure(confusion_KK, self._report.column_names)
            yield f"confusion_{arm.replace('+', '_')}.svg", figure

    def drawings(self) -> list[Drawing]:
        """The timelines."""
        return [draw_timeline(video, self._report) for video in self._report.timelines]


class ParsingView(TaskView):
    """Several classes a segment, heard and seen apart."""

    task = "parsing"
    tiles = tuple(f"{level}_{kind}" for level in parsing.LEVELS for kind in ("type", "event"))
    table_words = (
        "F-scores of single videos, averaged over the test videos: of what is heard (A), of what "
        "is seen (V), and of what is both (AV). Type@AV is the mean of these three; Event@AV "
        "counts heard and seen events together. At the event level a run of segments is one "
        "event, right where it overlaps a true one by half of what they cover together."
    )
    repeated_over = "all segments of both modalities"
    timeline_words = (
        f"{_FRAMES} What is heard and what is seen have lanes of their own, with a row for each "
        "class that occurs there or was predicted. Hatched is a lane without any event. A red "
        "line lies under each wrong segment: outlined is an event that was missed, filled one "
        "that is not there. The number beside the arm counts the segments without any mistake."
    )

    windows_words = (
        "Grey: training windows of the videos that are labelled with an event, once as heard and "
        "once as seen. Filled, and in percent: those whose pseudo-label still has it there."
    )

    def __init__(self, report: ParsingReport) -> None:
        super().__init__(report)
        self._report = report

    def panels(self) -> list[Panel]:
        """F1 of each class, heard and seen."""
        arms = self._report.compared
        return [
            Panel(
                title=f"F1 of each class {modality}.",
                words=f"Over all test segments, classes in the order of {arms[0]}.",
                figure=Markup(figure),
            )
            for modality, figure in self._f1_figures()
        ]

    def files(self) -> Iterator[tuple[str, str]]:
        """F1 of each class, heard and seen."""
        for modality, figure in self._f1_figures():
            yield f"f1_{modality}.svg", figure

    def drawings(self) -> list[Drawing]:
        """The timelines."""
        return [draw_parsed(video, self._report) for video in self._report.timelines]

    def refined_words(self, windows: WindowSummary) -> str:
        """What Step 2 did, in a sentence or two."""
        return (
            f"Step 2 relabelled {windows.num_windows:,} windows of {windows.num_videos:,} "
            f"training videos. In {_share(windows)} no event reached the threshold, "
            "neither heard nor seen."
        )

    def _f1_figures(self) -> Iterator[tuple[str, str]]:
        counts = self._report.counts
        for number, modality in enumerate(parsing.MODALITIES if counts else ()):
            f1_by_arm = {arm: parsing.per_class_f1(of[number]) for arm, of in counts.items()}
            classes = self._report.classes
            yield modality, figures.f1_figure(f1_by_arm, classes, self.styles, background=False)


class ExchangeView(ParsingView):
    """Parsing whose Step 2 labelled whole modalities in place of windows."""

    scored, unit = "Pseudo-labels of whole modalities", "modalities"
    windows_title = "Modalities that kept their event."
    windows_words = (
        "Grey: both modalities of the training videos that are labelled with an event. Filled, and "
        "in percent: those that keep the label, because they show the event alone or neither does."
    )
    threshold_words = (
        "Sensitivity: of the events in a modality, those kept. Specificity: of the events of a "
        "video that are absent from a modality, those dropped."
    )

    def refined_words(self, windows: WindowSummary) -> str:
        """What Step 2 did, in a sentence or two."""
        num_labels = sum(windows.of_video_C)
        num_lost = num_labels - sum(windows.kept_C)
        return (
            f"Step 2 looked for the events of {windows.num_videos:,} training videos in each "
            f"modality alone. Of {num_labels:,} labels of a modality, {num_lost:,} "
            f"({100 * num_lost / (num_labels or 1):.0f} %) were removed: the other modality alone "
            "reached the threshold, and this one did not."
        )


def view_of(report: Report) -> TaskView:
    """The view of the report's task."""
    if isinstance(report, ParsingReport):
        return ExchangeView(report) if report.exchanged else ParsingView(report)
    assert isinstance(report, LocalizationReport)
    return LocalizationView(report)


def arm_styles(report: Report) -> dict[str, int]:
    """Style number of each arm, the same in all figures; compared arms come first."""
    curves = (curve.arm for curve in report.learning_curves)
    arms = dict.fromkeys([*report.compared, *curves, *report.results])
    return {arm: index % _NUM_STYLES for index, arm in enumerate(arms)}


def _share(windows: WindowSummary) -> str:
    """How many windows have no event left, and their part of all."""
    percent = 100 * windows.num_background / (windows.num_windows or 1)
    return f"{windows.num_background:,} of them ({percent:.0f} %)"
