"""Losses, compared with torch and with loops written from the equations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from distributed_avel.method.losses import (
    auxiliary_loss,
    mil_loss,
    refinement_loss,
    union_of_labels,
    video_loss,
)
from distributed_avel.method.windows import window_mask

LOSSES = ["soft_margin", "cross_entropy"]
EXACT = {"rtol": 0.0, "atol": 1e-12}


def random_scores(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_labels(*shape: int, seed: int = 0) -> torch.Tensor:
    labels = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    labels[..., -1] = ~labels[..., :-1].any(dim=-1)
    return labels


def loss_by_hand(pooled: list[float], targets: list[bool], loss: str) -> float:
    """g of one bag."""
    total = sum(math.exp(score) for score in pooled)
    prob = [math.exp(score) / total for score in pooled]
    if loss == "cross_entropy":
        return -sum(math.log(p) for p, t in zip(prob, targets, strict=True) if t) / sum(targets)
    sigma = [1 / (1 + math.exp(-p)) for p in prob]
    terms = [math.log(s if t else 1 - s) for s, t in zip(sigma, targets, strict=True)]
    return -sum(terms) / len(terms)


# g


@given(seed=st.integers(0, 10_000))
def test_soft_margin_equals_the_torch_loss_on_the_softmax_output(seed):
    pooled_BK, targets_BK = random_scores(6, 29, seed=seed), random_labels(6, 29, seed=seed)
    theirs = torch.nn.MultiLabelSoftMarginLoss(reduction="none")

    ours_B = video_loss(pooled_BK, targets_BK, "soft_margin")

    torch.testing.assert_close(ours_B, theirs(pooled_BK.softmax(-1), targets_BK.double()), **EXACT)


@given(seed=st.integers(0, 10_000))
def test_cross_entropy_equals_the_torch_loss_for_one_label(seed):
    pooled_BK = random_scores(6, 29, seed=seed)
    class_B = torch.randint(29, (6,), generator=torch.Generator().manual_seed(seed))

    ours_B = video_loss(pooled_BK, one_hot(class_B, 29), "cross_entropy")

    torch.testing.assert_close(ours_B, cross_entropy(pooled_BK, class_B, reduction="none"), **EXACT)


def test_cross_entropy_of_several_labels_is_their_mean():
    pooled_BK = random_scores(1, 5)
    each = [cross_entropy(pooled_BK, torch.tensor([c])) for c in (0, 3)]

    both = video_loss(pooled_BK, torch.tensor([[1, 0, 0, 1, 0]]), "cross_entropy")

    torch.testing.assert_close(both, (each[0] + each[1])[None] / 2, **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_better_score_has_a_lower_loss(loss):
    targets_BK = torch.tensor([[False, True, False]])
    costs = [float(video_loss(torch.tensor([[0.0, s, 0.0]]), targets_BK, loss)) for s in (-2, 0, 2)]

    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_scores_have_a_finite_loss_and_gradient(loss):
    pooled_BK = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)

    cost_B = video_loss(pooled_BK, torch.tensor([[False, True, False]]), loss)
    cost_B.sum().backward()

    assert cost_B.isfinite().all()
    assert pooled_BK.grad is not None
    assert pooled_BK.grad.isfinite().all()


# L_MIL, L_A and L_LR against their equations


@pytest.mark.parametrize("loss", LOSSES)
def test_l_mil_follows_equations_6_and_7(loss):
    scores_BTK, labels_BK = random_scores(3, 10, 5), random_labels(3, 5)

    ours_B = mil_loss(scores_BTK, labels_BK, "max", loss)

    for video in range(3):
        pooled = [max(scores_BTK[video, t, k].item() for t in range(10)) for k in range(5)]
        by_hand = loss_by_hand(pooled, labels_BK[video].tolist(), loss)
        assert ours_B[video].item() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_l_a_follows_equations_15_to_18(loss):
    scores_BWTK, union_BK = random_scores(3, 4, 10, 5), random_labels(3, 5, seed=1)

    ours_B = auxiliary_loss(scores_BWTK, union_BK, "max", loss)

    for video in range(3):
        pooled = []
        for k in range(5):
            within = [max(scores_BWTK[video, w, t, k].item() for t in range(10)) for w in range(4)]
            pooled.append(max(within))
        by_hand = loss_by_hand(pooled, union_BK[video].tolist(), loss)
        assert ours_B[video].item() == pytest.approx(by_hand, abs=1e-12)


def test_l_a_pools_within_videos_by_the_chosen_pooling_and_across_by_the_maximum():
    scores_BWTK, union_BK = random_scores(2, 4, 10, 5), random_labels(2, 5)

    ours_B = auxiliary_loss(scores_BWTK, union_BK, "mean", "soft_margin")

    pooled_BK = scores_BWTK.mean(dim=2).max(dim=1).values
    torch.testing.assert_close(ours_B, video_loss(pooled_BK, union_BK, "soft_margin"), **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 1)])
def test_l_lr_follows_equations_12_and_13(loss, window, stride):
    starts = range(0, 10 - window + 1, stride)
    scores_BTK, labels_BWK = random_scores(3, 10, 5), random_labels(3, len(starts), 5)
    mask_WT = torch.from_numpy(window_mask(10, window, stride))

    ours_B = refinement_loss(scores_BTK, labels_BWK, mask_WT, "max", loss)

    for video in range(3):
        costs = []
        for number, t1 in enumerate(starts):
            inside = range(t1, t1 + window)
            pooled = [max(scores_BTK[video, t, k].item() for t in inside) for k in range(5)]
            costs.append(loss_by_hand(pooled, labels_BWK[video, number].tolist(), loss))
        assert ours_B[video].item() == pytest.approx(sum(costs) / len(costs), abs=1e-12)


def test_the_loss_of_a_video_depends_on_that_video_only():
    scores_BTK, labels_BK = random_scores(3, 10, 5), random_labels(3, 5)
    scores_BTK.requires_grad_()

    mil_loss(scores_BTK, labels_BK, "max", "cross_entropy")[1].backward()

    assert scores_BTK.grad is not None
    assert scores_BTK.grad.abs().sum(dim=(1, 2)).gt(0).tolist() == [False, True, False]


# Union of the labels of two videos


def test_the_union_has_the_background_bit_only_if_neither_video_has_an_event():
    #                         dog    bell   background
    labels_BK = torch.tensor(
        [
            [True, False, False],  # dog
            [True, False, False],  # dog
            [False, False, True],
        ]
    )  # nothing
    partners_BK = torch.tensor(
        [
            [False, True, False],  # bell
            [False, False, True],  # nothing
            [False, False, True],
        ]
    )  # nothing

    union_BK = union_of_labels(labels_BK, partners_BK)

    assert union_BK.tolist() == [[True, True, False], [True, False, False], [False, False, True]]


@given(seed=st.integers(0, 10_000))
def test_the_union_is_symmetric_and_never_empty(seed):
    labels_BK, partners_BK = random_labels(8, 4, seed=seed), random_labels(8, 4, seed=seed + 1)

    union_BK = union_of_labels(labels_BK, partners_BK)

    assert torch.equal(union_BK, union_of_labels(partners_BK, labels_BK))
    assert union_BK.any(dim=1).all()
    assert torch.equal(union_BK[:, -1], labels_BK[:, -1] & partners_BK[:, -1])
