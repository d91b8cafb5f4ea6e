"""Test videos as lanes of coloured runs: what the page needs to draw one timeline.

Shape suffixes used in this file:
    T = segments    K = event classes + background, which is the last
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from distributed_avel.report.contents import Report, VideoTimeline
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
    """Neighbouring segments of one class, from `first` to before `end`."""

    name: str
    hue: int | None
    first: int
    end: int
    span: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """The truth, or one arm. `wrong` are runs of segments that differ from the truth."""

    name: str
    runs: tuple[Run, ...]
    wrong: tuple[tuple[int, int], ...] = ()
    num_right: int | None = None
    probability: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One video. `frames` are data URIs."""

    video_id: str
    keys: tuple[Key, ...]
    frames: tuple[str, ...]
    lanes: tuple[Lane, ...]


def draw_timeline(video: VideoTimeline, report: Report) -> Drawing:
    """The lanes, colours and frames of one video.

    Raises:
        ValueError: A frame is not a JPEG file.
    """
    truth_T = np.asarray(video.truth_T)
    lanes = [Lane(name="truth", runs=_runs(truth_T, report))]
    for arm, classes_T in video.predictions.items():
        right_T = np.asarray(classes_T) == truth_T
        scores_TK = video.scores.get(arm)
        lanes.append(
            Lane(
                name=arm,
                runs=_runs(np.asarray(classes_T), report),
                wrong=tuple((a, b) for a, b, right in split_runs(right_T) if not right),
                num_right=int(right_T.sum()),
                probability="" if scores_TK is None else step_path(1 - scores_TK[:, -1]),
            )
        )
    shown = {class_ for row in (truth_T, *video.predictions.values()) for class_ in row}
    present = {*video.labels, *truth_T.tolist()}
    keys = (
        Key(name=report.column_names[c], hue=hue(c, report), present=c in present)
        for c in sorted({int(c) for c in shown} | set(video.labels))
    )
    frames = tuple(_data_uri(frame, f"{video.video_id}: a frame") for frame in video.frames)
    return Drawing(video_id=video.video_id, keys=tuple(keys), frames=frames, lanes=tuple(lanes))


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


def _runs(classes_T: NDArray[np.integer], report: Report) -> tuple[Run, ...]:
    segment_s = report.timeline.segment_s
    return tuple(
        Run(
            name=report.column_names[class_],
            hue=hue(class_, report),
            first=first,
            end=end,
            span=f"{first * segment_s:g}–{end * segment_s:g} s",
        )
        for first, end, class_ in split_runs(classes_T)
    )


def _data_uri(jpeg: bytes, name: str) -> str:
    if not jpeg.startswith(_JPEG_START):
        raise ValueError(f"{name} is not a JPEG file")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
