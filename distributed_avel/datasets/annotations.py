"""Read times of events from annotation tools, and merge them into the table of `folder`.

    .json    export of Label Studio (JSON): regions of `Labels` on audio or video, in seconds
    .eaf     ELAN: one annotation per event, in any tier; its text is the event, or else its tier
    .txt     label track of Audacity; the file is named as the video: `dog 1.txt` for `dog 1.mp4`
    .csv     columns uri, label, start, end; a row per event

Times are in seconds or [hh:]mm:ss, with decimals, in .txt and .csv.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, get_args
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from distributed_avel.datasets.base import Split
from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.table import read_table
from distributed_avel.datasets.text import parse_seconds, read_lines, read_text
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

LOCAL_FILES = "/data/local-files/"
"""Address of local files in Label Studio, followed by ?d=PATH."""

_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""Prefix that Label Studio adds to uploaded files."""

_CONFIDENCE = re.compile(r" \d{1,3}%$")
"""Suffix of the labels that `avel predict --format audacity` writes."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """An event of the video `name`: a path, a URL, or a file name with or without suffix."""

    name: str
    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """Annotations of one or several files.

    Args:
        videos: Names of the annotated videos, also of those without an event.
        events: All events.
    """

    videos: tuple[str, ...]
    events: tuple[Annotation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedTable:
    """The table of a data set with new times.

    Args:
        text: The table, as CSV.
        num_videos: Number of videos with new times.
        notes: Changes of video-level labels, and events of the labels that have no times.
    """

    text: str
    num_videos: int
    notes: tuple[str, ...]


def parse_time(text: str) -> float:
    """Parse a time in seconds or as [hh:]mm:ss, both with decimals, such as `01:02.5`.

    Raises:
        ValueError: The text is not a time; decimals need a point.
    """
    *groups, seconds = text.strip().split(":")
    value = parse_seconds(seconds)
    if not groups:
        return value
    if (
        len(groups) > 2
        or not 0 <= value < 60
        or not all(g.isascii() and g.isdigit() for g in groups)
    ):
        raise ValueError(f"not a time: {text!r}")
    for factor, group in zip((60, 3600), reversed(groups), strict=False):
        value += factor * int(group)
    return value


def read_annotations(file: Location) -> Annotations:
    """Read the events of a file.

    Raises:
        DatasetError: The file is missing, damaged or of another kind, or an event is wrong; the
            message names the file, the line and the remedy.
    """
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise DatasetError(f"{file}: not a file of annotations; these are read: {known}")
    if not file.exists():
        raise DatasetError(f"{file}: no such file")
    return _READERS[suffix](file)


def merge(table: Location, annotations: Annotations) -> MergedTable:
    """Put times into a table `videos.csv`; times of other videos and other columns are kept.

    Videos are found by uri, video id, file name, or file name without suffix. Events that the
    video-level label lacks are added to it.

    Raises:
        DatasetError: The table cannot be read, or a video is not in it, ambiguous, or named by an
            address that cannot be read.
    """
    problems = Problems()
    required, optional = ("uri", "split", "labels"), ("spans", "video_id")
    rows = [
        dict(row)
        for _, row in read_table(
            table, problems, required=required, optional=optional, is_row=_is_video
        )
    ]
    columns = list(rows[0]) if rows else [*required]
    if "spans" not in columns:
        columns.insert(columns.index("labels") + 1, "spans")
    find = _Finder(rows)
    found: dict[int, list[Annotation]] = {}
    for name in annotations.videos:
        with problems.collect():
            found.setdefault(find(name), []).extend(e for e in annotations.events if e.name == name)
    problems.refuse(str(table))
    notes = []
    for number, events in found.items():
        notes += _annotate(rows[number], events)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return MergedTable(text=buffer.getvalue(), num_videos=len(found), notes=tuple(notes))


def _annotate(row: dict[str, Any], events: Sequence[Annotation]) -> Iterator[str]:
    """Set the spans of a row, and yield notes."""
    labels = [name.strip() for name in row["labels"].split(";") if name.strip()]
    timed = list(dict.fromkeys(event.label for event in events))
    if not events:
        had_times = bool((row.get("spans") or "").strip())
        row["spans"] = ""  # with labels, this means unknown times: the table cannot say "no event"
        if labels:
            removed = "its times were removed, and " if had_times else ""
            yield (
                f"{row['uri']}: annotated without an event; {removed}its labels still are "
                f"{';'.join(labels)}; empty the cell if it has none"
            )
        return
    row["spans"] = ";".join(
        f"{e.label}:{e.start_s:.3f}-{e.end_s:.3f}"
        for e in sorted(events, key=lambda e: (e.start_s, e.end_s, e.label))
    )
    new = [label for label in timed if label not in labels]
    if new:
        row["labels"] = ";".join([*labels, *new])
        yield f"{row['uri']}: added to its labels: {';'.join(new)}"
    untimed = [label for label in labels if label not in timed]
    if untimed:
        yield f"{row['uri']}: in its labels, but without times: {';'.join(untimed)}"


class _Finder:
    """Finds the row of a video by its name in an annotation tool."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._keys: list[dict[str, list[int]]] = [{}, {}, {}]
        for number, row in enumerate(rows):
            uri = PurePosixPath(row["uri"])
            for keys, names in zip(
                self._keys,
                ({str(uri), row.get("video_id") or str(uri)}, {uri.name}, {uri.stem}),
                strict=True,
            ):
                for name in names:
                    keys.setdefault(name, []).append(number)

    def __call__(self, name: str) -> int:
        """Return the number of the row.

        Raises:
            DatasetError: There is none, there are several, or the address cannot be read.
        """
        for keys, candidate in zip(
            (self._keys[0], self._keys[0], self._keys[1], self._keys[1], self._keys[2]),
            _candidates(name),
            strict=True,
        ):
            numbers = keys.get(candidate, [])
            if len(numbers) == 1:
                return numbers[0]
            if numbers:
                raise DatasetError(
                    f"{name!r} is the name of {len(numbers)} rows; use the uri or a video_id"
                )
        raise DatasetError(f"no row for the video {name!r}; add its row first")


