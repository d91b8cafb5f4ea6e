"""Sampling of frames by presentation time, and by count as for AVE's published features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media.clips import TIMELINE, clip, frame_numbers, grey_frames, tones

from distributed_avel.errors import MediaError
from distributed_avel.media.readers import Frame, turned
from distributed_avel.media.video import on_display, sample_frames
from distributed_avel.media.write import write_mp4
from distributed_avel.timeline import Timeline


@settings(max_examples=100)
@given(
    gaps_s=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=50),
    steps_s=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=60),
)
def test_the_displayed_frame_is_the_last_one_that_has_started(gaps_s, steps_s):
    starts_s = np.cumsum([0.0, *gaps_s])
    steps_s = np.sort(steps_s)
    frames = [Frame(start_s, None, lambda at=at: at) for at, start_s in enumerate(starts_s)]

    shown = [
        frame.picture() for frame, count in on_display(iter(frames), steps_s) for _ in range(count)
    ]

    expected = [max(at for at, s in enumerate(starts_s) if s <= step + 1e-4) for step in steps_s]
    assert shown == expected


def test_samples_are_the_displayed_frames():
    sampled = sample_frames(clip(fps=25), TIMELINE, 16)

    for segment in range(10):
        expected = [int((segment + i / 16) * 25) % 32 for i in range(16)]
        assert frame_numbers(sampled.segment(segment)).tolist() == expected


def test_published_sampling_counts_frames():
    # 176 of the 177 frames start before 10 s, so k = 17, and the last second starts at 9 * 17
    published = sample_frames(clip(seconds=10.05, fps=17.6), TIMELINE, 16, sampling="published")

    expected = [int(9 * 17 + i / 16 * 17) % 32 for i in range(16)]
    assert frame_numbers(published.segment(9)).tolist() == expected
    by_time = sample_frames(clip(seconds=10.05, fps=17.6), TIMELINE, 16)
    assert frame_numbers(by_time.segment(9))[0] == int(9 * 17.6) % 32


def test_each_distinct_frame_is_stored_once():
    sampled = sample_frames(clip(fps=8), TIMELINE, 16)

    assert sampled.frames_FHW3.shape == (80, 48, 64, 3)
    assert sampled.index_TS[2].tolist() == [16 + i // 2 for i in range(16)]
    np.testing.assert_allclose(sampled.times_F, np.arange(80) / 8, atol=1e-6)


@pytest.mark.parametrize("sampling", ["time", "published"])
def test_only_the_first_ten_seconds_of_a_long_file_are_read(sampling):
    minute = sample_frames(clip(seconds=60, fps=8), TIMELINE, 16, sampling=sampling)
    ten = sample_frames(clip(seconds=10, fps=8), TIMELINE, 16, sampling=sampling)

    assert np.array_equal(minute.index_TS, ten.index_TS)
    assert np.array_equal(frame_numbers(minute.frames_FHW3), frame_numbers(ten.frames_FHW3))


@pytest.mark.parametrize(("height", "width"), [(240, 320), (34, 90), (360, 202), (2, 2)])
def test_frames_are_scaled_while_decoding(height, width):
    sampled = sample_frames(clip(height=height, width=width), TIMELINE, 4, size_hw=(20, 30))

    assert sampled.frames_FHW3.shape[1:] == (20, 30, 3)
    assert frame_numbers(sampled.segment(3)).tolist() == [24, 26, 28, 30]


@pytest.mark.parametrize(("height", "width", "scaled"), [(48, 64, (24, 32)), (64, 48, (32, 24))])
def test_a_single_size_is_the_shorter_side(height, width, scaled):
    sampled = sample_frames(clip(height=height, width=width), TIMELINE, 4, size_hw=24)

    assert sampled.frames_FHW3.shape[1:3] == scaled


def test_a_variable_frame_rate_is_sampled_by_presentation_time():
    # 4 frames a second in the first half, 20 in the second
    times_s = np.concatenate([np.arange(20) / 4, 5 + np.arange(100) / 20])
    media = write_mp4(grey_frames(120), 20, tones(10, 16_000), 16_000, times_s=times_s.tolist())

    sampled = sample_frames(media, TIMELINE, 16)

    assert sampled.index_TS.shape == (10, 16)
    # 4.0 .. 4.9375 s shows frames 16 to 19; 5.0 s is frame 20 and 6.0 s is frame 40
    assert frame_numbers(sampled.segment(4)).tolist() == [16 + i // 4 for i in range(16)]
    assert frame_numbers(sampled.segment(6))[0] == 40 % 32


@pytest.mark.parametrize(
    ("num_frames", "fps", "says"),
    [
        (5, 0.5, r"5 frame\(s\) in the first 10 s; at least 10"),
        (1, 8, r"1 frame\(s\)"),
        (75, 8, r"too short: frames from 0.00 s to 9.38 s, but 10 s"),
    ],
)
@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_too_few_frames_are_refused_with_their_number(num_frames, fps, says, reader):
    media = write_mp4(grey_frames(num_frames), fps, tones(10, 16_000), 16_000)
    with pytest.raises(MediaError, match=says):
        sample_frames(media, TIMELINE, 16, reader=reader)


def test_up_to_half_a_segment_may_be_missing_at_the_end():
    media = write_mp4(grey_frames(76), 8, tones(10, 16_000), 16_000)

    assert frame_numbers(sample_frames(media, TIMELINE, 16).segment(9))[-1] == 75 % 32


def test_the_end_of_the_frames_may_be_rounded_to_milliseconds():
    """The frames end 1 ms before half of the last segment, and then 10 ms."""
    timeline = Timeline(num_segments=4, segment_s=1.0)

    assert sample_frames(clip(3.5, fps=24.007), timeline, 2).index_TS.shape == (4, 2)
    with pytest.raises(MediaError, match="too short"):
        sample_frames(clip(3.5, fps=24.07), timeline, 2)


def test_display_matrices_rotate_and_mirror():
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    counter_clockwise, clockwise, half, mirrored = (
        (0, -1, 1, 0), (0, 1, -1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1),
    )  # fmt: skip

    np.testing.assert_array_equal(turned(stored, counter_clockwise), np.rot90(stored))
    np.testing.assert_array_equal(turned(stored, clockwise), np.rot90(stored, -1))
    np.testing.assert_array_equal(turned(stored, half), np.rot90(stored, 2))
    np.testing.assert_array_equal(turned(stored, mirrored), stored[:, ::-1])
