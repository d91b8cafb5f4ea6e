"""Curves over the threshold tau, and the choice of tau."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from distributed_avel.errors import DatasetError
from distributed_avel.method.pseudo_labels import (
    ThresholdCurve,
    most_separating,
    pseudo_labels,
    separation_curve,
    threshold_curve,
    threshold_for_share,
    threshold_grid,
)


def random_case(seed: int):
    """Draw scores that correlate with the ground truth, for 12 videos with 1 to 3 labels."""
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
    """Return the share of labels that the pseudo-labels lack, in a loop over windows."""
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
def test_the_curve_equals_the_roc_curve_of_scikit_learn(seed):
    scores_VWK, labels_VK, truth_VWK = random_case(seed)
    labelled = np.broadcast_to(labels_VK[:, None, :-1], (12, 4, 5))
    false_rate, true_rate, thresholds = roc_curve(
        truth_VWK[..., :-1][labelled], scores_VWK[..., :-1][labelled], drop_intermediate=False
    )

    curve = threshold_curve(scores_VWK, labels_VK, truth_VWK, thresholds)

    np.testing.assert_allclose(curve.sensitivity_G, true_rate, atol=1e-12)
    np.testing.assert_allclose(1 - curve.specificity_G, false_rate, atol=1e-12)


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_the_chosen_threshold_removes_the_share_nearest_to_the_request(seed, share):
    scores_VWK, labels_VK, _ = random_case(seed)
    grid = threshold_grid()[::8]

    chosen = threshold_for_share(scores_VWK, labels_VK, share, grid)

    assert chosen in grid
    distances = [abs(removed_share(scores_VWK, labels_VK, tau) - share) for tau in grid]
    chosen_distance = abs(removed_share(scores_VWK, labels_VK, chosen) - share)
    assert chosen_distance == pytest.approx(min(distances), abs=1e-12)


@given(seed=st.integers(0, 10_000), stretch=st.floats(1.5, 8.0))
def test_the_removed_labels_depend_on_the_order_of_scores_only(seed, stretch):
    """Training videos get higher scores than others, so only the order of windows may matter."""
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


def test_the_grid_is_uniform_on_the_logit_scale():
    grid = threshold_grid()

    steps = np.diff(np.log(grid / (1 - grid)))
    np.testing.assert_allclose(steps, steps[0])
    assert 0 < grid[0] < 0.001 < 0.999 < grid[-1] < 1
    assert 0.5 in grid


def test_the_middle_of_equivalent_thresholds_is_chosen():
    scores_VWK = np.array([[[0.02, 0.0], [0.98, 0.0]]])
    labels_VK = np.array([[True, False]])

    half = threshold_for_share(scores_VWK, labels_VK, 0.5, threshold_grid())

    assert half == pytest.approx(0.5, abs=0.02)


def test_absent_share_is_the_share_of_labelled_windows_without_the_event():
    scores_VWK, labels_VK, truth_VWK = random_case(3)
    labelled = np.broadcast_to(labels_VK[:, None, :-1], (12, 4, 5))

    curve = threshold_curve(scores_VWK, labels_VK, truth_VWK, threshold_grid())

    assert curve.absent_share == pytest.approx((~truth_VWK[..., :-1][labelled]).mean())


@pytest.mark.parametrize("occurs", [True, False])
def test_a_split_with_only_one_kind_of_window_is_refused_with_the_remedy(occurs):
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


def test_separation_rates_agree_with_a_loop():
    prob_VWK, labels_VK, _ = random_case(0)
    spliced_SVWK = np.stack([random_case(seed)[0] for seed in (1, 2)])
    thresholds_G = np.array([0.2, 0.5, 0.8])

    curve = separation_curve(prob_VWK, spliced_SVWK, labels_VK, thresholds_G)

    places = [(v, w, c) for v, w, c in np.ndindex(12, 4, 5) if labels_VK[v, c]]
    for tau, sensitivity, specificity in zip(
        thresholds_G, curve.sensitivity_G, curve.specificity_G, strict=True
    ):
        kept = [prob_VWK[place] >= tau for place in places]
        removed = [of_V[place] < tau for of_V in spliced_SVWK for place in places]
        assert sensitivity == pytest.approx(np.mean(kept))
        assert specificity == pytest.approx(np.mean(removed))
    assert (curve.num_present, curve.num_absent) == (len(places), 2 * len(places))


def test_the_separating_tau_lies_in_the_gap_between_videos_and_copies():
    labels_VK = np.eye(3, dtype=bool)[[0, 1, 0, 1]]
    prob_VWK, spliced_VWK = np.full((4, 2, 3), 0.9), np.full((4, 2, 3), 0.1)

    curve = separation_curve(prob_VWK, spliced_VWK[None], labels_VK, threshold_grid())
    tau, youden = most_separating(curve)

    assert tau == pytest.approx(0.5)
    assert youden == 1.0


def test_of_several_best_values_the_middle_of_the_longest_run_is_chosen():
    curve = ThresholdCurve(
        thresholds_G=np.arange(1, 8) / 10,
        sensitivity_G=np.array([1.0, 0.9, 0.5, 1.0, 1.0, 1.0, 0.2]),
        specificity_G=np.array([1.0, 0.9, 0.5, 1.0, 1.0, 1.0, 0.2]),
        num_present=1,
        num_absent=1,
    )

    assert most_separating(curve) == (0.5, 1.0)
