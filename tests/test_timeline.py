"""The timeline: sample ranges, sampled frames, and the segments that a span covers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.timeline import Timeline

AVE = Timeline(num_segments=10, segment_s=1.0)


def test_the_duration_is_the_sum_of_the_segments():
    assert Timeline(num_segments=7, segment_s=0.5).duration_s == 3.5


@given(
    num_segments=st.integers(1, 30),
    segment_s=st.floats(0.1, 5.0),
    sample_rate_hz=st.sampled_from([8000, 16000, 44100]),
)
def test_sample_ranges_of_adjacent_segments_have_no_gap_or_overlap(
    num_segments, segment_s, sample_rate_hz
):
    timeline = Timeline(num_segments=num_segments, segment_s=segment_s)

    spans = [timeline.audio_span(segment, sample_rate_hz) for segment in range(num_segments)]

    assert spans[0].start == 0
    assert spans[-1].stop == round(timeline.duration_s * sample_rate_hz)
    assert all(a.stop == b.start for a, b in pairwise(spans))


@given(frames=st.integers(10, 400), segment=st.integers(0, 9))
def test_frames_are_sampled_as_for_the_published_ave_features(frames, segment):
    by_hand = []
    k = int(frames / 10)
    for i in range(16):
        by_hand.append(int(segment * k + i / 16 * k))

    sampled = AVE.frame_indices(segment, frames, per_segment=16)

    assert sampled == by_hand
    assert sampled == sorted(sampled)
    assert 0 <= sampled[0] <= sampled[-1] < frames


@pytest.mark.parametrize("segment", [-1, 10])
def test_a_segment_outside_the_video_is_refused(segment):
    for ask in (AVE.bounds_s, lambda s: AVE.audio_span(s, 16000)):
        with pytest.raises(IndexError, match=r"outside 0\.\.9"):
            ask(segment)


@pytest.mark.parametrize(
    ("start_s", "end_s", "segments"),
    [
        (2, 5, [2, 3, 4]),
        (0, 10, list(range(10))),
        (9, 12, [9]),  # annotated beyond the end
        (0.5, 1.5, [0, 1]),  # half of each
        (1.5, 2.5, [1, 2]),
        (0.6, 1.4, []),  # less than half of each
        (3.3, 3.6, []),  # within one segment, less than half of it
        (3.2, 3.9, [3]),
        (4, 4, []),
        (5, 3, []),
        (11, 12, []),
    ],
)
def test_a_span_covers_segments_that_it_overlaps_by_at_least_half(start_s, end_s, segments):
    assert AVE.segments_of([(start_s, end_s)]) == segments


@given(first=st.integers(0, 9), length=st.integers(0, 10), segment_s=st.sampled_from([0.3, 1, 2.5]))
def test_a_span_of_whole_segments_covers_exactly_these(first, length, segment_s):
    timeline = Timeline(num_segments=10, segment_s=segment_s)
    last = min(10, first + length)

    spans = [(first * segment_s, last * segment_s)]
    assert timeline.segments_of(spans) == list(range(first, last))


@pytest.mark.parametrize(
    ("spans", "segments"),
    [
        ([], []),
        ([(2.0, 2.3), (2.3, 2.6)], [2]),  # one event, annotated in two pieces
        ([(2.6, 2.9), (2.0, 2.3)], [2]),  # with a gap between them, in any order
        ([(2.0, 2.3), (2.1, 2.4)], []),  # the overlap counts once
        ([(2.0, 2.4), (2.1, 2.2), (2.3, 2.45)], []),
        ([(1.7, 2.3), (2.6, 3.3)], [2]),
        ([(0, 1), (9, 10)], [0, 9]),
        ([(2, 5), (3, 4)], [2, 3, 4]),
    ],
)
def test_spans_of_one_event_are_added_up(spans, segments):
    assert AVE.segments_of(spans) == segments


@given(
    tenths=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), max_size=5),
    segment_s=st.sampled_from([0.2, 0.3, 0.7, 1.0]),
)
def test_coverage_equals_a_count_in_steps_of_a_hundredth_of_a_second(tenths, segment_s):
    timeline = Timeline(num_segments=10, segment_s=segment_s)
    spans = [(min(span) / 10, max(span) / 10) for span in tenths]
    steps = round(100 * segment_s)
    on = [
        any(10 * min(span) <= step < 10 * max(span) for span in tenths)
        for step in range(10 * steps)
    ]
    by_hand = [t for t in range(10) if 2 * sum(on[t * steps : (t + 1) * steps]) >= steps]

    assert timeline.segments_of(spans) == by_hand
