"""Warnings about trainings and refinements that failed."""

import pytest

from distributed_avel.report.alarms import prediction_warnings, share_warnings, window_warnings


def counts(background: int, kept: int, restored: int = 0) -> dict:
    """Counts for 100 windows of videos with events, two classes and 100 labels."""
    return {
        "of_events": 100,
        "background": background,
        "of_class": [60, 40],
        "kept_of_class": [min(kept, 60), max(0, kept - 60)],
        "restored": restored,
    }


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
    empty = dict.fromkeys(("of_events", "background", "restored"), 0)
    empty |= {"of_class": [0], "kept_of_class": [0]}
    assert window_warnings(empty) == []


@pytest.mark.parametrize("achieved", [0.19, 0.31])
def test_a_missed_share_of_removed_labels_is_reported_with_both_shares(achieved):
    near = {"requested": 0.1, "achieved": 0.14}

    (warning,) = share_warnings({"heard": {"requested": 0.25, "achieved": achieved}, "seen": near})

    assert warning.startswith("heard: tau should remove 25.0% of the labels")
    assert f"removes {achieved:.1%}" in warning
    assert "\n" not in warning
