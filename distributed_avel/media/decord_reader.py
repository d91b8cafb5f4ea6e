"""Read frames in order with decord, for files of which decord returns the correct frames.

decord numbers the packets of a file and ignores edit lists, time stamps and hidden frames. Access
by index returns wrong frames after an open group of pictures or an intra refresh. Read in order,
its k-th frame is the k-th presented frame unless `why_not` returns a reason. Times come from the
container, never from decord.

Shape suffixes used in this file:
    H, W = height and width of a frame    3 = red, green, blue
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import MediaError
from distributed_avel.media.facts import UPRIGHT, PictureFacts
from distributed_avel.media.readers import Frame, FrameReader

_CODECS = {"h264", "hevc", "vp9", "libvpx-vp9"}
_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_PIXEL_FORMATS = {"yuv420p", "yuvj420p"}


def why_not(facts: PictureFacts, size_hw: tuple[int, int]) -> str | None:
    """Return why decord may return other frames than the container presents, or None.

    Args:
        facts: Properties of the file.
        size_hw: Height and width to which frames are scaled.
    """
    if find_spec("decord") is None:
        return "decord is not installed (there is no wheel for this platform)"
    height, width = size_hw
    reasons = (
        (
            height == facts.size_hw[0] and width != facts.size_hw[1],
            "it scales chroma differently if only the width changes",
        ),
        (facts.container not in _CONTAINERS, f"the container is {facts.container}"),
        (facts.codec not in _CODECS, f"the codec is {facts.codec}"),
        (facts.num_tracks != 1, f"there are {facts.num_tracks} video tracks"),
        (facts.num_hidden > 0, f"an edit list hides {facts.num_hidden} frames"),
        (facts.num_without_time > 0, f"{facts.num_without_time} packets have no time"),
        (not facts.starts_plainly, "the first frame does not start a group of pictures"),
        (len({*facts.times_s}) < len(facts.times_s), "two frames have the same time"),
        (facts.orientation != UPRIGHT, "frames are rotated or mirrored"),
        (facts.interlaced, "frames are interlaced"),
        (facts.pixel_format not in _PIXEL_FORMATS, f"the pixel format is {facts.pixel_format}"),
        (not facts.is_whole, "the file is much longer than the timeline, and decord reads all"),
    )
    return next((reason for applies, reason in reasons if applies), None)


class FramesDifferError(Exception):
    """decord counts a different number of frames than the container has."""


class DecordReader(FrameReader):
    """Decodes in order with decord; only for files of which `why_not` returns None.

    Args:
        media: Content of the file.
        size_hw: Height and width of the frames as displayed.
        facts: Properties of the file.

    Raises:
        MediaError: decord cannot open the file.
        FramesDifferError: decord counts a different number of frames than the container has.
    """

    name = "decord"

    def __init__(self, media: bytes, size_hw: tuple[int, int], facts: PictureFacts) -> None:
        self._media = media
        self._size_hw = size_hw
        self._facts = facts
        self._unread = self._open()  # the first iteration can use this reader
        if len(self._unread) != len(facts.times_s):
            raise FramesDifferError(
                f"decord counts {len(self._unread)} frames and the container {len(facts.times_s)}"
            )

    def frames(self) -> Iterator[Frame]:
        """See `FrameReader.frames`."""
        reader, self._unread = self._unread or self._open(), None
        position = 0

        def picture(index: int) -> NDArray[np.uint8]:
            nonlocal position
            with _decord_errors():
                for _ in range(index - position):  # skip_frames() miscounts after open groups
                    reader.next()
                position = index + 1
                return self._without_padding(reader.next().asnumpy())

        starts_s = self._facts.times_s
        ends_s = (*starts_s[1:], self._facts.end_s)
        for index, (start_s, end_s) in enumerate(zip(starts_s, ends_s, strict=True)):
            yield Frame(start_s, end_s - start_s, partial(picture, index))

    def _without_padding(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Remove the padding of rows, shape (H, W, 3).

        FFmpeg pads the rows of a frame. If the padded length is a multiple of the width, decord
        returns the padding as additional channels, such as (16, 16, 6) for 16 x 16 pixels.
        """
        height, width = self._size_hw
        rows = picture.reshape(height, -1)[:, : 3 * width]
        return rows.reshape(height, width, 3)

    def _open(self) -> Any:
        import decord

        decord.logging.set_level(decord.logging.FATAL)  # exceptions have the same information
        height, width = self._size_hw
        with _decord_errors():
            file = io.BytesIO(self._media)
            return decord.VideoReader(file, decord.cpu(0), width, height, num_threads=1)


@contextmanager
def _decord_errors() -> Iterator[None]:
    """Raise decord's errors as `MediaError`, without time, source line and stack."""
    import decord

    try:
        yield
    except (decord.DECORDError, RuntimeError, StopIteration) as error:
        text = str(error).split("Stack trace")[0]
        words = " ".join(re.sub(r"\[[\d:]+\] \S+?:\d+: ", "", text).split())
        reason = words[:200] or type(error).__name__
        raise MediaError(f"damaged: frames cannot be decoded ({reason})") from None
