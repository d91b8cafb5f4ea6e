"""Timelines of test videos: lanes of coloured bars for the ground truth and each arm.

In localization, a segment has one class, so a lane is one row. In parsing, a segment may have
several classes, so a lane has a thin row for each class, and each modality has its own lane.

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
    SoundPicture,
    VideoTimeline,
)
from distributed_avel.timeline import Timeline

_JPEG_START = b"\xff\xd8\xff"
_GOLDEN_ANGLE = 137.508
_MAX_TICKS = 11
_NO_TIMES = "ground truth without times"


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """Legend entry of a class in a timeline.

    Args:
        name: Name of the class.
        hue: Colour, in degrees; None for background.
        present: Whether the class is in the ground truth of the video.
    """

    name: str
    hue: int | None
    present: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """Consecutive segments of one class.

    Args:
        name: Name of the class.
        hue: Colour, in degrees; None for background.
        first: First segment.
        end: Segment after the last one.
        span: Time span as text.
        error: Kind of error in these segments; only in parsing, where each class has its own row.
        confidence: In 0..1, of an event without ground truth.
    """

    name: str
    hue: int | None
    first: int
    end: int
    span: str
    error: Literal["", "missed", "false positive"] = ""
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneRow:
    """Bars of one row; `wrong` are ranges of segments (end excluded) that are predicted wrongly."""

    bars: tuple[Bar, ...]
    wrong: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """Ground truth or prediction of one arm.

    Args:
        name: Label of the lane.
        rows: Rows, from top to bottom.
        num_right: Number of segments that the arm predicts correctly; None for the ground truth.
        probability: SVG path of the probability of any event; empty without scores.
    """

    name: str
    rows: tuple[LaneRow, ...]
    num_right: int | None = None
    probability: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundDrawing:
    """Waveform and spectrogram of a video.

    Args:
        waveform: SVG path of the range of the waveform, in a box of `num_columns` by -1 to 1.
        num_columns: Width of that box.
        log_mel: Data URI of a picture of the log-mel spectrogram, low frequencies at the bottom.
    """

    waveform: str
    num_columns: int
    log_mel: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Timeline of one video; `frames` are data URIs, at equal distances."""

    video_id: str
    num_segments: int
    keys: tuple[Key, ...]
    frames: tuple[str, ...]
    lanes: tuple[Lane, ...]
    sound: SoundDrawing | None = None


def draw_timeline(video: VideoTimeline, report: LocalizationReport) -> Drawing:
    """Build the timeline of a video of localization.

    Raises:
        ValueError: A frame is not a JPEG file.
    """
    if video.truth_T is None:
        lanes, true_classes = [Lane(name=_NO_TIMES, rows=(LaneRow(bars=()),))], []
    else:
        lanes = [Lane(name="ground truth", rows=(LaneRow(bars=_bars(video.truth_T, report)),))]
        true_classes = video.truth_T.tolist()
    for arm, classes_T in video.predictions.items():
        truth_T = classes_T if video.truth_T is None else video.truth_T
        right_T = np.asarray(classes_T) == truth_T
        scores_TK = video.scores.get(arm)
        row = LaneRow(
            bars=_bars(np.asarray(classes_T), report),
            wrong=tuple((a, b) for a, b, right in split_runs(right_T) if not right),
        )
        lanes.append(
            Lane(
                name=arm,
                rows=(row,),
                num_right=None if video.truth_T is None else int(right_T.sum()),
                probability="" if scores_TK is None else step_path(1 - scores_TK[:, -1]),
            )
        )
    drawn_classes = {
        class_ for row in (true_classes, *video.predictions.values()) for class_ in row
    }
    present = {*video.labels, *true_classes}
    return _drawing(video, lanes, report.column_names, drawn_classes, present, report)


def draw_parsed(video: ParsedVideo, report: ParsingReport) -> Drawing:
    """Build the timeline of a video of parsing: two lanes for the ground truth and for each arm.

    Raises:
        ValueError: A frame is not a JPEG file.
    """
    if video.truth_MTC is None:
        lanes = [Lane(name=_NO_TIMES, rows=(LaneRow(bars=()),))]
    else:
        lanes = [
            Lane(name=f"ground truth {modality}", rows=_class_rows(truth_TC, truth_TC, report))
            for modality, truth_TC in zip(MODALITIES, video.truth_MTC, strict=True)
        ]
    for arm, events_MTC in video.predictions.items():
        truth_MTC = events_MTC if video.truth_MTC is None else video.truth_MTC
        for modality, truth_TC, events_TC in zip(MODALITIES, truth_MTC, events_MTC, strict=True):
            lanes.append(
                Lane(
                    name=f"{arm} {modality}",
                    rows=_class_rows(truth_TC, events_TC, report),
                    num_right=None
                    if video.truth_MTC is None
                    else int((truth_TC == events_TC).all(axis=1).sum()),
                )
            )
    known = [] if video.truth_MTC is None else [video.truth_MTC]
    drawn_classes = {
        int(class_)
        for events_MTC in (*known, *video.predictions.values())
        for class_ in np.nonzero(events_MTC)[2]
    }
    present = {*video.labels, *(c for true in known for c in np.nonzero(true)[2].tolist())}
    return _drawing(video, lanes, report.classes, drawn_classes, present, report)


