"""Warnings about trainings and refinements that failed."""

import pytest

from distributed_avel.method.pseudo_labels import RemovedShare
from distributed_avel.metrics.bootstrap import Interval
from distributed_avel.report.alarms import (
    failure_warnings,
    prediction_warnings,
    result_warnings,
    share_warnings,
    window_warnings,
)
from distributed_avel.tasks import WindowCounts
from tests.report.samples import make_parsing_report, make_report


def counts(background: int, kept: int, restored: int = 0) -> WindowCounts:
    """Counts for 100 windows of videos with events, two classes and 100 labels."""
    return WindowCounts(
        videos=25,
        of_events=100,
        background=background,
        of_class=[60, 40],
        kept_of_class=[min(kept, 60), max(0, kept - 60)],
        restored=restored,
    )


def test_an_arm_that_predicts_almost_no_event_is_named_with_its_share():
    (warning,) = prediction_warnings({"AVE": 0.5, "HAN+MA": 0.97, "AVE+A": 0.95})
    assert (
        warning
        == "HAN+MA predicts no event in 97% of the test segments: it has collapsed to background"
    )


@pytest.mark.parametrize(
    ("windows", "told"),
    [
        (
            counts(background=96, kept=4),
            "96% of the windows of videos with an event have no event left",
        ),
        (counts(background=0, kept=100, restored=60), "60 of 100 labels belong to events that"),
        (counts(background=0, kept=100), "refinement removed (nearly) no event from any window"),
    ],
)
def test_refinement_that_removes_all_or_no_labels_is_a_warning(windows, told):
    (warning,) = window_warnings(windows)
    assert warning.startswith(told)


@pytest.mark.parametrize("windows", [counts(95, 5), counts(0, 99), counts(30, 60)])
def test_refinement_that_removes_some_labels_gives_no_warning(windows):
    assert window_warnings(windows) == []


def test_no_windows_with_events_give_no_warning():
    empty = WindowCounts(videos=0, of_events=0, background=0, of_class=[0], kept_of_class=[0])
    assert window_warnings(empty) == []


@pytest.mark.parametrize("achieved", [0.19, 0.31])
def test_a_missed_share_of_removed_labels_is_reported_with_both_shares(achieved):
    near = RemovedShare(requested=0.1, achieved=0.14)

    (warning,) = share_warnings({"heard": RemovedShare(0.25, achieved), "seen": near})

    assert warning.startswith("heard: tau should remove 25.0% of the labels")
    assert f"removes {achieved:.1%}" in warning
    assert "\n" not in warning


def warnings_of(accuracies, **changes):
    results = {arm: {"accuracy": accuracy} for arm, accuracy in accuracies.items()}
    return result_warnings(make_report(results=results, num_timelines=0, **changes))


def test_arms_that_are_not_above_gt_repeat_or_chance_are_named():
    accuracies = {"GT-repeat": 80.0, "AVE-repeat": 70.0, "AVE": 20.0, "AVE+A+LR": 81.0}
    chance, repeat = warnings_of(accuracies, chance=20.0)
    assert chance.startswith("Accuracy of AVE (20.0) is not above chance (20.0, the most frequent")
    assert repeat.startswith("Accuracy of AVE (20.0) is not above GT-repeat (80.0): repeating")
    assert warnings_of(accuracies | {"AVE": 80.1}, chance=20.0) == []


def test_a_refined_arm_below_its_base_model_is_named_with_the_interval_of_the_difference():
    accuracies = {"AVE": 85.0, "AVE+A+LR": 81.0}
    (warning,) = warnings_of(accuracies, differences={"accuracy": Interval(-4.0, -6.5, -1.25)})
    assert warning.startswith(
        "refinement lost: Accuracy falls from 85.0 (AVE) to 81.0 (AVE+A+LR), a difference of -4.0 "
        "(95 % interval -6.5 to -1.2); compare"
    )


def test_parsing_is_judged_by_type_at_av():
    results = {arm: {"segment_type": 50.0} for arm in ("GT-repeat", "HAN", "HAN+LR", "HAN+MA")}
    (warning,) = result_warnings(make_parsing_report(results=results, num_timelines=0))
    assert warning.startswith("Segment Type@AV of HAN (50.0), HAN+LR (50.0), HAN+MA (50.0) is not")


def test_results_without_segment_metrics_give_no_warning():
    results = {"AVE": {"video_map": 50.0}, "AVE+A+LR": {"video_map": 40.0}}
    assert result_warnings(make_report(results=results, num_timelines=0)) == []


@pytest.mark.parametrize(("num_failed", "count"), [(0, 0), (10, 0), (11, 1)])
def test_more_than_a_tenth_of_unusable_videos_is_a_warning(num_failed, count):
    assert len(failure_warnings(num_failed, 100)) == count
