"""`folder`: a user's own videos, described by one table.

    <root>/videos.csv or videos.parquet    one row per video
    <root>/classes.txt                     optional: the classes in order, one per line
    <root>/...                             the video files

The columns of the table:

    uri       path of the file below the root, such as `clips/dog 1.mp4`
    split     `train`, `val` or `test`; each needs at least one video
    labels    events of the video, `dog;bell`; empty for a video without an event
    spans     optional: times of the audio-visual events, in seconds, `dog:2-5;bell:0-1.5`. An
              event may have several spans. Without spans, a validation or test video counts in
              video-level metrics only
    video_id  optional: a unique name (default: the uri); required for two rows of one file

CSV files are UTF-8, with commas and a header. In Parquet, `labels` may also be a list of strings,
and `spans` a list of {label, start_s, end_s}. The classes are those of `classes.txt`, or all
labels of the table in sorted order. A video has `data.num_segments` segments of `data.segment_s`;
the rest of the file is not used.
"""

import math
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any, TypeVar, get_args

from distributed_avel.config import DataConfig
from distributed_avel.datasets.base import Span, Split, Video, VideoSet, register_dataset
from distributed_avel.datasets.names import check_names, first_places, has_times, nearest
from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.table import read_table
from distributed_avel.datasets.text import parse_seconds, read_lines
from distributed_avel.errors import ArtifactError, DatasetError
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

TABLES = ("videos.csv", "videos.parquet")
CLASSES_FILE = "classes.txt"
REQUIRED = ("uri", "split", "labels")
OPTIONAL = ("spans", "video_id")

_ROUNDING_S = 1e-6
_SPLIT_OF: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Other common names of the splits, for a hint in the error."""
_NO_EVENT = "a video without an event has an empty cell in labels"

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _NamedSpan:
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A valid row of the table."""

    where: str
    video_id: str
    uri: str
    split: Split
    labels: list[str]
    spans: list[_NamedSpan] | None


