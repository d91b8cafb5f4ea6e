"""Key frames of a media file, found by seeking: pictures of a long file without decoding it all.

Shape suffixes used in this file:
    H, W = height and width of a frame    3 = red, green, blue
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from distributed_avel.errors import MediaError
from distributed_avel.media.container import MediaContent, open_media
from distributed_avel.media.facts import display_matrix
from distributed_avel.media.readers import turned

_MICROSECONDS = 1_000_000


def key_frames(
    media: MediaContent, times_s: Iterable[float], height: int
) -> list[NDArray[np.uint8]]:
    """Decode, for each time, the last key frame before it.

    Encoders write a key frame every few seconds. Use `media.video.sample_frames` for the frame that
    is on display at a time.

    Args:
        media: The file.
        times_s: Times on the presentation timeline, in seconds.
        height: Height of the frames as stored; the aspect ratio of the pixels is kept.

    Returns:
        One frame per time, (H, W, 3), uint8, as displayed.

    Raises:
        MediaError: The file cannot be decoded, or has no key frame there.
    """
    pictures = []
    with open_media(media) as opened:
        opened.video.codec_context.thread_count = 1
        for time_s in times_s:
            opened.container.seek(round((time_s + opened.start_s) * _MICROSECONDS))
            frame = next(opened.container.decode(opened.video), None)
            if frame is None:
                raise MediaError(f"no frame at {time_s:.2f} s")
            width = max(1, round(frame.width * height / frame.height))
            stored_HW3 = frame.to_ndarray(format="rgb24", width=width, height=height)
            pictures.append(turned(np.asarray(stored_HW3, dtype=np.uint8), display_matrix(frame)))
    return pictures
