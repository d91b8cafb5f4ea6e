"""Decode media files of any length in a decoding process, for predictions.

A file has as many segments as its shorter track covers. Its length is that of the header, checked
against the packets: a file that was cut off has a header that promises more than there is. A long
file is decoded in pieces, so that memory does not grow with its length.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from distributed_avel.errors import MediaError
from distributed_avel.features.base import Extractor, ExtractorRecipe
from distributed_avel.media.container import MAX_MISSING_SEGMENTS
from distributed_avel.media.facts import (
    HeaderFacts,
    TrackFacts,
    last_packet_ends,
    packet_ends,
    read_header,
)
from distributed_avel.media.files import MediaFile
from distributed_avel.media.pieces import PiecewiseMedia, cut_into_pieces
from distributed_avel.timeline import Timeline

MAX_WHOLE_S = 1200.0
"""Longest file of an extractor that cannot process pieces, and reads all of it into memory."""

_MIN_PIECE_SEGMENTS = 10

_SCAN_SPEED = 20.0
"""Reading the packets of a file is more than so many times as fast as decoding."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The part of a file that is predicted.

    Args:
        num_segments: Number of segments.
        note: What part of the file is left out, and why; empty if none is.
        end_s: End of the shorter track, in seconds.
    """

    num_segments: int
    note: str
    end_s: float

    def num_segments_from(self, start_s: float, segment_s: float) -> int:
        """Return the number of segments of a timeline that starts later; it may be 0."""
        return max(0, math.floor((self.end_s - start_s) / segment_s + MAX_MISSING_SEGMENTS))


@dataclass(frozen=True, slots=True)
class Piece:
    """Decoded segments of a file.

    Args:
        extent: Extent of the whole file.
        num_segments: Number of segments of the piece.
        prepared: Input of `Extractor.embed`.
        phase: Which of the timelines of the file the segments belong to, see `AnyLength`.
    """

    extent: Extent
    num_segments: int
    prepared: Any
    phase: int = 0


class AnyLength:
    """Decodes files of any length.

    Args:
        extractor: An extractor with the timeline of the training videos.
        num_phases: Number of timelines that a file is decoded on, one after the other; timeline p
            starts at p / num_phases segments.
    """

    def __init__(self, extractor: Extractor, num_phases: int = 1) -> None:
        self._extractor = extractor
        self._num_phases = num_phases

    def timeout_factor(self, media: MediaFile) -> float:
        """Return what the time limit of the first piece is multiplied by.

        A whole file takes as long as its number of training videos. With pieces, the packets of the
        file may have to be read to its end first, which is much faster than decoding.
        """
        duration_s = read_header(media).duration_s or MAX_WHOLE_S
        length = duration_s / self._extractor.timeline.duration_s
        if self._extractor.independent_segments:
            return max(1.0, min(length, 2.0) + length / _SCAN_SPEED)
        return max(1.0, min(length, MAX_WHOLE_S / self._extractor.timeline.duration_s))

    def pieces(self, media: MediaFile) -> Iterator[Piece]:
        """Decode a file in pieces of at least the length of the training videos.

        A file that is shorter than two of them, or whose extractor requires it, is one piece.

        Raises:
            MediaError: The file cannot be used. This may be known only after some pieces.
        """
        segment_s = self._extractor.timeline.segment_s
        extent = extent_of(media, segment_s)
        yield from self._pieces_of_extent(media, extent)
        for phase in range(1, self._num_phases):
            start_s = phase * segment_s / self._num_phases
            num_segments = extent.num_segments_from(start_s, segment_s)
            timeline = Timeline(num_segments=num_segments, segment_s=segment_s)
            if num_segments:
                yield from self._pieces_of(media, extent, timeline, start_s, phase)

    def _pieces_of_extent(self, media: MediaFile, extent: Extent) -> Iterator[Piece]:
        """Decode the segments from the start of the file."""
        segment_s = self._extractor.timeline.segment_s
        timeline = Timeline(num_segments=extent.num_segments, segment_s=segment_s)
        if len(self._cut(timeline)) == 1 or not self._extractor.independent_segments:
            if timeline.duration_s > MAX_WHOLE_S:
                raise MediaError(
                    f"more than {MAX_WHOLE_S:.0f} s long, which is the limit of the extractor "
                    f"{self._extractor.config.extractor}, which cannot process pieces; cut it: "
                    "ffmpeg -i IN -f segment -segment_time 600 -reset_timestamps 1 -c copy "
                    "PART%03d.mp4"
                )
            prepared = self._extractor.with_timeline(timeline).prepare(media.read_bytes())
            yield Piece(extent, extent.num_segments, prepared)
            return
        yield from self._pieces_of(media, extent, timeline, 0.0, 0)

    def _pieces_of(
        self, media: MediaFile, extent: Extent, timeline: Timeline, start_s: float, phase: int
    ) -> Iterator[Piece]:
        whole = PiecewiseMedia(media, timeline, self._cut(timeline), start_s)
        try:
            for piece in whole:
                extractor = self._extractor.with_timeline(piece.timeline)
                yield Piece(extent, piece.timeline.num_segments, extractor.prepare(piece), phase)
        finally:
            whole.close()

    def _cut(self, timeline: Timeline) -> list[range]:
        size = max(self._extractor.timeline.num_segments, _MIN_PIECE_SEGMENTS)
        return cut_into_pieces(timeline.num_segments, size)


class AtMost:
    """Decodes files of at most the length of the timeline; the rest of longer ones is not used.

    Args:
        extractor: An extractor with the timeline of the data set.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    def prepare(self, media: bytes) -> tuple[int, Any]:
        """Decode a file; return its number of segments, and the input of `Extractor.embed`.

        Raises:
            MediaError: The file cannot be used, or is shorter than half a segment.
        """
        timeline, header = self._extractor.timeline, read_header(media)
        ends_s = [_end_s(header.video) or 0.0, _end_s(header.audio) or 0.0]
        if min(ends_s) >= timeline.duration_s:  # what comes after the timeline may be damaged
            return timeline.num_segments, self._extractor.prepare(media)
        extent = extent_of(media, timeline.segment_s)
        num_segments = min(extent.num_segments, timeline.num_segments)
        shorter = replace(timeline, num_segments=num_segments)
        return num_segments, self._extractor.with_timeline(shorter).prepare(media)


