"""tau: how well windows are relabelled at each, and which is chosen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from distributed_avel.errors import DatasetError
from distributed_avel.method.pseudo_labels import (
    pseudo_labels,
    threshold_curve,
    threshold_for_share,
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


def removed_share(scores_VWK, labels_VK, threshold: float) -> float:
    """Part of the labels that pseudo-labels lack, one window after the other."""
    kept_VWK = pseudo_labels(scores_VWK, labels_VK, threshold)
    pairs = removed = 0
    for video, window, c in np.ndindex(scores_VWK.shape[0], scores_VWK.shape[1], 5):
        if labels_VK[video, c]:
            pairs += 1
            removed += not kept_VWK[video, window, c]
    return removed / pairs


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


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_no_threshold_of_the_grid_removes_a_share_nearer_to_the_one_that_is_asked_for(seed, share):
    scores_VWK, labels_VK, _ = random_case(seed)
    grid = threshold_grid()[::8]

    chosen = threshold_for_share(scores_VWK, labels_VK, share, grid)

    assert chosen in grid
    distances = [abs(removed_share(scores_VWK, labels_VK, tau) - share) for tau in grid]
    chosen_distance = abs(removed_share(scores_VWK, labels_VK, chosen) - share)
    assert chosen_distance == pytest.approx(min(distances), abs=1e-12)


@given(seed=st.integers(0, 10_000), stretch=st.floats(1.5, 8.0))
def test_how_sure_the_model_is_does_not_change_which_labels_are_removed(seed, stretch):
    """Training videos are scored higher than others; only the order of their windows counts."""
    scores_VWK, labels_VK, _ = random_case(seed)
    scores_VWK = 0.02 + 0.95 * scores_VWK
    scores_VWK += 0.01 * np.random.default_rng(seed).random(scores_VWK.shape)  # no two are equal
    share = 10 / np.broadcast_to(labels_VK[:, None, :-1], (12, 4, 5)).sum()
    surer_VWK = scores_VWK ** (1 / stretch)
    fine_G = 1 / (1 + np.exp(-np.linspace(-12, 12, 20_001)))

    taus = [threshold_for_share(s, labels_VK, share, fine_G) for s in (scores_VWK, surer_VWK)]

    kept, kept_surer = (
        pseudo_labels(s, labels_VK, tau)
        for s, tau in zip((scores_VWK, surer_VWK), taus, strict=True)
    )
    np.testing.assert_array_equal(kept, kept_surer)
    assert taus[1] > taus[0]


def test_the_grid_reaches_far_and_is_even_on_the_logit_scale():
    grid = threshold_grid()

    steps = np.diff(np.log(grid / (1 - grid)))
    np.testing.assert_allclose(steps, steps[0])
    assert 0 < grid[0] < 0.001 < 0.999 < grid[-1] < 1
    assert 0.5 in grid


def test_of_thresholds_that_remove_the_same_labels_the_middle_one_is_chosen():
    scores_VWK = np.array([[[0.02, 0.0], [0.98, 0.0]]])
    labels_VK = np.array([[True, False]])

    half = threshold_for_share(scores_VWK, labels_VK, 0.5, threshold_grid())

    assert half == pytest.approx(0.5, abs=0.02)


def test_the_share_that_is_wrong_is_that_of_windows_without_their_event():
    scores_VWK, labels_VK, truth_VWK = random_case(3)
    labelled = np.broadcast_to(labels_VK[:, None, :-1], (12, 4, 5))

    curve = threshold_curve(scores_VWK, labels_VK, truth_VWK, threshold_grid())

    assert curve.absent_share == pytest.approx((~truth_VWK[..., :-1][labelled]).mean())


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
