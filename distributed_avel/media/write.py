"""Write arrays as mp4 files, for the demo data set and the tests.

Shape suffixes used in this file:
    F = frames    H, W = height and width    3 = red, green, blue
    C = audio channels    N = samples
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

_TICKS_PER_S = 90_000


def write_mp4(
    frames_FHW3: NDArray[np.uint8] | None,
    fps: Fraction | float,
    wave_CN: NDArray[np.float32] | None,
    sample_rate_hz: int,
    *,
    times_s: Sequence[float] | None = None,
    crf: int = 23,
) -> bytes:
    """Encode an mp4 file (H.264 and AAC) deterministically.

    Args:
        frames_FHW3: Frames, uint8, with even height and width; None for no video stream.
        fps: Frame rate.
        wave_CN: Waveform in [-1, 1], one row per channel; None for no audio stream.
        sample_rate_hz: Sample rate of the waveform.
        times_s: Presentation time of each frame, for a variable frame rate.
        crf: Constant rate factor of the video, from 0 (lossless) to 51.

    Returns:
        Content of the file.
    """
    file = io.BytesIO()
    options = {"fflags": "+bitexact"}
    with av.open(file, "w", format="mp4", options=options) as container:
        streams = []
        if frames_FHW3 is not None:
            video = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            video.height, video.width = frames_FHW3.shape[1:3]
            video.pix_fmt = "yuv420p"
            video.options = {"preset": "ultrafast", "crf": str(crf), "threads": "1"}
            streams.append((video, _pictures(frames_FHW3, float(fps), times_s)))
        if wave_CN is not None:
            layout = "mono" if len(wave_CN) == 1 else "stereo"
            audio = container.add_stream("aac", rate=sample_rate_hz, layout=layout)
            audio.bit_rate = 64_000 * len(wave_CN)
            streams.append((audio, _sound(wave_CN, sample_rate_hz, layout)))
        for stream, frames in streams:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return file.getvalue()


def _pictures(frames_FHW3, fps, times_s):
    for index, picture_HW3 in enumerate(frames_FHW3):
        frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24")
        seconds = times_s[index] if times_s is not None else index / fps
        frame.pts, frame.time_base = round(seconds * _TICKS_PER_S), Fraction(1, _TICKS_PER_S)
        yield frame


def _sound(wave_CN, sample_rate_hz, layout):
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(wave_CN, dtype=np.float32), format="fltp", layout=layout
    )
    frame.sample_rate, frame.pts = sample_rate_hz, 0
    frame.time_base = Fraction(1, sample_rate_hz)
    yield frame
