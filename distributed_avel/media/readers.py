"""Readers of frames, in the order and with the times of the presentation timeline.

`PyavReader` reads all files that FFmpeg can decode. `DecordReader` (`decord_reader.py`) reads
files for which the properties of the container guarantee the same frames. Both use the same
scaling filter and return the same pixels.

Shape suffixes used in this file:
    H, W = height and width of a frame    3 = red, green, blue
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from distributed_avel.media.container import MediaContent, open_media
from distributed_avel.media.facts import UPRIGHT, display_matrix


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and its presentation time.

    Args:
        start_s: Start on the presentation timeline, in seconds.
        duration_s: Duration according to the container; None if it lacks it.
        picture: Returns the scaled pixels, (H, W, 3) uint8. It must be called before the iterator
            advances by two frames. Frames for which it is not called are not converted.
    """

    start_s: float
    duration_s: float | None
    picture: Callable[[], NDArray[np.uint8]]


class FrameReader(ABC):
    """Reads the frames of one file, scaled to a size."""

    name: ClassVar[str]

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Yield the presented frames from the start of the file, decoded on one thread.

        Raises:
            MediaError: Frames cannot be decoded.
        """


class PyavReader(FrameReader):
    """Decodes in order with PyAV, without frames that an edit list hides.

    Args:
        media: The file.
        size_hw: Height and width of the frames as displayed.
        zero_s: Time of the presentation timeline that is 0 in the times of the frames.
    """

    name = "pyav"

    def __init__(self, media: MediaContent, size_hw: tuple[int, int], zero_s: float = 0.0) -> None:
        self._media = media
        self._size_hw = size_hw
        self._zero_s = zero_s

    def frames(self) -> Iterator[Frame]:
        """See `FrameReader.frames`."""
        scale = _Scale(self._size_hw)
        with open_media(self._media) as media:
            media.video.codec_context.thread_count = 1
            base = media.video.time_base
            # AVI has no presentation times, and those that FFmpeg derives are not monotonic for
            # reordered frames. Decoding times are, because frames come in display order.
            has_times = media.container.format.name != "avi"
            for frame in media.container.decode(media.video):
                stamp = frame.pts if has_times and frame.pts is not None else frame.dts
                if stamp is None or base is None:
                    continue
                yield Frame(
                    float(stamp * base) - media.start_s - self._zero_s,
                    float(frame.duration * base) if frame.duration else None,
                    partial(scale, frame),
                )


class _Scale:
    """Converts frames to scaled RGB arrays as displayed, with FFmpeg's scale filter.

    The filter applies the colour matrix and range of the frame. decord uses the same bilinear mode,
    so the pixels are equal.
    """

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw
        self._kind: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Convert a frame, shape (H, W, 3)."""
        orientation = display_matrix(frame)
        kind = (frame.width, frame.height, frame.format.name)
        if self._graph is None or kind != self._kind:  # the size may change within a stream
            self._graph, self._kind = self._make_graph(frame, orientation), kind
        self._graph.push(frame)
        scaled = self._graph.pull()
        assert isinstance(scaled, VideoFrame)
        return turned(np.asarray(scaled.to_ndarray(), dtype=np.uint8), orientation)

    def _make_graph(
        self, frame: VideoFrame, orientation: tuple[int, int, int, int]
    ) -> av.filter.Graph:
        height, width = self._size_hw if orientation[0] else self._size_hw[::-1]
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        scale = graph.add("scale", f"{width}:{height}:flags=bilinear")
        graph.link_nodes(source, scale, graph.add("format", "rgb24"), graph.add("buffersink"))
        graph.configure()
        return graph


def turned(
    picture_HW3: NDArray[np.uint8], orientation: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Apply a display matrix (see `display_matrix`) to a stored frame."""
    if orientation == UPRIGHT:
        return picture_HW3
    a, b, c, d = orientation
    if a == 0:
        picture_HW3 = picture_HW3.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture_HW3[::d, ::a])
