"""Opening a media file: what is wrong with it is said here, once for video and audio."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.container
import av.error

from distributed_avel.errors import MediaError


@contextmanager
def open_media(media: bytes) -> Iterator[av.container.InputContainer]:
    """An open media file that has both a video and an audio stream.

    Errors of FFmpeg inside the `with` block become `MediaError` too.

    Raises:
        MediaError: The file is empty, not a media file, or lacks one of the streams.
    """
    if not media:
        raise MediaError("the file is empty (0 bytes); fetch it again")
    try:
        container = av.open(io.BytesIO(media), "r")
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise MediaError(
            f"not a media file, or cut off before its index ({_reason(error)}); fetch it again"
        ) from None
    with container:
        for kind, streams in (
            ("video", container.streams.video),
            ("audio", container.streams.audio),
        ):
            if not streams:
                raise MediaError(f"no {kind} stream; an event must be both seen and heard")
        try:
            yield container
        except av.error.FFmpegError as error:
            raise MediaError(
                f"damaged: decoding failed ({_reason(error)}); fetch it again"
            ) from None


def _reason(error: Exception) -> str:
    """What FFmpeg says, without the number and the name that a file in memory does not have."""
    return getattr(error, "strerror", None) or str(error)
