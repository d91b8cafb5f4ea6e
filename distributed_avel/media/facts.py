"""Properties of a media file from its header and packets: tracks, times, unusual features."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from distributed_avel.media.container import (
    Media,
    MediaContent,
    audio_stream,
    open_container,
    open_media,
    start_s,
    video_stream,
)

UPRIGHT = (1, 0, 0, 1)
"""Display matrix of frames that are displayed as stored."""

_PAST_THE_END_S = 10.0
_BEFORE_THE_END_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackFacts:
    """A track as the header describes it.

    Args:
        codec: Name of the decoder; None if there is none.
        start_s: Start on the presentation timeline; None if the header lacks it.
        duration_s: Length; None if the header lacks it.
    """

    codec: str | None
    start_s: float | None
    duration_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderFacts:
    """A media file as its header describes it.

    Args:
        container: FFmpeg's name of the format, such as `mov,mp4,m4a,3gp,3g2,mj2`.
        duration_s: Length of the file; None if the header lacks it.
        video: The track that is used; None if there is none.
        audio: The track that is used; None if there is none.
    """

    container: str
    duration_s: float | None
    video: TrackFacts | None
    audio: TrackFacts | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureFacts:
    """Properties of the video stream of a file, from its packets and its first frame.

    Args:
        container: FFmpeg's name of the format.
        codec: FFmpeg's name of the codec.
        times_s: Presentation times of the visible packets that have one, ascending.
        end_s: End of the last of them.
        num_hidden: Packets that an edit list hides.
        num_without_time: Packets without a presentation time.
        starts_plainly: Whether the first packet is a key frame and no frame is presented before.
        is_whole: Whether all packets were read, not only those of the timeline.
        num_tracks: Video tracks, without cover pictures.
        size_hw: Height and width of a frame as displayed, with rotation applied.
        pixel_format: FFmpeg's name, such as `yuv420p`.
        orientation: Display matrix (a, b, c, d), see `display_matrix`.
        interlaced: Whether the first frame consists of two fields.
    """

    container: str
    codec: str
    times_s: tuple[float, ...]
    end_s: float
    num_hidden: int
    num_without_time: int
    starts_plainly: bool
    is_whole: bool
    num_tracks: int
    size_hw: tuple[int, int]
    pixel_format: str
    orientation: tuple[int, int, int, int]
    interlaced: bool


def read_header(media: MediaContent) -> HeaderFacts:
    """Read the header of a media file, in a few milliseconds.

    Args:
        media: The file.

    Raises:
        MediaError: The file is empty or not a media file.
    """
    with open_container(media) as container:
        zero_s = start_s(container)
        length = container.duration
        return HeaderFacts(
            container=container.format.name,
            duration_s=None if length is None else length / 1e6,
            video=_track(video_stream(container), zero_s),
            audio=_track(audio_stream(container), zero_s),
        )


def picture_facts(media: Media, until_s: float) -> PictureFacts:
    """Read the video packets of an open file, and decode the first frame.

    Args:
        media: The open file.
        until_s: End of the timeline; packets far beyond it are not read.
    """
    times_s: list[float] = []
    end_s, num_hidden, num_without_time = 0.0, 0, 0
    first: VideoFrame | None = None
    first_is_key, is_whole = None, True
    for packet in media.container.demux(media.video):
        if first is None:  # the last packet is empty and drains the decoder
            first = next(iter(packet.decode()), None)
        if not packet.size:
            continue
        first_is_key = packet.is_keyframe if first_is_key is None else first_is_key
        if packet.pts is None or packet.time_base is None:
            num_without_time += 1
        elif packet.is_discard:
            num_hidden += 1
        else:
            times_s.append(float(packet.pts * packet.time_base) - media.start_s)
            end_s = max(end_s, times_s[-1] + float((packet.duration or 0) * packet.time_base))
            if times_s[-1] > until_s + _PAST_THE_END_S:
                is_whole = False
                break
    orientation = display_matrix(first) if first else UPRIGHT
    height, width = (first.height, first.width) if first else (0, 0)
    return PictureFacts(
        container=media.container.format.name,
        codec=media.video.codec_context.name,
        times_s=tuple(sorted(times_s)),
        end_s=end_s,
        num_hidden=num_hidden,
        num_without_time=num_without_time,
        starts_plainly=bool(first_is_key) and min(times_s, default=0.0) == next(iter(times_s), 0.0),
        is_whole=is_whole,
        num_tracks=sum(1 for _ in _pictures(media)),
        size_hw=(height, width) if orientation[0] else (width, height),
        pixel_format=first.format.name if first else "",
        orientation=orientation,
        interlaced=bool(first and first.interlaced_frame),
    )


def packet_ends(media: MediaContent) -> dict[str, float]:
    """Read all packets; return the end of the video and of the audio track that are used.

    Args:
        media: The file.

    Returns:
        End of the last packet on the presentation timeline, in seconds, by "video" and "audio".

    Raises:
        MediaError: The file cannot be read, or lacks a track.
    """
    with open_media(media) as opened:
        return _ends_from_here(opened)


def last_packet_ends(media: MediaContent, ends_s: Mapping[str, float]) -> dict[str, float]:
    """Read the last packets; return the ends of the tracks as far as they are found.

    Args:
        media: The file.
        ends_s: Expected ends of the tracks, by "video" and "audio".

    Returns:
        As `packet_ends`; too small, or 0, if the file has no index or ends early.

    Raises:
        MediaError: The file cannot be opened, or lacks a track.
    """
    with open_media(media) as opened:
        base = opened.video.time_base
        if base is None:
            return {}
        target_s = max(0.0, min(ends_s.values()) - _BEFORE_THE_END_S) + opened.start_s
        try:
            opened.container.seek(round(target_s / base), stream=opened.video)
            return _ends_from_here(opened)
        except FFmpegError:
            return {}


def _ends_from_here(media: Media) -> dict[str, float]:
    """Read the packets from the current position on; return the ends of the tracks."""
    ends_s = {"video": 0.0, "audio": 0.0}
    for packet in media.container.demux(media.video, media.audio):
        stamp = packet.dts if packet.pts is None else packet.pts
        if not packet.size or packet.is_discard or stamp is None or packet.time_base is None:
            continue
        start_s = float(stamp * packet.time_base) - media.start_s
        end_s = start_s + float((packet.duration or 0) * packet.time_base)
        ends_s[packet.stream.type] = max(ends_s[packet.stream.type], end_s)
    return ends_s


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Return (a, b, c, d) of a frame's display matrix: x' = a x + c y and y' = b x + d y.

    x points right and y down. Other angles than multiples of 90 degrees, which no camera writes,
    are treated as upright.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is not None:
        values = np.frombuffer(bytes(data), dtype=np.int32)
        a, b, c, d = (round(int(values[at]) / 65536) for at in (0, 1, 3, 4))
        if {abs(a), abs(b)} == {0, 1} and abs(a) == abs(d) and abs(b) == abs(c):
            return a, b, c, d
    return UPRIGHT


def _pictures(media: Media) -> Iterator[VideoStream]:
    for stream in media.container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            yield stream


def _track(stream: VideoStream | AudioStream | None, zero_s: float) -> TrackFacts | None:
    if stream is None:
        return None
    context = stream.codec_context
    start = _seconds(stream.start_time, stream.time_base)
    return TrackFacts(
        codec=context.name if context else None,
        start_s=None if start is None else start - zero_s,
        duration_s=_seconds(stream.duration, stream.time_base) or _tagged_s(stream, start or 0.0),
    )


def _seconds(ticks: int | None, base: Fraction | None) -> float | None:
    return None if ticks is None or base is None else float(ticks * base)


def _tagged_s(stream: VideoStream | AudioStream, start: float) -> float | None:
    """Return the length of a Matroska track from its tag, such as DURATION=00:00:10.006."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag is None:
        return None
    hours, minutes, seconds = tag.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start