def _candidates(name: str) -> Iterator[str]:
    """Yield the name, its path, the file name, that without Label Studio's prefix, its stem.

    Raises:
        DatasetError: The name is an address that cannot be read.
    """
    yield name
    path = _path_of(name)
    yield path
    file = PureWindowsPath(path).name  # splits at / and \
    yield file
    original = _UPLOAD.sub("", file)
    yield original
    yield PurePosixPath(original).stem


def _path_of(name: str) -> str:
    """Return the path of an address, or else the name.

    Raises:
        DatasetError: The address cannot be read, or has a fragment or a query other than Label
            Studio's: unquoted, `a#1.mp4` and `a?1.mp4` would be read as `a`.
    """
    try:
        address = urlsplit(name)
    except ValueError as error:
        raise DatasetError(
            f"{name!r} is not an address ({error}); correct it in the file"
        ) from None
    query = parse_qs(address.query, keep_blank_values=True)
    is_url = address.scheme in ("http", "https", "file")
    if not (is_url or name.startswith(LOCAL_FILES)):
        return name
    if address.fragment or (query and query.keys() != {"d"}):
        raise DatasetError(
            f"{name!r} is an address with a fragment or a query, so the name of its file is not "
            "certain; write # as %23, ? as %3F and & as %26, or remove the query"
        )
    return query["d"][0] if query else unquote(address.path)


def _label_studio(file: Location) -> Annotations:
    try:
        tasks = json.loads(read_text(file))
    except (ValueError, RecursionError):
        raise DatasetError(f"{file}: not JSON; export the project as JSON") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DatasetError(f"{file}: not an export of Label Studio; export the project as JSON")
    videos, events = [], []
    for number, task in enumerate(tasks, start=1):
        where = f"{file}, task {number}"
        data, done = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(done, list):
            raise DatasetError(
                f"{where}: no data or no annotations; export as JSON, not as JSON-MIN"
            )
        done = [a for a in done if isinstance(a, dict) and not a.get("was_cancelled")]
        if not done:
            continue  # nobody has annotated it
        name = data.get("video") or data.get("audio")
        if not isinstance(name, str):
            raise DatasetError(f"{where}: data has neither video nor audio")
        videos.append(name)
        for region in done[-1].get("result") or []:  # the last annotation counts
            events += _regions(region, name, where)
    return Annotations(videos=tuple(videos), events=tuple(events))


