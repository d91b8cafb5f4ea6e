"""The losses of Steps 1 and 3, each one number per video.

A mean over the batch is the caller's business: with several workers it must be the mean
over the *global* batch. The video-level loss g is the paper's (reference implementations
apply `MultiLabelSoftMarginLoss` to the softmax output) or a cross-entropy.

Shape suffixes used in this file:
    B = videos    T = segments    W = windows    K = event classes + background
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from distributed_avel.mil import Pooling, mil_pool, pool_windows

VideoLoss = Literal["soft_margin", "cross_entropy"]


def video_loss(pooled_BK: Tensor, targets_BK: Tensor, loss: VideoLoss) -> Tensor:
    """g, the loss of raw pooled scores against 0/1 targets; the last axis is reduced.

    "soft_margin" is `torch.nn.MultiLabelSoftMarginLoss` on the softmax of the scores.
    "cross_entropy" is that of the softmax against the targets, normalised to sum to 1.
    """
    targets_BK = targets_BK.to(pooled_BK.dtype)
    if loss == "soft_margin":
        prob_BK = pooled_BK.softmax(dim=-1)
        present_BK = targets_BK * logsigmoid(prob_BK)
        absent_BK = (1 - targets_BK) * logsigmoid(-prob_BK)
        return -(present_BK + absent_BK).mean(dim=-1)
    share_BK = targets_BK / targets_BK.sum(dim=-1, keepdim=True)
    return -(share_BK * pooled_BK.log_softmax(dim=-1)).sum(dim=-1)


def mil_loss(scores_BTK: Tensor, labels_BK: Tensor, pooling: Pooling, loss: VideoLoss) -> Tensor:
    """L_MIL: segment scores against the video-level label (eqs. 6 and 7), shape (B,)."""
    return video_loss(mil_pool(scores_BTK, pooling), labels_BK, loss)


def auxiliary_loss(
    scores_BWTK: Tensor, union_BK: Tensor, pooling: Pooling, loss: VideoLoss
) -> Tensor:
    """L_A: the synthetic videos together show both videos whole (eqs. 15-18), shape (B,).

    Args:
        scores_BWTK: Segment scores of the T1 synthetic videos of each video and its partner.
            They are pooled within each, then the maximum is taken across them.
        union_BK: The union of the video-level labels of both; see `union_of_labels`.
    """
    return video_loss(mil_pool(scores_BWTK, pooling).amax(dim=1), union_BK, loss)


def refinement_loss(
    scores_BTK: Tensor,
    window_labels_BWK: Tensor,
    mask_WT: Tensor,
    pooling: Pooling,
    loss: VideoLoss,
) -> Tensor:
    """L_LR: each window of the *original* video against its pseudo-label (eqs. 12 and 13).

    Returns:
        The mean over the windows of each video, shape (B,).
    """
    pooled_BWK = pool_windows(scores_BTK, mask_WT, pooling)
    return video_loss(pooled_BWK, window_labels_BWK, loss).mean(dim=1)


def union_of_labels(
    labels_BK: Tensor, partner_labels_BK: Tensor, *, background: bool = True
) -> Tensor:
    """Events of either video, 0/1; the background bit is set only where neither has one.

    Args:
        background: Whether the last column is background.
    """
    union_BK = labels_BK.bool() | partner_labels_BK.bool()
    if not background:
        return union_BK
    no_event_B1 = ~union_BK[..., :-1].any(dim=-1, keepdim=True)
    return torch.cat([union_BK[..., :-1], no_event_B1], dim=-1)
