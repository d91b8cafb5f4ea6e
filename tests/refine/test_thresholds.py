"""tau: how well windows are relabelled at each, and which is chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from distributed_avel.errors import DatasetError
from distributed_avel.refine.pseudo_labels import (
    ThresholdCurve,
    pseudo_labels,
    threshold_curve,
    threshold_grid,
)


def random_case(seed: int):
    """Scores that follow the truth loosely, of 12 videos of 1 to 3 labels."""
    generator = np.random.default_rng(seed)
    labels_VK = generator.random((12, 6)) < 0.3
    labels_VK[:, 0] = True
    labels_VK[:, -1] = False
    truth_VWK = (generator.random((12, 4, 6)) < 0.5) & labels_VK[:, None]
    truth_VWK[0, 0, 0], truth_VWK[0, 1, 0] = True, False
    truth_VWK[..., -1] = ~truth_VWK[..., :-1].any(axis=-1)
    scores_VWK = np.clip(0.3 * truth_VWK + 0.7 * generator.random(truth_VWK.shape), 0, 1)
    return scores_VWK.round(2), labels_VK, truth_VWK


def curve_of(sensitivity: list[float], specificity: list[float]) -> ThresholdCurve:
    thresholds_G = np.linspace(0.1, 0.9, len(sensitivity))
    return ThresholdCurve(thresholds_G, np.array(sensitivity), np.array(specificity), 10, 10)


@given(seed=st.integers(0, 10_000))
def test_the_curve_agrees_with_a_plain_loop_over_pseudo_labels(seed):
    scores_VWK, labels_VK, truth_VWK = random_case(seed)
    thresholds_G = np.array([0.11, 0.35, 0.5, 0.77])

    curve = threshold_curve(scores_VWK, labels_VK, truth_VWK, thresholds_G)

    for number, threshold in enumerate(thresholds_G):
        kept_VWK = pseudo_labels(scores_VWK, labels_VK, threshold)
        right = {True: 0, False: 0}
        total = {True: 0, False: 0}
        for video, window, c in np.ndindex(12, 4, 5):
            if labels_VK[video, c]:
                occurs = bool(truth_VWK[video, window, c])
                total[occurs] += 1
                right[occurs] += int(bool(kept_VWK[video, window, c]) == occurs)
        assert curve.sensitivity_G[number] == pytest.approx(right[True] / total[True])
        assert curve.specificity_G[number] == pytest.approx(right[False] / total[False])
        assert (curve.num_present, curve.num_absent) == (total[True], total[False])


@given(seed=st.integers(0, 10_000))
def test_the_curve_is_the_roc_curve_of_scikit_learn(seed):
    scores_VWK, labels_VK, truth_VWK = random_case(seed)
    labelled = np.broadcast_to(labels_VK[:, None, :-1], (12, 4, 5))
    false_rate, true_rate, thresholds = roc_curve(
        truth_VWK[..., :-1][labelled], scores_VWK[..., :-1][labelled], drop_intermediate=False
    )

    curve = threshold_curve(scores_VWK, labels_VK, truth_VWK, thresholds)

    np.testing.assert_allclose(curve.sensitivity_G, true_rate, atol=1e-12)
    np.testing.assert_allclose(1 - curve.specificity_G, false_rate, atol=1e-12)


@given(seed=st.integers(0, 10_000))
def test_no_threshold_of_the_grid_is_better_than_the_chosen_one(seed):
    scores_VWK, labels_VK, truth_VWK = random_case(seed)
    grid = threshold_grid()

    best = threshold_curve(scores_VWK, labels_VK, truth_VWK, grid).best()

    def youden(threshold: float) -> float:
        at = threshold_curve(scores_VWK, labels_VK, truth_VWK, np.array([threshold]))
        return float(at.sensitivity_G[0] + at.specificity_G[0])

    assert best in grid
    assert youden(best) == pytest.approx(max(map(youden, grid)))


def test_the_grid_reaches_far_and_is_even_on_the_logit_scale():
    grid = threshold_grid()

    steps = np.diff(np.log(grid / (1 - grid)))
    np.testing.assert_allclose(steps, steps[0])
    assert 0 < grid[0] < 0.001 < 0.999 < grid[-1] < 1
    assert 0.5 in grid


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "at"),
    [
        ([1, 0.9, 0.4], [0.1, 0.8, 0.9], 1),  # one best
        ([1, 0.8, 0.8, 0.8, 0.1], [0, 0.9, 0.9, 0.9, 1], 2),  # the middle of a plateau
        ([0.9, 0.1, 0.8, 0.8, 0.8], [0.8, 0.1, 0.9, 0.9, 0.9], 3),  # of the longest one
        ([0.5, 0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5, 0.5], 2),
        ([0.1], [0.2], 0),
    ],
)
def test_of_equally_good_thresholds_the_middle_one_is_chosen(sensitivity, specificity, at):
    curve = curve_of(sensitivity, specificity)

    assert curve.best() == curve.thresholds_G[at]


def test_rounding_does_not_break_a_plateau():
    curve = curve_of([0.1 + 0.2, 0.3, 0.3], [0.3, 0.3, 0.1 + 0.2])

    assert curve.best() == curve.thresholds_G[1]


def test_a_wide_gap_between_scores_puts_tau_in_its_middle():
    scores_VWK = np.array([[[0.02, 0.0], [0.98, 0.0]]])
    truth_VWK = np.array([[[False, True], [True, False]]])

    best = threshold_curve(
        scores_VWK, np.array([[True, False]]), truth_VWK, threshold_grid()
    ).best()

    assert best == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("occurs", [True, False])
def test_a_split_that_cannot_tell_is_refused_with_what_to_do(occurs):
    labels_VK = np.array([[True, False, False]])
    truth_VWK = np.zeros((1, 4, 3), dtype=bool)
    truth_VWK[0, :, 0 if occurs else -1] = True

    with pytest.raises(DatasetError, match=rf"{4 * occurs} of 4 windows .* annotate more"):
        threshold_curve(np.full((1, 4, 3), 0.3), labels_VK, truth_VWK, threshold_grid())


def test_a_split_without_an_event_is_refused():
    labels_VK = np.array([[False, False, True]])

    with pytest.raises(DatasetError, match="0 of 0 windows"):
        threshold_curve(
            np.zeros((1, 4, 3)), labels_VK, np.zeros((1, 4, 3), dtype=bool), threshold_grid()
        )
