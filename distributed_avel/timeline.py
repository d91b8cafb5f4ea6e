"""The one clock: how seconds, segments and media samples relate.

Audio features and visual features must describe the same stretch of time, or
the model learns from pairs that never happened together. So no other module
converts units of time; they all ask a `Timeline`.
"""

from dataclasses import dataclass


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

    def segments_of(self, start_s: float, end_s: float) -> range:
        """Segments that a span covers, the way AVE's segment labels follow from its annotations.

        A segment counts when the span covers at least half of it; AVE's spans are
        whole seconds, so that there the span 2-5 is segments 2, 3 and 4.
        """
        half_s = self.segment_s / 2
        covered = [
            segment
            for segment in range(self.num_segments)
            if min(end_s, (segment + 1) * self.segment_s) - max(start_s, segment * self.segment_s)
            >= half_s
        ]
        return range(covered[0], covered[-1] + 1) if covered else range(0)
