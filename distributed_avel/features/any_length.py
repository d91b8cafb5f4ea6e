"""Decode media files of any length in a decoding process, for predictions.

A file has as many segments as its shorter track covers. Its length is that of the header, checked
against the packets: a file that was cut off has a header that promises more than there is.
"""

import math
from dataclasses import dataclass
from typing import Any

from distributed_avel.errors import MediaError
from distributed_avel.features.base import Extractor, ExtractorRecipe
from distributed_avel.media.container import MAX_MISSING_SEGMENTS
from distributed_avel.media.facts import TrackFacts, packet_ends, read_header
from distributed_avel.timeline import Timeline

MAX_DURATION_S = 1200.0
"""Longest file. All sampled frames of a file are in memory at once."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The part of a file that is predicted.

    Args:
        num_segments: Number of segments.
        note: What part of the file is left out, and why; empty if none is.
    """

    num_segments: int
    note: str


class AnyLength:
    """Decodes files of any length.

    Args:
        extractor: An extractor with the timeline of the training videos.
    """

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor

    def timeout_factor(self, media: bytes) -> float:
        """The length of a file in training videos, at least 1, by which its time limit grows."""
        duration_s = read_header(media).duration_s or MAX_DURATION_S
        return max(1.0, min(duration_s, MAX_DURATION_S) / self._extractor.timeline.duration_s)

    def prepare(self, media: bytes) -> tuple[Extent, Any]:
        """Decode a file; return its extent, and the input of `Extractor.embed`.

        Raises:
            MediaError: The file cannot be used, or is too long.
        """
        segment_s = self._extractor.timeline.segment_s
        extent = extent_of(media, segment_s)
        timeline = Timeline(num_segments=extent.num_segments, segment_s=segment_s)
        return extent, self._extractor.with_timeline(timeline).prepare(media)


@dataclass(frozen=True, slots=True)
class AnyLengthRecipe:
    """A picklable factory of `AnyLength`."""

    extractor: ExtractorRecipe

    def __call__(self) -> AnyLength:
        """Create one."""
        return AnyLength(self.extractor())


def extent_of(media: bytes, segment_s: float) -> Extent:
    """Count the segments of a media file up to the end of its shorter track.

    A last segment counts if at least half of it is there, as in extraction.

    Raises:
        MediaError: The file is shorter than that, longer than `MAX_DURATION_S`, lacks a track, or
            ends before its header says.
    """
    header = read_header(media)
    # Packets far beyond the limit are not read, so a file that is longer still ends after it.
    packet_end_s = packet_ends(media, until_s=MAX_DURATION_S + segment_s)
    ends_s: dict[str, float] = {}
    for kind, track in (("video", header.video), ("audio", header.audio)):
        found_s, promised_s = packet_end_s.get(kind, 0.0), _end_s(track)
        ends_s[kind] = promised_s or found_s
        if promised_s is None or not found_s or promised_s > MAX_DURATION_S:
            continue
        if promised_s - found_s > MAX_MISSING_SEGMENTS * segment_s:
            raise MediaError(
                f"cut off: the header promises {kind} until {promised_s:.2f} s, but it ends at "
                f"{found_s:.2f} s; fetch it again, or keep the part that is there: "
                "ffmpeg -i IN -c copy OUT.mp4"
            )
    shorter = min(ends_s, key=lambda kind: ends_s[kind])
    end_s, whole_s = ends_s[shorter], max(ends_s.values())
    if end_s > MAX_DURATION_S:
        raise MediaError(
            f"more than {MAX_DURATION_S:.0f} s long, which is the limit; cut it: "
            "ffmpeg -i IN -f segment -segment_time 600 -reset_timestamps 1 -c copy PART%03d.mp4"
        )
    num_segments = math.floor(end_s / segment_s + MAX_MISSING_SEGMENTS)
    if num_segments < 1:
        raise MediaError(f"too short: {end_s:.2f} s of {shorter}, but a segment is {segment_s:g} s")
    lost_s = whole_s - num_segments * segment_s
    note = f"its {shorter} ends at {end_s:.2f} s of {whole_s:.2f} s" if lost_s > segment_s else ""
    return Extent(num_segments, note)


def _end_s(track: TrackFacts | None) -> float | None:
    if track is None or track.duration_s is None:
        return None
    return (track.start_s or 0.0) + track.duration_s
