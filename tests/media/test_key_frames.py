"""Key frames found by seeking are those that a full decode finds before each time."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from distributed_avel.errors import MediaError
from distributed_avel.media.key_frames import key_frames


def grey_clip(format_name: str) -> bytes:
    """120 frames at 4 fps, frame i grey of level 2 i, with a key frame every 5 s, and sound."""
    file = io.BytesIO()
    with av.open(file, "w", format=format_name) as container:
        video = container.add_stream("libx264", rate=4)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        video.options = {"g": "20", "sc_threshold": "0", "crf": "1"}
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(120):
            picture_HW3 = np.full((48, 64, 3), 2 * number, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture_HW3, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 4)
            container.mux(video.encode(frame))
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 16_000 * 30), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate, sound.pts = 16_000, 0
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("format_name", ["mp4", "matroska"])
def test_the_last_key_frame_before_each_time_is_returned(format_name):
    pictures = key_frames(grey_clip(format_name), [0.0, 4.9, 5.1, 14.0, 29.9], height=24)
    assert {picture_HW3.shape for picture_HW3 in pictures} == {(24, 32, 3)}
    numbers = [round(float(picture_HW3.mean()) / 2) for picture_HW3 in pictures]
    assert numbers == pytest.approx([0, 0, 20, 40, 100], abs=1)


def test_content_that_is_no_media_file_is_refused():
    with pytest.raises(MediaError):
        key_frames(b"no media", [0.0], height=24)
