"""Files made by FFmpeg whose frames encode their number and whose tones encode their second."""

import subprocess
from pathlib import Path

import numpy as np

BITS, HEIGHT, WIDTH = 12, 64, 192

# Bit k of the frame number N is a vertical stripe, bright for 1.
_STRIPES = f"geq=lum='32+176*mod(floor(N/pow(2,floor(X*{BITS}/W))),2)':cb=128:cr=128"
_TONES = "aevalsrc='0.5*sin(2*PI*t*(300+100*floor(t)))':s={rate_hz}:d={seconds}"


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=120)


def coded(
    path: Path,
    *options: object,
    seconds: float = 10,
    fps: str | float = 25,
    rate_hz: int = 44_100,
    size: str = f"{WIDTH}x{HEIGHT}",
    pixel_format: str = "yuv420p",
) -> Path:
    """Make a coded file with these encoding options."""
    pictures = f"color=black:s={size}:r={fps}:d={seconds},format=yuv420p,{_STRIPES}"
    ffmpeg(
        *("-f", "lavfi", "-i", f"{pictures},format={pixel_format}"),
        *("-f", "lavfi", "-i", _TONES.format(rate_hz=rate_hz, seconds=seconds)),
        *("-map", "0:v", "-map", "1:a", *options, path),
    )
    return path


def numbers(frames_HW3: np.ndarray) -> np.ndarray:
    """Return the numbers encoded in frames (..., H, W, 3), shape (...)."""
    height, width = frames_HW3.shape[-3:-1]
    columns = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    middle = frames_HW3[..., height // 4 : 3 * height // 4, :, :].mean(axis=(-1, -3))
    bits = middle[..., columns] > 128
    return (bits * 2 ** np.arange(BITS)).sum(axis=-1)


def presented(
    path: Path, height: int = HEIGHT, width: int = WIDTH
) -> tuple[np.ndarray, np.ndarray]:
    """Return times (s) and images of all frames that ffmpeg presents, with rotation applied."""
    fields = "-show_entries frame=best_effort_timestamp_time:format=start_time -of csv=nk=0"
    text = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", *fields.split(), str(path)],
        capture_output=True, check=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    times_s, start_s = [], 0.0
    for line in text.splitlines():
        kind, *cells = line.split(",")
        value = cells[0].partition("=")[2] if cells else ""
        if kind == "frame":
            times_s.append(np.nan if value == "N/A" else float(value))
        elif kind == "format":
            start_s = max(float(value), 0.0)  # FFmpeg 5 includes the Opus delay, newer ones do not
    times_N = _filled(np.array(times_s)) - start_s
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vsync", "passthrough",
         "-vf", f"scale={width}:{height}:flags=bilinear", "-pix_fmt", "rgb24",
         "-f", "rawvideo", "-"],
        capture_output=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    return times_N, np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def _filled(times_N: np.ndarray) -> np.ndarray:
    """Fill unknown times, at the usual distance from the known ones."""
    known = np.flatnonzero(np.isfinite(times_N))
    step_s = np.median(np.diff(times_N[known]))
    nearest = known[np.abs(np.arange(len(times_N))[:, None] - known).argmin(axis=1)]
    return times_N[nearest] + (np.arange(len(times_N)) - nearest) * step_s


def heard(path: Path, rate_hz: int) -> np.ndarray:
    """Return the waveform as decoded by ffmpeg, from the start of the container."""
    filters = ["-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(rate_hz)]
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), *filters, "-f", "f32le", "-"],
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    return np.frombuffer(raw, np.float32)
