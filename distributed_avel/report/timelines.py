"""Test videos as lanes of coloured runs: what the page needs to draw one timeline.

In localization a segment has one class, so a lane is one row. In parsing it may have several, so
a lane has a thin row for each class, and what is heard and what is seen have lanes of their own.

Shape suffixes used in this file:
    T = segments    C = event classes    K = C + 1, background last    M = modalities
"""

import base64
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distributed_avel.metrics.parsing import MODALITIES
from distributed_avel.report.page_data import (
    LocalizationReport,
    ParsedVideo,
    ParsingReport,
    Report,
    VideoTimeline,
)
from distributed_avel.timeline import Timeline

_JPEG_START = b"\xff\xd8\xff"
_GOLDEN_ANGLE = 137.508
_MAX_TICKS = 11


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """A class that occurs in a timeline. `hue` is None for background."""

    name: str
    hue: int | None
    present: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Neighbouring segments of one class, from `first` to before `end`.

    `error` is what is wrong with them in one word, where a class has a row to itself.
    """

    name: str
    hue: int | None
    first: int
    end: int
    span: str
    error: Literal["", "missed", "invented"] = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Runs beside each other. `wrong` are runs of segments that differ from the truth."""

    runs: tuple[Run, ...]
    wrong: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """The truth, or one arm, which has `num_right` segments right."""

    name: str
    rows: tuple[Row, ...]
    num_right: int | None = None
    probability: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One video. `frames` are data URIs."""

    video_id: str
    keys: tuple[Key, ...]
    frames: tuple[str, ...]
    lanes: tuple[Lane, ...]


def draw_timeline(video: VideoTimeline, report: LocalizationReport) -> Drawing:
    """The lanes, colours and frames of one video.

    Raises:
        ValueError: A frame is not a JPEG file.
    """
    truth_T = np.asarray(video.truth_T)
    lanes = [Lane(name="truth", rows=(Row(runs=_runs(truth_T, report)),))]
    for arm, classes_T in video.predictions.items():
        right_T = np.asarray(classes_T) == truth_T
        scores_TK = video.scores.get(arm)
        row = Row(
            runs=_runs(np.asarray(classes_T), report),
            wrong=tuple((a, b) for a, b, right in split_runs(right_T) if not right),
        )
        lanes.append(
            Lane(
                name=arm,
                rows=(row,),
                num_right=int(right_T.sum()),
                probability="" if scores_TK is None else step_path(1 - scores_TK[:, -1]),
            )
        )
    shown = {class_ for row in (truth_T, *video.predictions.values()) for class_ in row}
    present = {*video.labels, *truth_T.tolist()}
    return _drawing(video, lanes, report.column_names, shown, present, report)


def draw_parsed(video: ParsedVideo, report: ParsingReport) -> Drawing:
    """The same for parsing: two lanes for the truth and two for each arm.

    Raises:
        ValueError: A frame is not a JPEG file.
    """
    truth_MTC = video.truth_MTC
    lanes = [
        Lane(name=f"truth {modality}", rows=_class_rows(truth_TC, truth_TC, report))
        for modality, truth_TC in zip(MODALITIES, truth_MTC, strict=True)
    ]
    for arm, events_MTC in video.predictions.items():
        for modality, truth_TC, events_TC in zip(MODALITIES, truth_MTC, events_MTC, strict=True):
            lanes.append(
                Lane(
                    name=f"{arm} {modality}",
                    rows=_class_rows(truth_TC, events_TC, report),
                    num_right=int((truth_TC == events_TC).all(axis=1).sum()),
                )
            )
    shown = {
        int(class_)
        for events_MTC in (truth_MTC, *video.predictions.values())
        for class_ in np.nonzero(events_MTC)[2]
    }
    present = {*video.labels, *np.nonzero(truth_MTC)[2].tolist()}
    return _drawing(video, lanes, report.classes, shown, present, report)


def split_runs(values_T: NDArray) -> list[tuple[int, int, int]]:
    """Runs of equal values: where each begins, where it ends (excluded), and its value."""
    cuts = [0, *(np.flatnonzero(values_T[1:] != values_T[:-1]) + 1).tolist(), len(values_T)]
    return [(a, b, int(values_T[a])) for a, b in pairwise(cuts)]


def hue(class_: int, report: Report) -> int | None:
    """Angle of a class's colour, in degrees; far from those of its neighbours."""
    return None if class_ == len(report.classes) else round(40 + class_ * _GOLDEN_ANGLE) % 360


