"""Readers of pictures: frames in the order and at the times of the presentation timeline.

`PyavReader` reads everything that FFmpeg decodes. `DecordReader` (`decord_reader.py`) reads the
files for which the container's facts prove that it gives the same frames. Both scale with the
same filter, so they give the same pixels too.

Shape suffixes used in this file:
    H, W = height and width of a picture    3 = red, green, blue
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

from distributed_avel.media.container import open_media
from distributed_avel.media.facts import UPRIGHT, display_matrix


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that is presented at `start_s` (s, on the presentation timeline).

    Args:
        duration_s: How long the container says it lasts; None where it does not say.
        picture: Returns the scaled picture, (H, W, 3) uint8. Call it before the next frame but
            one is asked for; a frame whose picture is not asked for is not converted.
    """

    start_s: float
    duration_s: float | None
    picture: Callable[[], NDArray[np.uint8]]


class FrameReader(ABC):
    """Reads the frames of one file, scaled to `size_hw`.

    Args:
        media: The whole file.
        size_hw: Height and width of the pictures as they are displayed.
    """

    name: ClassVar[str]

    def __init__(self, media: bytes, size_hw: tuple[int, int]) -> None:
        self._media = media
        self._size_hw = size_hw

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """Presented frames in the order of the file, from its beginning, on one thread.

        Raises:
            MediaError: From the iterator, where pictures cannot be decoded.
        """


class PyavReader(FrameReader):
    """Decodes in order with PyAV. Frames that an edit list hides do not appear."""

    name = "pyav"

    def frames(self) -> Iterator[Frame]:
        """See `FrameReader.frames`."""
        scale = _Scale(self._size_hw)
        with open_media(self._media) as media:
            media.video.codec_context.thread_count = 1
            base = media.video.time_base
            # AVI stores no presentation times: those that FFmpeg derives go back and forth where
            # frames are reordered, so the decoding times, in the order of display, count.
            has_times = media.container.format.name != "avi"
            for frame in media.container.decode(media.video):
                stamp = frame.pts if has_times and frame.pts is not None else frame.dts
                if stamp is None or base is None:
                    continue
                yield Frame(
                    float(stamp * base) - media.start_s,
                    float(frame.duration * base) if frame.duration else None,
                    partial(scale, frame),
                )


class _Scale:
    """Scale frames to RGB pictures as they are displayed, with FFmpeg's scale filter.

    The filter honours the frame's colour matrix and range. Its bilinear mode is what decord
    uses, so the pixels are the same.
    """

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw
        self._kind: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The picture of a frame, (H, W, 3)."""
        orientation = display_matrix(frame)
        kind = (frame.width, frame.height, frame.format.name)
        if self._graph is None or kind != self._kind:  # some streams change size half way
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
    """Apply a display matrix, see `display_matrix`, to a stored picture."""
    if orientation == UPRIGHT:
        return picture_HW3
    a, b, c, d = orientation
    if a == 0:
        picture_HW3 = picture_HW3.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture_HW3[::d, ::a])
