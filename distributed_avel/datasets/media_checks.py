"""Check the headers of media files: tracks, codecs, and durations."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from distributed_avel.datasets.base import Video, VideoSet
from distributed_avel.datasets.findings import Finding
from distributed_avel.errors import MediaError
from distributed_avel.media.container import CONVERT, MAX_MISSING_SEGMENTS
from distributed_avel.media.facts import HeaderFacts, TrackFacts, read_header
from distributed_avel.storage import Location

_NUM_THREADS = 8
_NAMES = {"video": "video", "audio": "audio"}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file without a readable header.

    Args:
        kind: Kind of the finding: a problem of the file or of the storage.
        reason: The reason.
    """

    kind: str
    reason: str


Headers = Mapping[str, HeaderFacts | Unreadable]
"""Headers by file name."""


def read_headers(names: Sequence[str], root: Location) -> Headers:
    """Read the headers of media files, in about 5 ms per local file.

    Headers are read in the current process, so a file on which FFmpeg's probing hangs blocks it.
    (Extraction decodes files in processes that can be killed.)

    Args:
        names: Files below `root`.
        root: Folder of the data set.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        headers = threads.map(lambda name: _read(root / name), names)
        return dict(zip(names, headers, strict=True))


def check_media(
    videos: VideoSet, headers: Headers, *, keeps_short: bool = False
) -> Iterable[Finding]:
    """Find files that extraction will refuse or truncate, with the affected labels.

    Args:
        videos: The data set.
        headers: Headers of its files.
        keeps_short: Files with fewer segments than the timeline are used (`data.short_videos`).
    """
    users: dict[str, list[Video]] = {}
    for video in videos.videos:
        users.setdefault(video.uri, []).append(video)
    for name, header in headers.items():
        if isinstance(header, Unreadable):
            yield Finding(header.kind, name, header.reason)
            continue
        yield from _tracks(name, header)
        needed_s = videos.timeline.segment_s if keeps_short else videos.timeline.duration_s
        yield from _durations(name, header, users.get(name, []), videos, needed_s)


def count_short(videos: VideoSet, headers: Headers) -> int:
    """Count the files with fewer segments than the timeline, of which a track ends earlier."""
    least_s = videos.timeline.duration_s - MAX_MISSING_SEGMENTS * videos.timeline.segment_s
    return sum(
        any(end_s is not None and end_s < least_s for end_s in ends_s)
        for header in headers.values()
        if not isinstance(header, Unreadable)
        for ends_s in [[_end(t, header) for t in (header.video, header.audio) if t is not None]]
    )


def _read(file: Location) -> HeaderFacts | Unreadable:
    try:
        with file.fs.open_input_file(file.path) as opened:
            return read_header(opened)  # pyright: ignore[reportArgumentType] (it reads and seeks)
    except MediaError as error:
        return Unreadable("unusable media file", str(error))
    except OSError as error:
        return Unreadable("file without access", str(error))


def _tracks(name: str, header: HeaderFacts) -> Iterable[Finding]:
    for kind, track in (("video", header.video), ("audio", header.audio)):
        if track is None:
            yield Finding("missing track", name, f"no {kind} track")
        elif track.codec is None:
            message = f"the {kind} track has an unknown codec; convert it: {CONVERT}"
            yield Finding("codec without a decoder", name, message)


def _durations(
    name: str, header: HeaderFacts, users: Sequence[Video], videos: VideoSet, needed_s: float
) -> Iterable[Finding]:
    used_s = videos.timeline.duration_s
    allowed_s = MAX_MISSING_SEGMENTS * videos.timeline.segment_s
    for kind, track in (("video", header.video), ("audio", header.audio)):
        if track is None:
            continue
        start_s, end_s = track.start_s or 0.0, _end(track, header)
        if start_s > allowed_s or (end_s is not None and needed_s - end_s > allowed_s):
            until = "" if end_s is None else f" to {end_s:.2f} s"
            message = f"{kind} from {start_s:.2f} s{until}, {needed_s:g} s are needed"
            yield Finding("media file too short", name, message)
    length_s = header.duration_s
    if length_s is None or length_s - used_s <= videos.timeline.segment_s:
        return
    events = {s.label for v in users for s in v.spans or () if s.end_s > used_s}
    weak = {label for v in users if v.spans is None for label in v.labels}
    labels = ""
    if events:
        labels = f"; annotated events after that: {_text(events, videos)}"
    elif weak:
        labels = f"; the labelled event may be in the rest: {_text(weak, videos)}"
    message = f"{length_s:.2f} s, of which the first {used_s:g} s are used{labels}"
    yield Finding("media file cut off", name, message)


def _text(labels: Iterable[int], videos: VideoSet) -> str:
    return ", ".join(sorted(videos.classes[label] for label in labels))


def _end(track: TrackFacts, header: HeaderFacts) -> float | None:
    """Return the end of a track on the presentation timeline, or None if the header lacks it."""
    if track.duration_s is None:
        return header.duration_s
    return (track.start_s or 0.0) + track.duration_s
