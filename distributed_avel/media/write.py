"""Arrays to mp4: what the demo data set and the tests are made of.

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
    """An mp4 file (H.264 and AAC) as bytes, the same for the same arguments.

    Args:
        frames_FHW3: Pictures; height and width must be even. None leaves out the stream.
        wave_CN: Sound in [-1, 1], one row a channel. None leaves out the stream.
        times_s: When each picture appears, for a file without a constant rate.
        crf: Quality of the pictures, 0 (lossless) to 51.
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
