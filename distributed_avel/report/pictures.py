"""Pictures of media files for timelines: frames, the waveform and the log-mel spectrogram.

Shape suffixes used in this file:
    H, W = height and width of a frame    3 = red, green, blue    N = samples or columns
    F = spectrogram frames    M = mel bands
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distributed_avel.media.audio import LogMel, read_audio
from distributed_avel.media.files import MediaFile
from distributed_avel.media.key_frames import key_frames
from distributed_avel.media.video import sample_frames
from distributed_avel.report.page_data import Pictures, SoundPicture
from distributed_avel.timeline import Timeline

_FRAME_HEIGHT = 84
_NUM_COLUMNS = 300
_RATE_HZ = 16_000

_COLOURS = np.array(
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]]
)
"""Anchors of the colour map, from low to high; those of matplotlib's "inferno"."""


def pictures_of(media: bytes, timeline: Timeline, max_frames: int | None = None) -> Pictures:
    """Return one frame per segment, from its middle, and pictures of the sound.

    Args:
        media: Content of the file.
        timeline: Segments.
        max_frames: Number of frames, at equal distances, if there are more segments.

    Raises:
        MediaError: The file does not cover the timeline.
    """
    num_frames = min(timeline.num_segments, max_frames or timeline.num_segments)
    shown = Timeline(num_segments=num_frames, segment_s=timeline.duration_s / num_frames)
    sampled = sample_frames(media, shown, per_segment=2)
    frames = tuple(_jpeg(sampled.segment(t)[1]) for t in range(num_frames))
    return Pictures(frames=frames, sound=sound_picture(read_audio(media, timeline, _RATE_HZ)))


def key_frame_pictures(media: MediaFile, duration_s: float, num_frames: int) -> Pictures:
    """Return key frames at equal distances, without the sound: quick for a long file.

    Args:
        media: The file.
        duration_s: Length of the video.
        num_frames: Number of frames.

    Raises:
        MediaError: The file cannot be decoded.
    """
    times_s = (np.arange(num_frames) + 0.5) * duration_s / num_frames
    frames = key_frames(media, times_s.tolist(), _FRAME_HEIGHT)
    return Pictures(frames=tuple(_jpeg(frame_HW3) for frame_HW3 in frames))


def sound_picture(wave_N: NDArray[np.float32]) -> SoundPicture:
    """Draw a waveform of 16 kHz in columns of equal length.

    Args:
        wave_N: Waveform in [-1, 1], of at least one window of the spectrogram.
    """
    edges = np.linspace(0, len(wave_N), _NUM_COLUMNS + 1).astype(int)[:-1]
    log_mel_FM = LogMel(sample_rate_hz=_RATE_HZ)(wave_N[None])[0]
    starts = np.linspace(0, len(log_mel_FM), min(_NUM_COLUMNS, len(log_mel_FM)) + 1)
    columns_NM = np.maximum.reduceat(log_mel_FM, starts.astype(int)[:-1], axis=0)
    return SoundPicture(
        low_N=np.minimum.reduceat(wave_N, edges),
        high_N=np.maximum.reduceat(wave_N, edges),
        log_mel=_heat_map(columns_NM.T[::-1]),
    )


def _heat_map(values_MN: NDArray[np.floating]) -> bytes:
    """Return a PNG file with 64 colours from the lowest to the highest value."""
    low, high = float(values_MN.min()), float(values_MN.max())
    scaled_MN = (values_MN - low) / max(high - low, 1e-6)
    picture = Image.fromarray((scaled_MN * 63).round().astype(np.uint8))
    at = np.linspace(0, len(_COLOURS) - 1, 64)
    anchors = np.arange(len(_COLOURS))
    palette = np.stack([np.interp(at, anchors, _COLOURS[:, c]) for c in range(3)], axis=1)
    picture.putpalette(palette.round().astype(np.uint8).ravel().tolist())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _jpeg(frame_HW3: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(frame_HW3)
    picture.thumbnail((2 * _FRAME_HEIGHT, _FRAME_HEIGHT))
    picture.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