@dataclass(frozen=True, slots=True)
class AtMostRecipe:
    """A picklable factory of `AtMost`."""

    make_extractor: Callable[[], Extractor]

    def __call__(self) -> AtMost:
        """Create one."""
        return AtMost(self.make_extractor())


@dataclass(frozen=True, slots=True)
class AnyLengthRecipe:
    """A picklable factory of `AnyLength`."""

    extractor: ExtractorRecipe
    num_phases: int = 1

    def __call__(self) -> AnyLength:
        """Create one."""
        return AnyLength(self.extractor(), self.num_phases)


def extent_of(media: bytes | MediaFile, segment_s: float) -> Extent:
    """Count the segments of a media file up to the end of its shorter track.

    A last segment counts if at least half of it is there, as in extraction.

    Raises:
        MediaError: The file is shorter than that, lacks a track, or ends before its header says.
    """
    header = read_header(media)
    ends_s = _promised_ends(media, header, segment_s) or _packet_ends(media, header, segment_s)
    shorter = min(ends_s, key=lambda kind: ends_s[kind])
    end_s, whole_s = ends_s[shorter], max(ends_s.values())
    num_segments = math.floor(end_s / segment_s + MAX_MISSING_SEGMENTS)
    if num_segments < 1:
        raise MediaError(f"too short: {end_s:.2f} s of {shorter}, but a segment is {segment_s:g} s")
    lost_s = whole_s - num_segments * segment_s
    note = f"its {shorter} ends at {end_s:.2f} s of {whole_s:.2f} s" if lost_s > segment_s else ""
    return Extent(num_segments, note, end_s)


def _promised_ends(
    media: bytes | MediaFile, header: HeaderFacts, segment_s: float
) -> dict[str, float] | None:
    """Return the ends of both tracks by the header, if the last packets confirm them."""
    video_s, audio_s = _end_s(header.video), _end_s(header.audio)
    if video_s is None or audio_s is None:
        return None
    promised_s = {"video": video_s, "audio": audio_s}
    found_s = last_packet_ends(media, promised_s)
    missing_s = MAX_MISSING_SEGMENTS * segment_s
    is_whole = all(
        end_s - found_s.get(kind, 0.0) <= missing_s for kind, end_s in promised_s.items()
    )
    return promised_s if is_whole else None


def _packet_ends(
    media: bytes | MediaFile, header: HeaderFacts, segment_s: float
) -> dict[str, float]:
    """Read all packets; return the ends of both tracks.

    Raises:
        MediaError: The file lacks a track, or ends before its header says.
    """
    packet_end_s = packet_ends(media)
    ends_s: dict[str, float] = {}
    for kind, track in (("video", header.video), ("audio", header.audio)):
        found_s, promised_s = packet_end_s.get(kind, 0.0), _end_s(track)
        ends_s[kind] = promised_s or found_s
        if promised_s is None or not found_s:
            continue
        if promised_s - found_s > MAX_MISSING_SEGMENTS * segment_s:
            raise MediaError(
                f"cut off: the header promises {kind} until {promised_s:.2f} s, but it ends at "
                f"{found_s:.2f} s; fetch it again, or keep the part that is there: "
                "ffmpeg -i IN -c copy OUT.mp4"
            )
    return ends_s


def _end_s(track: TrackFacts | None) -> float | None:
    if track is None or track.duration_s is None:
        return None
    return (track.start_s or 0.0) + track.duration_s
