"""Conversions between seconds, segments, frames and samples.

The audio and the visual features of a segment must describe the same time span. All conversions
are therefore defined here, and other modules use a `Timeline`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Tolerance for decimal times that have no exact binary representation.
_ROUNDING_S = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """A video of `num_segments` segments of `segment_s` seconds."""

    num_segments: int
    segment_s: float

    @property
    def duration_s(self) -> float:
        """Length of the timeline, in seconds."""
        return self.num_segments * self.segment_s

    def bounds_s(self, segment: int) -> tuple[float, float]:
        """Return start and end of a segment, in seconds from the start of the video.

        Raises:
            IndexError: There is no such segment.
        """
        if not 0 <= segment < self.num_segments:
            raise IndexError(f"segment {segment} is outside 0..{self.num_segments - 1}")
        return segment * self.segment_s, (segment + 1) * self.segment_s

    def audio_span(self, segment: int, sample_rate_hz: int) -> slice:
        """Return the samples of a segment. Adjacent spans neither overlap nor leave a gap."""
        start_s, end_s = self.bounds_s(segment)
        return slice(round(start_s * sample_rate_hz), round(end_s * sample_rate_hz))

    def frame_indices(self, segment: int, frames_in_video: int, per_segment: int) -> list[int]:
        """Return the indices of the sampled frames of a segment, as in AVE's published features.

        Sample i of segment l is frame int(l k + i / S k), with k = F // T frames per segment.

        Args:
            segment: l.
            frames_in_video: F, the number of frames within the timeline.
            per_segment: S, the number of samples per segment (16 for AVE).
        """
        self.bounds_s(segment)
        frames = frames_in_video // self.num_segments
        return [int(segment * frames + i / per_segment * frames) for i in range(per_segment)]

    def segments_of(self, spans: Iterable[tuple[float, float]]) -> list[int]:
        """Return the segments of an event from its spans (start, end), in seconds.

        A segment belongs to the event if all spans together cover at least half of it. For AVE,
        whose spans are whole seconds, this gives the published labels: 2-5 is segments 2, 3, 4.
        """
        covered_s = [0.0] * self.num_segments
        last_end_s = -math.inf
        for start_s, end_s in sorted(spans):
            start_s = max(start_s, last_end_s)  # count overlaps of spans once
            last_end_s = max(last_end_s, end_s)
            for segment in range(self.num_segments):
                segment_start_s, segment_end_s = self.bounds_s(segment)
                overlap_s = min(end_s, segment_end_s) - max(start_s, segment_start_s)
                covered_s[segment] += max(overlap_s, 0.0)
        half_s = self.segment_s / 2 - _ROUNDING_S
        return [segment for segment, seconds in enumerate(covered_s) if seconds >= half_s]
