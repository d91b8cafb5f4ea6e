"""The one clock: how seconds, segments and media samples relate.

Audio features and visual features must describe the same stretch of time, or
the model learns from pairs that never happened together. So no other module
converts units of time; they all ask a `Timeline`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Half of a segment is half of it, whatever binary fractions make of decimal ones.
_ROUNDING_S = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """A video of `num_segments` equal segments, each `segment_s` seconds long."""

    num_segments: int
    segment_s: float

    @property
    def duration_s(self) -> float:
        """Length of the whole timeline, in seconds."""
        return self.num_segments * self.segment_s

    def bounds_s(self, segment: int) -> tuple[float, float]:
        """Start and end of one segment, in seconds from the start of the video."""
        if not 0 <= segment < self.num_segments:
            raise IndexError(f"segment {segment} is outside 0..{self.num_segments - 1}")
        return segment * self.segment_s, (segment + 1) * self.segment_s

    def audio_span(self, segment: int, sample_rate_hz: int) -> slice:
        """Waveform samples of one segment. Adjacent spans share no sample and leave no gap."""
        start_s, end_s = self.bounds_s(segment)
        return slice(round(start_s * sample_rate_hz), round(end_s * sample_rate_hz))

    def frame_indices(self, segment: int, frames_in_video: int, per_segment: int) -> list[int]:
        """Indices of the sampled frames of one segment, as AVE's features were made.

        Args:
            segment: l, the segment.
            frames_in_video: Frames within the timeline; k = frames_in_video // num_segments.
            per_segment: Samples per segment, 16 in AVE; sample i is frame int(l k + i / 16 k).
        """
        self.bounds_s(segment)
        frames = frames_in_video // self.num_segments
        return [int(segment * frames + i / per_segment * frames) for i in range(per_segment)]

    def segments_of(self, spans: Iterable[tuple[float, float]]) -> list[int]:
        """Return the segments that an event has, from the spans (start, end) in seconds it lasts.

        A segment counts when the spans together cover at least half of it: an event that was
        annotated in two pieces is the same event. AVE's labels follow from its annotations in the
        same way: its spans are whole seconds, so that 2-5 is segments 2, 3 and 4.
        """
        covered_s = [0.0] * self.num_segments
        last_end_s = -math.inf
        for start_s, end_s in sorted(spans):
            start_s = max(start_s, last_end_s)  # what two spans cover counts once
            last_end_s = max(last_end_s, end_s)
            for segment in range(self.num_segments):
                segment_start_s, segment_end_s = self.bounds_s(segment)
                overlap_s = min(end_s, segment_end_s) - max(start_s, segment_start_s)
                covered_s[segment] += max(overlap_s, 0.0)
        half_s = self.segment_s / 2 - _ROUNDING_S
        return [segment for segment, seconds in enumerate(covered_s) if seconds >= half_s]
