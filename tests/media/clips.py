"""Small real mp4 files for tests: frames encode their index, tones their second."""

import numpy as np

from distributed_avel.media.write import write_mp4
from distributed_avel.timeline import Timeline

TIMELINE = Timeline(num_segments=10, segment_s=1.0)

# Grey level of frame i; 7 is much more than the error of H.264 on a uniform frame.
_STEP, _LEVELS = 7, 32


def grey_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    levels = 16 + _STEP * (np.arange(count) % _LEVELS)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def frame_numbers(frames: np.ndarray) -> np.ndarray:
    """Return the index of each frame modulo 32, from its grey level."""
    return np.rint((frames.mean(axis=(1, 2, 3)) - 16) / _STEP).astype(int)


def tones(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    """Return a tone whose frequency increases by 100 Hz each second."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = 0.3 * np.sin(2 * np.pi * (400 + 100 * np.floor(t)) * t)
    return np.stack([wave] * channels).astype(np.float32)


def clip(
    seconds: float = 10.0,
    fps: float = 8.0,
    rate_hz: int = 16_000,
    channels: int = 1,
    *,
    height: int = 48,
    width: int = 64,
    video: bool = True,
    audio: bool = True,
    sound_s: float | None = None,
) -> bytes:
    return write_mp4(
        grey_frames(round(seconds * fps), height, width) if video else None,
        fps,
        tones(seconds if sound_s is None else sound_s, rate_hz, channels) if audio else None,
        rate_hz,
    )
