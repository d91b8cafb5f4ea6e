"""The pictures of a media file, sampled segment by segment as AVE's features were made.

decord decodes, because it seeks exactly and scales while it decodes: a picture in its
original size is never held. It works on one thread; whoever wants more cores decodes more
files at once.

Shape suffixes used in this file:
    F = distinct sampled frames    T = segments    S = samples per segment
    H, W = height and width of a picture    3 = red, green, blue
    N = all frames of the file
"""

import io
import re
from dataclasses import dataclass

import decord
import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import MediaError
from distributed_avel.media.container import open_media
from distributed_avel.timeline import Timeline

decord.logging.set_level(decord.logging.FATAL)  # what matters is in the exception

# What may lack at the end of a stream, in segments. Containers round durations, and a cut
# at a packet loses a little; more than that would leave a segment without evidence.
MAX_MISSING_SEGMENTS = 0.5


@dataclass(frozen=True, slots=True)
class SampledFrames:
    """The sampled frames of a video, each distinct frame held once.

    `index_TS[t, s]` is the place in `frames_FHW3` (uint8) of sample s of segment t.
    """

    frames_FHW3: NDArray[np.uint8]
    index_TS: NDArray[np.intp]

    def segment(self, segment: int) -> NDArray[np.uint8]:
        """All samples of one segment, shape (S, H, W, 3)."""
        return self.frames_FHW3[self.index_TS[segment]]


def sample_frames(
    media: bytes,
    timeline: Timeline,
    per_segment: int,
    size_hw: tuple[int, int] | int | None = None,
) -> SampledFrames:
    """Decode `per_segment` frames of each segment of the timeline.

    Args:
        size_hw: Height and width to which pictures are scaled, without a crop. One number is
            the length of the shorter side, and pictures keep their shape; None keeps them.

    Raises:
        MediaError: The file has no usable pictures for the whole timeline; says why.
    """
    with open_media(media):
        pass
    try:
        height, width = _size(media, size_hw) if isinstance(size_hw, int) else size_hw or (-1, -1)
        reader = decord.VideoReader(
            io.BytesIO(media), ctx=decord.cpu(0), width=width, height=height, num_threads=1
        )
        num_frames = len(reader)
        times_N = reader.get_frame_timestamp(range(num_frames)) if num_frames else np.zeros((0, 2))
        index_TS = sample_indices(times_N[:, 0], times_N[:, 1], timeline, per_segment)
        wanted_F, place = np.unique(index_TS, return_inverse=True)
        frames_FHW3 = reader.get_batch(wanted_F).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(f"damaged: pictures cannot be decoded ({_reason(error)})") from None
    return SampledFrames(frames_FHW3, place.reshape(index_TS.shape))


def sample_indices(
    start_s_N: NDArray[np.floating],
    end_s_N: NDArray[np.floating],
    timeline: Timeline,
    per_segment: int,
) -> NDArray[np.intp]:
    """Which frames of a file are sampled, shape (T, S).

    Only frames that start within the timeline count: a minute-long file gives its
    beginning. Where frames follow each other evenly, sample i of segment l is frame
    int(l k + i / S k) with k frames a segment, as AVE's features were made. Where they do not
    (telephones, screen recordings), counting frames would tear picture and sound apart, and
    the sample is the frame on show at (l + i / S) segments.

    Args:
        start_s_N: When each frame appears, in seconds, ascending.
        end_s_N: When each frame disappears.

    Raises:
        MediaError: The frames do not cover the timeline, or there are too few.
    """
    if not (np.isfinite(start_s_N).all() and np.isfinite(end_s_N).all()):
        raise MediaError("damaged: frames without a time; fetch the file again")
    within = np.flatnonzero((start_s_N >= 0) & (start_s_N < timeline.duration_s))
    if len(within) < timeline.num_segments:
        raise MediaError(
            f"{len(within)} frame(s) in the first {timeline.duration_s:g} s; at least "
            f"{timeline.num_segments} are needed, one a segment"
        )
    start_s, end_s = start_s_N[within], end_s_N[within]
    missing_s = start_s[0] + timeline.duration_s - end_s[-1]
    if missing_s > MAX_MISSING_SEGMENTS * timeline.segment_s:
        raise MediaError(
            f"too short: pictures from {start_s[0]:.2f} s to {end_s[-1]:.2f} s, but "
            f"{timeline.duration_s:g} s are needed"
        )
    if _is_even(start_s, timeline):
        index = [
            timeline.frame_indices(segment, len(within), per_segment)
            for segment in range(timeline.num_segments)
        ]
        return within[np.array(index)]
    steps_TS = np.arange(timeline.num_segments * per_segment) / per_segment * timeline.segment_s
    on_show = np.searchsorted(start_s, steps_TS, side="right") - 1
    return within[np.maximum(on_show, 0).reshape(timeline.num_segments, per_segment)]


def _size(media: bytes, shorter_side: int) -> tuple[int, int]:
    """Height and width of the pictures, turned as they are shown, when scaled to that side."""
    reader = decord.VideoReader(io.BytesIO(media), ctx=decord.cpu(0), num_threads=1)
    if not len(reader):
        return shorter_side, shorter_side
    height, width, _ = reader[0].shape
    scale = shorter_side / min(height, width)
    return max(shorter_side, int(height * scale)), max(shorter_side, int(width * scale))


def _is_even(start_s: NDArray[np.floating], timeline: Timeline) -> bool:
    """Whether counting frames finds the right moment to within half a segment."""
    even_s = np.linspace(start_s[0], start_s[-1], len(start_s))
    return bool(np.abs(start_s - even_s).max() <= timeline.segment_s / 2)


def _reason(error: Exception) -> str:
    """What decord says, without its time, source line and stack."""
    text = str(error).split("Stack trace")[0]
    said = re.sub(r"\[[\d:]+\] \S+?:\d+: ", "", text).split()
    return " ".join(said)[:200] or type(error).__name__