def step_path(values_T: Sequence[float] | NDArray[np.floating]) -> str:
    """The area under a step curve with values in 0..1, in a box of T by 1, y downwards."""
    steps = []
    for segment, value in enumerate(values_T):
        y = f"{1 - min(1.0, max(0.0, float(value))):.3f}".rstrip("0").rstrip(".")
        steps.append(f"L{segment} {y}H{segment + 1}")
    return f"M0 1{''.join(steps)}V1Z"


def time_ticks(timeline: Timeline) -> list[tuple[str, str]]:
    """Places in percent and seconds of the marks of the time axis, both ends included."""
    num_segments = timeline.num_segments
    every = -(-num_segments // (_MAX_TICKS - 1))
    marks = [*range(0, num_segments, every)]
    if num_segments - marks[-1] < every and len(marks) > 1:
        marks.pop()
    marks.append(num_segments)
    return [
        (
            f"{100 * mark / num_segments:g}",
            f"{mark * timeline.segment_s:g}" + " s" * (mark == marks[-1]),
        )
        for mark in marks
    ]


def _drawing(
    video: VideoTimeline | ParsedVideo,
    lanes: Iterable[Lane],
    names: Sequence[str],
    shown: Iterable[int],
    present: Collection[int],
    report: Report,
) -> Drawing:
    """With a key for each class that is shown or in the video-level label."""
    keys = tuple(
        Key(name=names[c], hue=hue(c, report), present=c in present)
        for c in sorted({int(c) for c in shown} | set(video.labels))
    )
    frames = tuple(_data_uri(frame, f"{video.video_id}: a frame") for frame in video.frames)
    return Drawing(video_id=video.video_id, keys=keys, frames=frames, lanes=tuple(lanes))


def _runs(classes_T: NDArray[np.integer], report: LocalizationReport) -> tuple[Run, ...]:
    return tuple(
        Run(
            name=report.column_names[class_],
            hue=hue(class_, report),
            first=first,
            end=end,
            span=_span(first, end, report.timeline),
        )
        for first, end, class_ in split_runs(classes_T)
    )


def _class_rows(
    truth_TC: NDArray[np.bool_], events_TC: NDArray[np.bool_], report: ParsingReport
) -> tuple[Row, ...]:
    """A row for each class that is there or predicted; one of nothing where there is none."""
    occurs_C = (truth_TC | events_TC).any(axis=0)
    rows = (
        _class_row(int(c), truth_TC[:, c], events_TC[:, c], report)
        for c in np.flatnonzero(occurs_C)
    )
    end = len(truth_TC)
    span = _span(0, end, report.timeline)
    return tuple(rows) or (
        Row(runs=(Run(name="no event", hue=None, first=0, end=end, span=span),)),
    )


_STATES: tuple[Literal["", "missed", "invented"], ...] = ("", "missed", "invented", "")
"""By whether an event is there, and twice whether it was predicted."""


def _class_row(
    class_: int, truth_T: NDArray[np.bool_], event_T: NDArray[np.bool_], report: ParsingReport
) -> Row:
    runs = [run for run in split_runs(truth_T + 2 * event_T) if run[2]]
    return Row(
        runs=tuple(
            Run(
                name=report.classes[class_],
                hue=hue(class_, report),
                first=first,
                end=end,
                span=_span(first, end, report.timeline),
                error=_STATES[state],
            )
            for first, end, state in runs
        ),
        wrong=tuple((first, end) for first, end, state in runs if _STATES[state]),
    )


def _span(first: int, end: int, timeline: Timeline) -> str:
    return f"{first * timeline.segment_s:g}–{end * timeline.segment_s:g} s"


def _data_uri(jpeg: bytes, name: str) -> str:
    if not jpeg.startswith(_JPEG_START):
        raise ValueError(f"{name} is not a JPEG file")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
