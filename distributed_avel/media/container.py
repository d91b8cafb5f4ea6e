"""Opening a media file: which streams are used, where its time starts, and why it is refused.

The presentation timeline is FFmpeg's: edit lists and codec delays applied, time 0 at the
container's own start (`start_time`), which pictures and sound share. Both are read against it,
so they can never drift apart.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal, TypeVar

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from distributed_avel.errors import MediaError

CONVERT = "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p -c:a aac OUT.mp4"
"""A command that turns any file which FFmpeg reads into one that every reader here decodes."""

MAX_MISSING_SEGMENTS = 0.5
"""Part of a stream that may be missing, in segments. Containers round durations, and a cut at a
packet loses a little; more than that would leave a segment without evidence."""

_MICROSECOND = 1e-6
_AnyStream = TypeVar("_AnyStream", VideoStream, AudioStream)


@dataclass(frozen=True, slots=True)
class Media:
    """An open media file and the two streams that are used.

    `start_s` is where its presentation timeline starts, in seconds of its own time stamps:
    1.4 s in most MPEG transport streams, 0 in most other files.
    """

    container: InputContainer
    video: VideoStream
    audio: AudioStream
    start_s: float


@contextmanager
def open_media(media: bytes | IO[bytes]) -> Iterator[Media]:
    """Open a media file that has both pictures and sound.

    FFmpeg's errors inside the `with` block become `MediaError` too.

    Args:
        media: The whole file, or a seekable binary file.

    Raises:
        MediaError: The file is empty, not a media file, lacks one of the streams, or has one in
            a codec without a decoder.
    """
    with open_container(media) as container:
        video, audio = video_stream(container), audio_stream(container)
        for kind, stream in (("video", video), ("audio", audio)):
            if stream is None:
                cover = (
                    " but a cover picture" if kind == "video" and container.streams.video else ""
                )
                raise MediaError(f"no {kind} stream{cover}; an event must be both seen and heard")
            if stream.codec_context is None:
                raise no_decoder(kind, "an unknown codec")
        assert video is not None
        assert audio is not None
        try:
            yield Media(container, video, audio, start_s(container))
        except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
            codecs = f"{video.codec_context.name} and {audio.codec_context.name}"
            raise no_decoder("media", f"{codecs} ({_reason(error)})") from None
        except av.error.FFmpegError as error:
            raise MediaError(
                f"damaged: decoding failed ({_reason(error)}); fetch it again, or keep what can be "
                f"decoded: {CONVERT}"
            ) from None


@contextmanager
def open_container(media: bytes | IO[bytes]) -> Iterator[InputContainer]:
    """Open a file that FFmpeg recognizes, whatever streams it has.

    Raises:
        MediaError: The file is empty or not a media file.
    """
    if isinstance(media, bytes):
        if not media:
            raise MediaError("the file is empty (0 bytes); fetch it again")
        media = io.BytesIO(media)
    try:
        container = av.open(media, "r", metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise MediaError(
            f"not a media file, or cut off before its index ({_reason(error)}); fetch it again"
        ) from None
    with container:
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The video track that a player shows: the default one, then the first; never a cover."""
    pictures = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    return _default(pictures)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The audio track that a player plays: the default one, then the one with most channels.

    That is what the `ffmpeg` command chooses too.
    """
    tracks = list(container.streams.audio)
    tracks.sort(key=lambda track: -(track.codec_context.channels if track.codec_context else 0))
    return _default(tracks)


def start_s(container: InputContainer) -> float:
    """Where the presentation timeline starts, in seconds of the file's own time stamps."""
    if container.start_time is not None:
        return container.start_time * _MICROSECOND
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=0.0)


def no_decoder(kind: Literal["video", "audio", "media"] | str, codec: str) -> MediaError:
    """The error for a codec that cannot be decoded."""
    return MediaError(f"no decoder for the {kind} codec: {codec}; convert the file: {CONVERT}")


def _default(streams: Sequence[_AnyStream]) -> _AnyStream | None:
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter(marked or streams), None)


def _reason(error: Exception) -> str:
    """FFmpeg's message, without the number and the name that a file in memory does not have."""
    return getattr(error, "strerror", None) or str(error)