def split_runs(values_T: NDArray) -> list[tuple[int, int, int]]:
    """Split into runs of equal values: first index, end (excluded) and value of each run."""
    cuts = [0, *(np.flatnonzero(values_T[1:] != values_T[:-1]) + 1).tolist(), len(values_T)]
    return [(a, b, int(values_T[a])) for a, b in pairwise(cuts)]


def hue(class_: int, report: Report) -> int | None:
    """Return the hue of a class in degrees, or None for background."""
    return None if class_ == len(report.classes) else class_hue(class_)


def class_hue(class_: int) -> int:
    """Return the hue of an event class in degrees."""
    # Multiples of the golden angle keep the colours of neighbouring classes far apart.
    return round(40 + class_ * _GOLDEN_ANGLE) % 360


def step_path(values_T: Sequence[float] | NDArray[np.floating]) -> str:
    """Return the SVG path of the area under a step curve, in a box of T by 1 with y downwards.

    Args:
        values_T: One value per segment; clipped to 0..1.
    """
    steps = []
    for segment, value in enumerate(values_T):
        y = f"{1 - min(1.0, max(0.0, float(value))):.3f}".rstrip("0").rstrip(".")
        steps.append(f"L{segment} {y}H{segment + 1}")
    return f"M0 1{''.join(steps)}V1Z"


def frame_uris(frames: Iterable[bytes], video_id: str) -> tuple[str, ...]:
    """Return frames as data URIs.

    Raises:
        ValueError: A frame is not a JPEG file.
    """
    uris = []
    for frame in frames:
        if not frame.startswith(_JPEG_START):
            raise ValueError(f"{video_id}: a frame is not a JPEG file")
        uris.append(_data_uri(frame, "jpeg"))
    return tuple(uris)


def sound_drawing(sound: SoundPicture) -> SoundDrawing:
    """Draw the waveform as an area that fills the height, and the spectrogram as a picture."""
    peak = max(float(np.max(np.abs([sound.low_N, sound.high_N]))), 1e-6)
    low_N, high_N = sound.low_N / peak, sound.high_N / peak
    # Forth along the upper edge (y points down), and back along the lower one.
    forth = [f"{column} {_decimals(-high)}" for column, high in enumerate(high_N)]
    back = [f"{column} {_decimals(-low)}" for column, low in reversed([*enumerate(low_N)])]
    return SoundDrawing(
        waveform=f"M{'L'.join([*forth, *back])}Z",
        num_columns=max(1, len(low_N) - 1),
        log_mel=_data_uri(sound.log_mel, "png"),
    )


def _decimals(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def time_ticks(timeline: Timeline) -> list[tuple[str, str]]:
    """Return position (percent) and label (seconds) of the ticks of the time axis."""
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
    drawn_classes: Iterable[int],
    present: Collection[int],
    report: Report,
) -> Drawing:
    """Build a timeline with a legend entry for each class that is drawn or in the video label."""
    keys = tuple(
        Key(name=names[c], hue=hue(c, report), present=c in present)
        for c in sorted({int(c) for c in drawn_classes} | set(video.labels))
    )
    return Drawing(
        video_id=video.video_id,
        num_segments=video.num_segments,
        keys=keys,
        frames=frame_uris(video.frames, video.video_id),
        lanes=tuple(lanes),
        sound=None if video.sound is None else sound_drawing(video.sound),
    )


def _bars(classes_T: NDArray[np.integer], report: LocalizationReport) -> tuple[Bar, ...]:
    return tuple(
        Bar(
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
) -> tuple[LaneRow, ...]:
    """Return a row for each class that is present or predicted, or one row "no event"."""
    occurs_C = (truth_TC | events_TC).any(axis=0)
    rows = (
        _class_row(int(c), truth_TC[:, c], events_TC[:, c], report)
        for c in np.flatnonzero(occurs_C)
    )
    end = len(truth_TC)
    span = _span(0, end, report.timeline)
    return tuple(rows) or (
        LaneRow(bars=(Bar(name="no event", hue=None, first=0, end=end, span=span),)),
    )


_ERRORS: tuple[Literal["", "missed", "false positive"], ...] = ("", "missed", "false positive", "")
"""Error by outcome, `truth + 2 * predicted`."""


def _class_row(
    class_: int, truth_T: NDArray[np.bool_], event_T: NDArray[np.bool_], report: ParsingReport
) -> LaneRow:
    runs = [run for run in split_runs(truth_T + 2 * event_T) if run[2]]
    return LaneRow(
        bars=tuple(
            Bar(
                name=report.classes[class_],
                hue=hue(class_, report),
                first=first,
                end=end,
                span=_span(first, end, report.timeline),
                error=_ERRORS[outcome],
            )
            for first, end, outcome in runs
        ),
        wrong=tuple((first, end) for first, end, outcome in runs if _ERRORS[outcome]),
    )


def _span(first: int, end: int, timeline: Timeline) -> str:
    return time_span(first, end, timeline.segment_s)


def time_span(first: int, end: int, segment_s: float) -> str:
    """Return the times of the segments from `first` to `end` (excluded), as text."""
    return f"{first * segment_s:g}–{end * segment_s:g} s"


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