def _regions(region: Any, name: str, where: str) -> Iterator[Annotation]:
    kind = region.get("type") if isinstance(region, dict) else None
    if kind == "timelinelabels":
        raise DatasetError(
            f"{where}: TimelineLabels has frame numbers, not seconds; use Labels on an Audio tag"
        )
    if kind != "labels":
        return
    try:
        value = region["value"]
        labels, start_s, end_s = value["labels"], float(value["start"]), float(value["end"])
    except (KeyError, TypeError, ValueError):
        raise DatasetError(f"{where}: a region without start, end or labels") from None
    for label in labels:
        yield _checked(name, str(label), start_s, end_s, where)


def _elan(file: Location) -> Annotations:
    try:
        root = ElementTree.fromstring(read_text(file))
        name, found = _media_of(root, file), list(_elan_events(root))
    except (ElementTree.ParseError, KeyError) as error:
        raise DatasetError(f"{file}: not a file of ELAN ({error}); save it again") from None
    events = []
    for label, start_ms, end_ms in found:
        if not (start_ms and end_ms and start_ms.isdecimal() and end_ms.isdecimal()):
            raise DatasetError(f"{file}: {label!r} has no times; align it in ELAN")
        events.append(_checked(name, label, int(start_ms) / 1000, int(end_ms) / 1000, str(file)))
    return Annotations(videos=(name,), events=tuple(events))


def _elan_events(root: ElementTree.Element) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield label, start and end of each annotation, in milliseconds; None if it has no time."""
    times_ms = {
        slot.attrib["TIME_SLOT_ID"]: slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")
    }
    for tier in root.iter("TIER"):
        for item in tier.iter("ALIGNABLE_ANNOTATION"):
            label = (item.findtext("ANNOTATION_VALUE") or "").strip() or tier.attrib["TIER_ID"]
            start_ms, end_ms = (times_ms[item.attrib[f"TIME_SLOT_REF{n}"]] for n in (1, 2))
            yield label, start_ms, end_ms


def _media_of(root: ElementTree.Element, file: Location) -> str:
    """Return the media file of an ELAN document, by default the name of the document."""
    for media in root.iter("MEDIA_DESCRIPTOR"):
        address = media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL")
        if address:
            return address.removeprefix("./")
    return PurePosixPath(file.name).stem


def _audacity(file: Location) -> Annotations:
    name = PurePosixPath(file.name).stem
    events = []
    for number, line in enumerate(read_lines(file), start=1):
        where = f"{file}:{number}"
        if not line.strip() or line.startswith("\\"):  # \: frequencies of the line before
            continue
        fields = line.split("\t")
        if len(fields) != 3:
            raise DatasetError(f"{where}: expected start, end and label, separated by tabs")
        start_s, end_s = (_time(text, where) for text in fields[:2])
        label = _CONFIDENCE.sub("", fields[2].strip())
        events.append(_checked(name, label, start_s, end_s, where))
    return Annotations(videos=(name,), events=tuple(events))


def _csv(file: Location) -> Annotations:
    problems, events = Problems(), []
    columns = ("uri", "label", "start", "end")
    for where, row in read_table(file, problems, required=columns, optional=(), is_row=_is_event):
        with problems.collect():
            start_s, end_s = _time(row["start"], where), _time(row["end"], where)
            events.append(_checked(row["uri"].strip(), row["label"].strip(), start_s, end_s, where))
    problems.refuse(str(file))
    videos = tuple(dict.fromkeys(event.name for event in events))
    return Annotations(videos=videos, events=tuple(events))


def _is_video(values: Mapping[str, str]) -> bool:
    return values.get("split", "").strip() in get_args(Split)


def _is_event(values: Mapping[str, str]) -> bool:
    try:
        return parse_time(values["start"]) < parse_time(values["end"])
    except (KeyError, ValueError):
        return False


def _time(text: str, where: str) -> float:
    try:
        return parse_time(text)
    except ValueError:
        raise DatasetError(
            f"{where}: {text!r} is not a time; write seconds or mm:ss, with a decimal point"
        ) from None


def _checked(name: str, label: str, start_s: float, end_s: float, where: str) -> Annotation:
    if not label or ";" in label:
        raise DatasetError(f"{where}: {label!r} is not a label; it is empty or has a semicolon")
    if not (math.isfinite(end_s) and 0 <= start_s < end_s):
        raise DatasetError(
            f"{where}: {label}: from {start_s:g} to {end_s:g} s; an event must start at 0 or later "
            "and end after its start"
        )
    return Annotation(name, label, start_s, end_s)


_READERS: dict[str, Callable[[Location], Annotations]] = {
    ".json": _label_studio,
    ".eaf": _elan,
    ".txt": _audacity,
    ".csv": _csv,
}
