"""Open media files: choice of the streams, start of the timeline, and reasons to refuse a file.

The presentation timeline is that of FFmpeg: edit lists and codec delays are applied, and time 0 is
the start of the container (`start_time`). Video and audio share it, so they cannot drift apart.
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
from distributed_avel.media.files import MediaFile

MediaContent = bytes | IO[bytes] | MediaFile
"""A media file: its content, a seekable binary file, or a file on disk."""

CONVERT = "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p -c:a aac OUT.mp4"
"""Command that converts any file FFmpeg can read to one that all readers here can decode."""

MAX_MISSING_SEGMENTS = 0.5
"""Part of a stream that may be missing, in segments. Containers round durations, and cutting at a
packet loses a little; if more is missing, a segment has no evidence."""

_MICROSECOND = 1e-6
_AnyStream = TypeVar("_AnyStream", VideoStream, AudioStream)


@dataclass(frozen=True, slots=True)
class Media:
    """An open media file with its video and audio stream.

    `start_s` is the start of the presentation timeline, in seconds of the file's own time stamps:
    1.4 s for most MPEG transport streams, 0 for most other files.
    """

    container: InputContainer
    video: VideoStream
    audio: AudioStream
    start_s: float


@contextmanager
def open_media(media: MediaContent) -> Iterator[Media]:
    """Open a media file that has both a video and an audio stream.

    FFmpeg's errors inside the `with` block are raised as `MediaError`, too.

    Args:
        media: The file.

    Raises:
        MediaError: The file is empty, not a media file, lacks a stream, or has a codec without a
            decoder.
    """
    with open_container(media) as container:
        video, audio = video_stream(container), audio_stream(container)
        for kind, stream in (("video", video), ("audio", audio)):
            if stream is None:
                cover = (
                    " but a cover picture" if kind == "video" and container.streams.video else ""
                )
                raise MediaError(
                    f"no {kind} stream{cover}; an event must be both visible and audible"
                )
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
                f"damaged: decoding failed ({_reason(error)}); fetch it again, or keep the part "
                f"that can be decoded: {CONVERT}"
            ) from None


@contextmanager
def open_container(media: MediaContent) -> Iterator[InputContainer]:
    """Open a file that FFmpeg recognizes, with any streams.

    Raises:
        MediaError: The file is empty or not a media file.
    """
    if (isinstance(media, bytes) and not media) or (
        isinstance(media, MediaFile) and not media.num_bytes
    ):
        raise MediaError("the file is empty (0 bytes); fetch it again")
    if isinstance(media, bytes):
        media = io.BytesIO(media)
    elif isinstance(media, MediaFile):
        media = media.open()
    try:
        container = av.open(media, "r", metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise MediaError(
            f"not a media file, or truncated before its index ({_reason(error)}); fetch it again"
        ) from None
    with container:
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the video track as a player does: the default track, else the first; no covers."""
    tracks = [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    return _default(tracks)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the audio track as `ffmpeg` does: the default track, else that with most channels."""
    tracks = list(container.streams.audio)
    tracks.sort(key=lambda track: -(track.codec_context.channels if track.codec_context else 0))
    return _default(tracks)


def start_s(container: InputContainer) -> float:
    """Return the start of the presentation timeline, in seconds of the file's time stamps."""
    if container.start_time is not None:
        return container.start_time * _MICROSECOND
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=0.0)


def no_decoder(kind: Literal["video", "audio", "media"] | str, codec: str) -> MediaError:
    """Return the error for a codec without a decoder."""
    return MediaError(f"no decoder for the {kind} codec: {codec}; convert the file: {CONVERT}")


def _default(streams: Sequence[_AnyStream]) -> _AnyStream | None:
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter(marked or streams), None)


def _reason(error: Exception) -> str:
    """Return FFmpeg's message, without its number and file name, which are meaningless here."""
    return getattr(error, "strerror", None) or str(error)
