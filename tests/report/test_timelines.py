"""Timelines: runs, colours, ticks, and checks of the arrays of a report."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.report.page_data import VideoTimeline
from distributed_avel.report.timelines import (
    draw_timeline,
    hue,
    split_runs,
    step_path,
    time_ticks,
)
from distributed_avel.timeline import Timeline
from tests.report.samples import CLASSES, make_report


@given(values=st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_concatenated_runs_equal_the_row(values):
    runs = split_runs(np.array(values))
    assert [value for a, b, value in runs for _ in range(a, b)] == values
    assert all(left[1] == right[0] and left[2] != right[2] for left, right in pairwise(runs))


def test_a_lane_counts_correct_segments_and_marks_wrong_ones():
    report = make_report(num_timelines=0)
    video = VideoTimeline(
        video_id="v",
        labels=(1,),
        truth_T=np.array([6, 6, 1, 1, 1, 1, 6, 6, 6, 6]),
        predictions={"AVE": np.array([1, 6, 1, 1, 2, 2, 2, 6, 6, 6])},
    )
    drawing = draw_timeline(video, report)
    truth, lane = drawing.lanes
    assert [(run.name, run.span) for run in truth.rows[0].bars] == [
        ("background", "0–2 s"), ("dog", "2–6 s"), ("background", "6–10 s")]  # fmt: skip
    assert lane.num_right == 6
    assert lane.rows[0].wrong == ((0, 1), (4, 7))
    assert lane.probability == ""
    assert [(key.name, key.present) for key in drawing.keys] == [
        ("dog", True), ("drum", False), ("background", True)]  # fmt: skip


def test_background_has_no_colour_and_hues_of_few_classes_are_far_apart():
    report = make_report(num_timelines=0)
    assert hue(len(CLASSES), report) is None
    hues = sorted(h for c in range(len(CLASSES)) if (h := hue(c, report)) is not None)
    gaps = np.diff([*hues, hues[0] + 360])
    assert gaps.min() > 25


def test_a_step_curve_encloses_the_probabilities():
    assert step_path([0.0, 1.0, 0.25]) == "M0 1L0 1H1L1 0H2L2 0.75H3V1Z"
    assert step_path([-0.1, 1.2]) == "M0 1L0 1H1L1 0H2V1Z"


@given(num_segments=st.integers(1, 400), segment_s=st.sampled_from([0.5, 0.96, 1.0]))
def test_the_time_axis_has_both_ends_and_few_ticks(num_segments, segment_s):
    ticks = time_ticks(Timeline(num_segments=num_segments, segment_s=segment_s))
    places = [float(place) for place, _ in ticks]
    assert ticks[0] == ("0", "0")
    assert ticks[-1] == ("100", f"{num_segments * segment_s:g} s")
    assert places == sorted(places)
    assert len(ticks) <= 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth_T": np.zeros(9, int)}, r"v: truth: expected shape \(10,\), got \(9,\)"),
        ({"truth_T": np.full(10, 7)}, "v: truth: classes must lie in 0..6"),
        ({"predictions": {"AVE": np.full(10, -1)}}, "v: AVE: classes must lie in 0..6"),
        ({"scores": {"AVE": np.zeros((10, 6))}}, r"v: scores of AVE: expected shape \(10, 7\)"),
        ({"frames": (b"",) * 3}, "v: 3 frames, expected 10 or none"),
    ],
)
def test_a_report_refuses_inconsistent_timelines(change, message):
    values = {"video_id": "v", "labels": (0,), "truth_T": np.zeros(10, int)}
    values["predictions"] = {"AVE": np.zeros(10, int)}
    with pytest.raises(ValueError, match=message):
        make_report(timelines=(VideoTimeline(**(values | change)),))


def test_a_report_refuses_a_confusion_matrix_without_background():
    with pytest.raises(ValueError, match=r"confusion of AVE: expected shape \(7, 7\)"):
        make_report(confusion={"AVE": np.zeros((6, 6), int)})
