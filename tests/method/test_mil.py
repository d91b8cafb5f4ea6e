"""MIL pooling: properties, and comparison with a plain loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.method.mil import mil_pool, pool_windows
from distributed_avel.method.windows import window_mask

POOLINGS = ["max", "mean", "lse"]


def random_bag(seed: int, *, videos: int = 3, segments: int = 10, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    scores_BTK = 5 * torch.randn(videos, segments, classes, generator=generator).double()
    valid_BT = torch.rand(videos, segments, generator=generator) < 0.7
    valid_BT[:, 0] = True
    return scores_BTK, valid_BT


def pool_by_hand(scores: list[float], pooling: str) -> float:
    if pooling == "max":
        return max(scores)
    if pooling == "mean":
        return sum(scores) / len(scores)
    return math.log(sum(math.exp(score) for score in scores) / len(scores))


@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=st.integers(0, 10_000))
def test_pooling_agrees_with_a_plain_loop(pooling, seed):
    scores_BTK, valid_BT = random_bag(seed)

    pooled_BK = mil_pool(scores_BTK, pooling, valid_BT)

    for video in range(3):
        for column in range(4):
            inside = [float(scores_BTK[video, t, column]) for t in range(10) if valid_BT[video, t]]
            expected = pool_by_hand(inside, pooling)
            assert float(pooled_BK[video, column]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=st.integers(0, 10_000))
def test_masked_segments_do_not_affect_the_pooled_score(pooling, seed):
    scores_BTK, valid_BT = random_bag(seed)
    garbage_BTK = torch.where(valid_BT[..., None], scores_BTK, 1e6)

    expected = mil_pool(scores_BTK, pooling, valid_BT)

    torch.testing.assert_close(mil_pool(garbage_BTK, pooling, valid_BT), expected)


@given(seed=st.integers(0, 10_000))
def test_lse_lies_between_mean_and_max(seed):
    scores_BTK, valid_BT = random_bag(seed)
    mean, lse, peak = (
        mil_pool(scores_BTK, pooling, valid_BT) for pooling in ("mean", "lse", "max")
    )

    assert (mean <= lse + 1e-9).all()
    assert (lse <= peak + 1e-9).all()


@pytest.mark.parametrize("pooling", POOLINGS)
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50))
def test_pooling_is_permutation_invariant_and_shift_equivariant(pooling, seed, shift):
    scores_BTK, valid_BT = random_bag(seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))

    shuffled = mil_pool(scores_BTK[:, order] + shift, pooling, valid_BT[:, order])

    torch.testing.assert_close(shuffled, mil_pool(scores_BTK, pooling, valid_BT) + shift)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_bag_of_equal_segments_has_the_score_of_one(pooling):
    scores_K = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)

    torch.testing.assert_close(mil_pool(scores_K.expand(2, 10, 3), pooling)[0], scores_K)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_a_masked_bag_are_finite_and_zero_outside_it(pooling):
    scores_BTK, valid_BT = random_bag(seed=1)
    scores_BTK.requires_grad_()

    mil_pool(scores_BTK, pooling, valid_BT).sum().backward()

    assert scores_BTK.grad is not None
    assert scores_BTK.grad.isfinite().all()
    assert not scores_BTK.grad[~valid_BT].any()
    torch.testing.assert_close(scores_BTK.grad.sum(dim=1), torch.ones(3, 4).double())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 1), (2, 8), (5, 5)])
def test_windows_are_pooled_like_short_videos(pooling, window, stride):
    scores_BTK, _ = random_bag(seed=2)
    mask_WT = torch.from_numpy(window_mask(10, window, stride))

    pooled_BWK = pool_windows(scores_BTK, mask_WT, pooling)

    assert pooled_BWK.shape == (3, len(mask_WT), 4)
    for number, start in enumerate(range(0, 10 - window + 1, stride)):
        alone_BK = mil_pool(scores_BTK[:, start : start + window], pooling)
        torch.testing.assert_close(pooled_BWK[:, number], alone_BK)


def test_a_bag_without_segments_is_refused():
    with pytest.raises(ValueError, match="at least one segment"):
        mil_pool(torch.zeros(1, 2, 3), "max", torch.zeros(1, 2, dtype=torch.bool))