@register_dataset("folder")
def load_folder(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the videos in the table below `root`.

    Raises:
        DatasetError: There is no table, there are two, or a required column is missing.
    """
    timeline = Timeline(num_segments=config.num_segments, segment_s=config.segment_s)
    file = _table_file(root)
    rows: dict[str, _Row] = {}
    table = read_table(file, problems, required=REQUIRED, optional=OPTIONAL, is_row=_is_row)
    for where, values in table:
        row = _row(where, values, root, timeline, problems)
        if row is None:
            continue
        if row.video_id in rows:
            problems.error(_repeated(row, rows[row.video_id]))
            continue
        rows[row.video_id] = row
        problems.places[row.video_id] = where
    classes = _classes(root / CLASSES_FILE, list(rows.values()), problems)
    known = [row for row in rows.values() if _is_known(row, classes, problems)]
    for split in get_args(Split):
        if not problems.errors and not any(row.split == split for row in known):
            problems.error(f"{file}: column split: no row has {split!r}; every split needs a video")
    return VideoSet(
        name=config.dataset,
        classes=classes,
        timeline=timeline,
        videos=tuple(_video(row, classes) for row in known),
        synthetic=False,
    )


def _repeated(row: _Row, first: _Row) -> str:
    """Explain why two rows cannot have the same video id."""
    if row.uri == first.uri and row.split != first.split:
        return (
            f"{row.where}: {row.uri!r} is already in {first.split} ({first.where}); no video may "
            f"be in two splits, such as training and test: remove one of the rows"
        )
    if (row.uri, row.labels, row.spans) == (first.uri, first.labels, first.spans):
        return f"{row.where}: repeats {first.where}; remove one of the two rows"
    return (
        f"{row.where}: {first.where} has the same name {row.video_id!r}; give rows of one file "
        f"different names in a column video_id"
    )


def _video(row: _Row, classes: tuple[str, ...]) -> Video:
    spans = None
    if row.spans is not None:
        spans = tuple(Span(classes.index(s.name), s.start_s, s.end_s) for s in row.spans)
    return Video(
        video_id=row.video_id,
        uri=row.uri,
        split=row.split,
        labels=tuple(classes.index(name) for name in row.labels),
        spans=spans,
    )


def _table_file(root: Location) -> Location:
    tables = [root / name for name in TABLES if (root / name).exists()]
    if len(tables) > 1:
        raise DatasetError(f"{root}: contains {' and '.join(TABLES)}; keep one of them")
    if not tables:
        raise DatasetError(
            f"{root}: no {' or '.join(TABLES)}; data.root must be the folder that contains it, "
            f"with the columns {', '.join(REQUIRED)} and optionally {' and '.join(OPTIONAL)}"
        )
    return tables[0]


def _is_row(values: Mapping[str, str]) -> bool:
    return values.get("split", "").strip() in get_args(Split)


def _row(
    where: str,
    values: Mapping[str, Any],
    root: Location,
    timeline: Timeline,
    problems: Problems,
) -> _Row | None:
    """Return a valid row, or None after reporting the errors of all its columns."""
    num_errors = len(problems.errors)

    def column(name: str, parse: Callable[[Any], _Value]) -> _Value | None:
        try:
            return parse(values.get(name))
        except DatasetError as error:
            problems.error(f"{where}, column {name}: {error}")
            return None

    uri = column("uri", lambda value: _uri(value, root))
    split = column("split", _split)
    labels = column("labels", _labels)
    spans = column("spans", lambda value: _spans(value, timeline))
    video_id = column("video_id", lambda value: _text(value) or uri)
    if len(problems.errors) > num_errors or not (uri and split and video_id):
        return None
    if spans and not labels:
        problems.error(
            f"{where}, column labels: is empty, but spans has {spans[0].name!r}; list each event "
            f"in labels, or the video counts as one without an event"
        )
        return None
    if spans is None and not labels:
        spans = []  # a video without an event needs no annotation
    return _Row(
        where=where, video_id=video_id, uri=uri, split=split, labels=labels or [], spans=spans
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"expected text, got {value!r}")
    return value.strip()


def _uri(value: Any, root: Location) -> str:
    """Return a path below the root in normalized form, so that each file has one uri."""
    uri = _text(value)
    if not uri:
        raise DatasetError("is empty; write the path of the file below the root")
    windows = PureWindowsPath(uri)
    if "\\" in uri and not windows.is_absolute() and ".." not in windows.parts:
        raise DatasetError(f"{uri!r} has backslashes; write {windows.as_posix()!r}")
    try:
        _ = root / uri
    except ArtifactError:
        outside = True
    else:
        outside = windows.is_absolute()
    if outside:
        raise DatasetError(
            f"{uri!r} is not below {root}; move the file there and write its path relative to it"
        )
    return posixpath.normpath(uri)


def _split(value: Any) -> Split:
    name = _text(value)
    for split in get_args(Split):
        if name == split:
            return split
    near = _SPLIT_OF.get(name.lower())
    hint = f"; did you mean {near!r}?" if near else ""
    raise DatasetError(f"expected train, val or test, got {name!r}{hint}")


def _labels(value: Any) -> list[str]:
    names = value if isinstance(value, list) else _text(value).split(";")
    names = [_text(name) for name in names]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DatasetError(f"{twice[0]!r} appears twice; remove one of them")
    return [name for name in names if name]


def _spans(value: Any, timeline: Timeline) -> list[_NamedSpan] | None:
    """Return the spans of one row, or None if the cell is empty."""
    if isinstance(value, list):
        return [_checked(_fields(item), repr(item), timeline) for item in value]
    parts = [part.strip() for part in _text(value).split(";") if part.strip()]
    return [_checked(_parsed(part), repr(part), timeline) for part in parts] or None


def _fields(item: Any) -> _NamedSpan:
    try:
        return _NamedSpan(_text(item["label"]), float(item["start_s"]), float(item["end_s"]))
    except (KeyError, TypeError, ValueError):
        raise DatasetError(f"expected {{label, start_s, end_s}}, got {item!r}") from None


def _parsed(part: str) -> _NamedSpan:
    name, _, times = part.rpartition(":")
    start, _, end = times.partition("-")
    try:
        span = _NamedSpan(name.strip(), parse_seconds(start), parse_seconds(end))
    except ValueError:
        span = None
    if span is None or has_times(name):
        raise DatasetError(
            f"expected label:start-end in seconds, got {part!r}; decimals need a point, and "
            f"several spans are separated by ;"
        )
    return span


def _checked(span: _NamedSpan, shown: str, timeline: Timeline) -> _NamedSpan:
    if not span.name:
        raise DatasetError(f"{shown}: has no label; expected label:start-end")
    if not (math.isfinite(span.end_s) and 0 <= span.start_s < span.end_s):
        raise DatasetError(f"{shown}: an event must start at 0 or later and end after its start")
    if span.end_s > timeline.duration_s + _ROUNDING_S:
        raise DatasetError(
            f"{shown}: ends after the {timeline.duration_s:g} s of data.num_segments x "
            f"data.segment_s; change these settings, or end the event there"
        )
    return span


def _names(row: _Row) -> dict[str, list[str]]:
    """Return the names of the events of a row, by column."""
    return {"labels": row.labels, "spans": [span.name for span in row.spans or []]}


def _classes(file: Location, rows: list[_Row], problems: Problems) -> tuple[str, ...]:
    """Return the classes of `classes.txt` in order, or all names of the table, sorted."""
    if not file.exists():
        places = first_places(
            (name, f"{row.where}, column {column}")
            for row in rows
            for column, names in _names(row).items()
            for name in names
        )
        check_names(places, problems, can_be_empty=_NO_EVENT)
        if not places and not problems.errors:
            problems.error(
                f"{file}: no such file, and no row has a label: there are no classes; add labels"
            )
        return tuple(sorted(places))
    places = {}
    for number, name in enumerate((line.strip() for line in read_lines(file)), start=1):
        if name in places:
            problems.error(f"{file}:{number}: {name!r} appears twice; remove one of the lines")
        elif name:
            places[name] = f"{file}:{number}"
    check_names(places, problems, can_be_empty=_NO_EVENT)
    return tuple(places)


def _is_known(row: _Row, classes: tuple[str, ...], problems: Problems) -> bool:
    known = True
    for column, names in _names(row).items():
        for name in names:
            if name not in classes:
                near = nearest(name, classes)
                hint = f"did you mean {near!r}?" if near else "add it there, or remove it"
                problems.error(
                    f"{row.where}, column {column}: {name!r} is not in {CLASSES_FILE}; {hint}"
                )
                known = False
    return known
