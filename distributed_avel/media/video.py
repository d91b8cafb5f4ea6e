"""Sample the frames of a media file, segment by segment.

Sample i of segment l is the frame on display at (l + i / S) segments on the presentation timeline,
with S samples per segment. AVE's published features were sampled by frame count instead;
`sampling="published"` does the same (see `Timeline.frame_indices`). It drifts if the frame rate is
not a multiple of the segment rate, so use it only to reproduce these features.

Frames are decoded in order on one thread; to use more cores, decode several files in parallel.

Shape suffixes used in this file:
    F = distinct sampled frames    T = segments    S = samples per segment
    H, W = height and width of a frame    3 = red, green, blue    N = all frames of the file
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import ReaderName, Sampling
from distributed_avel.errors import MediaError
from distributed_avel.media.container import CONVERT, MAX_MISSING_SEGMENTS, open_media
from distributed_avel.media.decord_reader import DecordReader, FramesDifferError, why_not
from distributed_avel.media.facts import PictureFacts, picture_facts
from distributed_avel.media.pieces import MediaPiece, PiecewiseMedia
from distributed_avel.media.readers import Frame, FrameReader, PyavReader
from distributed_avel.timeline import Timeline

_TICK_S = 1e-4
"""Times that differ by less are equal, because containers round to microseconds or coarser."""

_END_ROUNDING_S = 2e-3
"""Error of the end of a frame: Matroska rounds its start and its duration to milliseconds."""

# In these containers, a gap between two frames is a loss, because broadcasts have a constant rate.
# In others, a frame is on display until the next one.
_CONSTANT_RATE = {"mpegts", "mpeg"}


@dataclass(frozen=True, slots=True)
class SampledFrames:
    """The sampled frames of a video; each distinct frame is stored once.

    Args:
        frames_FHW3: Distinct frames, uint8.
        index_TS: Index into `frames_FHW3` of sample s of segment t.
        times_F: Presentation time of each frame in seconds, ascending.
        reader: Name of the reader that decoded them.
    """

    frames_FHW3: NDArray[np.uint8]
    index_TS: NDArray[np.intp]
    times_F: NDArray[np.float64]
    reader: str

    def segment(self, segment: int) -> NDArray[np.uint8]:
        """Return all samples of one segment, shape (S, H, W, 3)."""
        return self.frames_FHW3[self.index_TS[segment]]


def sample_frames(
    media: bytes | MediaPiece,
    timeline: Timeline,
    per_segment: int,
    size_hw: tuple[int, int] | int | None = None,
    *,
    sampling: Sampling = "time",
    reader: ReaderName = "auto",
) -> SampledFrames:
    """Decode `per_segment` frames of each segment of the timeline.

    Args:
        media: Content of the file, or a piece of it, which PyAV decodes.
        timeline: Segments of the file or of the piece.
        per_segment: S, samples per segment.
        size_hw: Height and width to which frames are scaled, without a crop. A single number is the
            length of the shorter side, with the aspect ratio kept; None keeps the size.
        sampling: "time": by presentation time; "published": by frame count, as AVE's features.
        reader: "auto" uses decord if it provably returns the same frames as PyAV.

    Raises:
        MediaError: The frames do not cover the timeline; the message gives the reason.
    """
    if isinstance(media, MediaPiece):
        return media.decode(
            ("frames", per_segment, size_hw, sampling),
            lambda whole: _sample_pieces(whole, per_segment, size_hw, sampling),
        )
    with open_media(media) as opened:
        facts = picture_facts(opened, timeline.duration_s)
    frames = open_reader(media, facts, _size(facts, size_hw), reader)
    pieces = [range(timeline.num_segments)]
    max_missing_s = MAX_MISSING_SEGMENTS * timeline.segment_s

    def covering() -> Iterator[Frame]:
        return _covering(frames.frames(), timeline, facts.container, max_missing_s)

    displayed = _displayed(covering, timeline, per_segment, sampling)
    return next(_grouped(displayed, pieces, per_segment, frames.name))


def _sample_pieces(
    whole: PiecewiseMedia,
    per_segment: int,
    size_hw: tuple[int, int] | int | None,
    sampling: Sampling,
) -> Generator[SampledFrames, None, None]:
    """Yield the sampled frames of each piece of a file; each decoder and frame is held once."""
    with open_media(whole.media) as opened:
        facts = picture_facts(opened, until_s=0.0)
    frames = PyavReader(whole.media, _size(facts, size_hw), whole.start_s)

    def covering() -> Iterator[Frame]:
        return _covering(frames.frames(), whole.timeline, facts.container, whole.max_missing_s)

    displayed = _displayed(covering, whole.timeline, per_segment, sampling)
    yield from _grouped(displayed, whole.pieces, per_segment, frames.name)


def _displayed(
    covering: Callable[[], Iterator[Frame]],
    timeline: Timeline,
    per_segment: int,
    sampling: Sampling,
) -> Iterator[tuple[Frame, int]]:
    """Yield the sampled frames in order, each with its number of samples.

    Args:
        covering: Decodes the frames from the start of the file, see `_covering`.

    Raises:
        MediaError: The frames do not cover the timeline. It is raised at the end, too.
    """
    if sampling == "time":
        steps_s = sample_times(timeline, per_segment).ravel()
        yield from on_display(covering(), steps_s)
        return
    num_frames = sum(1 for _ in covering())
    index_TS = [
        timeline.frame_indices(segment, num_frames, per_segment)
        for segment in range(timeline.num_segments)
    ]
    count_of = dict(zip(*np.unique(np.array(index_TS), return_counts=True), strict=True))
    for number, frame in enumerate(covering()):
        if count := count_of.get(number):
            yield frame, int(count)


def _grouped(
    displayed: Iterator[tuple[Frame, int]],
    pieces: Sequence[range],
    per_segment: int,
    reader: str,
) -> Generator[SampledFrames, None, None]:
    """Group sampled frames by piece; the last piece is yielded after all frames were checked."""
    waiting = iter(pieces)
    segments = next(waiting)
    index: list[int] = []
    kept: list[tuple[float, NDArray[np.uint8]]] = []

    def group() -> SampledFrames:
        return SampledFrames(
            np.stack([picture_HW3 for _, picture_HW3 in kept]),
            np.reshape(index, (len(segments), per_segment)).astype(np.intp),
            np.array([start_s for start_s, _ in kept]),
            reader,
        )

    for frame, count in displayed:
        picture_HW3 = frame.picture()
        while count:
            if len(index) == len(segments) * per_segment:
                yield group()
                segments, index, kept = next(waiting), [], []
            used = min(count, len(segments) * per_segment - len(index))
            index += [len(kept)] * used
            kept.append((frame.start_s, picture_HW3))
            count -= used
    yield group()


def sample_times(timeline: Timeline, per_segment: int) -> NDArray[np.float64]:
    """Return the times of the samples on the presentation timeline, in seconds, shape (T, S)."""
    steps = np.arange(timeline.num_segments * per_segment) / per_segment * timeline.segment_s
    return steps.reshape(timeline.num_segments, per_segment)


def on_display(
    frames: Iterator[Frame], steps_s: Sequence[float] | NDArray[np.floating]
) -> Iterator[tuple[Frame, int]]:
    """Yield the frames on display at given times, each with the number of these times.

    A frame is on display until the next one starts. The first frame is also on display before it
    starts, and the last one after it ends.

    Args:
        frames: Frames in the order of their times, at least one.
        steps_s: Times in ascending order, in seconds.
    """
    current, at = next(frames), 0
    for following in frames:
        first_at = at
        while at < len(steps_s) and steps_s[at] < following.start_s - _TICK_S:
            at += 1
        if at > first_at:
            yield current, at - first_at
        current = following
    if at < len(steps_s):
        yield current, len(steps_s) - at


def open_reader(
    media: bytes, facts: PictureFacts, size_hw: tuple[int, int], name: ReaderName
) -> FrameReader:
    """Choose the reader of a file.

    Raises:
        MediaError: decord is requested but may return other frames; the message says why.
    """
    if name == "pyav":
        return PyavReader(media, size_hw)
    reason = why_not(facts, size_hw)
    if reason is None:
        try:
            return DecordReader(media, size_hw, facts)
        except FramesDifferError as error:
            reason = str(error)
        except MediaError:  # such as a header without a length, which decord needs
            if name == "decord":
                raise
            return PyavReader(media, size_hw)
    if name == "decord":
        raise MediaError(f"decord may return other frames: {reason}; set extract.reader to auto")
    return PyavReader(media, size_hw)


def _covering(
    frames: Iterator[Frame], timeline: Timeline, container: str, max_missing_s: float
) -> Iterator[Frame]:
    """Yield the frames that start within the timeline, and check that they cover it.

    Args:
        max_missing_s: What may be missing at the end.

    Raises:
        MediaError: Frames are missing for more than half a segment, or there are too few.
    """
    missing_s = MAX_MISSING_SEGMENTS * timeline.segment_s
    count, last, end_s = 0, None, 0.0
    for frame in frames:
        if last is not None and frame.start_s <= last.start_s:
            if last.start_s - frame.start_s > missing_s:
                raise MediaError(
                    f"time stamps jump back from {last.start_s:.2f} s to {frame.start_s:.2f} s, as "
                    f"in a file that was joined from several; convert it: {CONVERT}"
                )
            continue
        if last is None and frame.start_s > missing_s:
            raise _missing(0.0, min(frame.start_s, timeline.duration_s))
        if last and container in _CONSTANT_RATE and frame.start_s - end_s > missing_s:
            raise _missing(end_s, frame.start_s)
        if frame.start_s >= timeline.duration_s - _TICK_S:
            end_s = timeline.duration_s
            break
        count, last = count + 1, frame
        end_s = frame.start_s + (frame.duration_s or 0.0)
        yield frame
    if count < timeline.num_segments:
        raise MediaError(
            f"{count} frame(s) in the first {timeline.duration_s:g} s; at least "
            f"{timeline.num_segments} are needed, one per segment"
        )
    if timeline.duration_s - end_s > max_missing_s + _END_ROUNDING_S:
        raise MediaError(
            f"too short: frames from 0.00 s to {end_s:.2f} s, but {timeline.duration_s:g} s are "
            "needed; use a longer file, or train with a smaller data.num_segments"
        )


def _missing(from_s: float, to_s: float) -> MediaError:
    return MediaError(
        f"no frames from {from_s:.2f} s to {to_s:.2f} s of the file's timeline, while the audio "
        "continues; cut the clip again and encode it: "
        "ffmpeg -ss START -i IN -t SECONDS -c:v libx264 -c:a aac OUT.mp4"
    )


def _size(facts: PictureFacts, size_hw: tuple[int, int] | int | None) -> tuple[int, int]:
    """Return height and width of the scaled frames."""
    height, width = facts.size_hw
    if not height or not width:
        raise MediaError("damaged: no frame can be decoded; fetch it again")
    if isinstance(size_hw, int):
        scale = size_hw / min(height, width)
        return max(size_hw, int(height * scale)), max(size_hw, int(width * scale))
    return size_hw or (height, width)
