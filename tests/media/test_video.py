import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media.clips import TIMELINE, clip, frame_numbers, grey_frames, tones

from distributed_avel.errors import MediaError
from distributed_avel.media.video import sample_frames, sample_indices
from distributed_avel.media.write import write_mp4


def even_times(num_frames: int, fps: float) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(num_frames) / fps, np.arange(1, num_frames + 1) / fps


@settings(max_examples=50)
@given(fps=st.floats(1.0, 120.0), per_segment=st.integers(1, 20))
def test_at_an_even_rate_the_published_formula_holds(fps, per_segment):
    num_frames = int(np.ceil(10 * fps))
    per_second = num_frames // 10

    index_TS = sample_indices(*even_times(num_frames, fps), TIMELINE, per_segment)

    for segment in range(10):
        for i in range(per_segment):
            expected = int(segment * per_second + i / per_segment * per_second)
            assert index_TS[segment, i] == expected


def test_pictures_that_come_back_are_those_that_were_asked_for():
    sampled = sample_frames(clip(fps=25), TIMELINE, 16)

    frames_a_second = 25
    for segment in range(10):
        expected = [int(segment * frames_a_second + i / 16 * frames_a_second) for i in range(16)]
        assert frame_numbers(sampled.segment(segment)).tolist() == [i % 32 for i in expected]


def test_each_distinct_frame_is_held_once():
    sampled = sample_frames(clip(fps=8), TIMELINE, 16)

    assert sampled.frames_FHW3.shape == (80, 48, 64, 3)
    assert sampled.index_TS[2].tolist() == [16 + i // 2 for i in range(16)]


def test_a_minute_gives_its_first_ten_seconds():
    minute = sample_frames(clip(seconds=60, fps=8), TIMELINE, 16)
    ten = sample_frames(clip(seconds=10, fps=8), TIMELINE, 16)

    assert np.array_equal(minute.index_TS, ten.index_TS)
    assert np.array_equal(frame_numbers(minute.frames_FHW3), frame_numbers(ten.frames_FHW3))


def test_an_odd_rate_and_an_odd_length_work():
    sampled = sample_frames(clip(seconds=10.05, fps=17.6), TIMELINE, 16)

    # 176 of the 177 frames start before 10 s, so that k = 17
    assert frame_numbers(sampled.segment(9))[0] == 9 * 17 % 32


@pytest.mark.parametrize(("height", "width"), [(240, 320), (34, 90), (360, 202), (2, 2)])
def test_pictures_are_scaled_while_they_are_decoded(height, width):
    sampled = sample_frames(clip(height=height, width=width), TIMELINE, 4, size_hw=(20, 30))

    assert sampled.frames_FHW3.shape[1:] == (20, 30, 3)
    assert frame_numbers(sampled.segment(3)).tolist() == [24, 26, 28, 30]


def test_at_an_uneven_rate_the_clock_of_the_file_decides():
    # 4 frames a second in the first half, 20 in the second
    times_s = np.concatenate([np.arange(20) / 4, 5 + np.arange(100) / 20])
    media = write_mp4(grey_frames(120), 20, tones(10, 16_000), 16_000, times_s=times_s.tolist())

    sampled = sample_frames(media, TIMELINE, 16)

    assert sampled.index_TS.shape == (10, 16)
    # 4.0 .. 4.9375 s shows frames 16 to 19; 5.0 s is frame 20 and 6.0 s is frame 40
    assert frame_numbers(sampled.segment(4)).tolist() == [16 + i // 4 for i in range(16)]
    assert frame_numbers(sampled.segment(6))[0] == 40 % 32


def test_counting_frames_of_an_uneven_file_would_show_another_moment():
    times = np.concatenate([np.arange(20) / 4, 5 + np.arange(100) / 20])
    ends = np.append(times[1:], 10.0)

    index_TS = sample_indices(times, ends, TIMELINE, 16)

    counted = [TIMELINE.frame_indices(t, 120, 16) for t in range(10)]
    assert times[index_TS[4]].min() >= 4.0
    assert times[counted[4]].min() > 5.0


@given(
    gaps=st.lists(st.floats(0.01, 0.3), min_size=40, max_size=200).filter(lambda g: sum(g) > 10),
    per_segment=st.integers(1, 16),
)
def test_samples_never_leave_the_timeline_or_go_back(gaps, per_segment):
    times = np.cumsum([0.0, *gaps[:-1]])
    index_TS = sample_indices(times, times + gaps, TIMELINE, per_segment)

    assert index_TS.shape == (10, per_segment)
    assert (np.diff(index_TS.ravel()) >= 0).all()
    assert times[index_TS].max() < 10.0


@pytest.mark.parametrize(
    ("num_frames", "fps", "says"),
    [
        (5, 0.5, r"5 frame\(s\) in the first 10 s; at least 10"),
        (1, 8, r"1 frame\(s\)"),
        (0, 8, r"0 frame\(s\)"),
        (75, 8, r"too short: pictures from 0.00 s to 9.38 s, but 10 s"),
    ],
)
def test_too_few_pictures_are_refused_with_what_there_is_and_what_is_needed(num_frames, fps, says):
    with pytest.raises(MediaError, match=says):
        sample_indices(*even_times(num_frames, fps), TIMELINE, 16)


def test_half_a_segment_may_lack_at_the_end():
    assert sample_indices(*even_times(76, 8), TIMELINE, 16).max() < 76


def test_times_that_are_not_numbers_are_refused():
    start, end = even_times(80, 8)
    start[7] = np.nan
    with pytest.raises(MediaError, match="without a time"):
        sample_indices(start, end, TIMELINE, 16)
