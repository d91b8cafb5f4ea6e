"""Losses of Steps 1 and 3, one value per video.

The caller averages over the batch, because with several workers the mean is over the *global*
batch. The video-level loss g is that of the paper (its reference implementations apply
`MultiLabelSoftMarginLoss` to the softmax output) or a cross-entropy.

Shape suffixes used in this file:
    B = videos    T = segments    W = windows    K = event classes + background
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import multilabel_soft_margin_loss

from distributed_avel.method.mil import Pooling, mil_pool, pool_windows

VideoLoss = Literal["soft_margin", "cross_entropy"]


def video_loss(pooled_BK: Tensor, targets_BK: Tensor, loss: VideoLoss) -> Tensor:
    """Compute the video-level loss g of pooled logits against targets.

    Args:
        pooled_BK: Video-level (or window-level) logits; further leading axes are allowed.
        targets_BK: Targets in 0..1; "cross_entropy" needs a positive one in each row.
        loss: "soft_margin" is `torch.nn.MultiLabelSoftMarginLoss` applied to the softmax of the
            logits, as in the authors' code of AVE. "cross_entropy" is the cross-entropy of the
            softmax against the targets, normalized to sum to 1.

    Returns:
        Loss of each row, shape (B,).
    """
    targets_BK = targets_BK.to(pooled_BK.dtype)
    if loss == "soft_margin":
        # The sigmoid of a softmax lies in [0.5, 0.73], so this g never reaches 0. It is kept
        # because the authors' code computes it and the paper's figures depend on it.
        prob_BK = pooled_BK.softmax(dim=-1)
        return multilabel_soft_margin_loss(prob_BK, targets_BK, reduction="none")
    distribution_BK = targets_BK / targets_BK.sum(dim=-1, keepdim=True)
    return -(distribution_BK * pooled_BK.log_softmax(dim=-1)).sum(dim=-1)


def mil_loss(logits_BTK: Tensor, labels_BK: Tensor, pooling: Pooling, loss: VideoLoss) -> Tensor:
    """Compute L_MIL, g of the pooled segment logits against the video-level label (eqs. 6, 7).

    Args:
        logits_BTK: Segment logits.
        labels_BK: Video-level labels Y, 0/1.
        pooling: See `mil_pool`.
        loss: See `video_loss`.

    Returns:
        Shape (B,).
    """
    return video_loss(mil_pool(logits_BTK, pooling), labels_BK, loss)


def auxiliary_loss(
    logits_BWTK: Tensor, union_BK: Tensor, pooling: Pooling, loss: VideoLoss
) -> Tensor:
    """Compute the auxiliary loss L_A on the synthetic videos of each video (eqs. 15-18).

    Every segment of a video and of its partner occurs in at least one of the T1 synthetic videos
    (eq. 14). Their logits, pooled over all of them, are therefore trained on the union of both
    labels.

    Args:
        logits_BWTK: Segment logits of the T1 synthetic videos of each video and its partner.
        union_BK: Union of the video-level labels of both; see `union_of_labels`.
        pooling: Pooling within a synthetic video; see `mil_pool`.
        loss: See `video_loss`.

    Returns:
        Shape (B,).
    """
    # Pool over the segments of each synthetic video, then take the maximum across them.
    return video_loss(mil_pool(logits_BWTK, pooling).amax(dim=1), union_BK, loss)


def refinement_loss(
    logits_BTK: Tensor,
    window_labels_BWK: Tensor,
    mask_WT: Tensor,
    pooling: Pooling,
    loss: VideoLoss,
) -> Tensor:
    """Compute L_LR, g of each window of the *original* video against its pseudo-label (eq. 13).

    Args:
        logits_BTK: Segment logits of the original videos.
        window_labels_BWK: Pseudo-labels of the windows, in 0..1.
        mask_WT: Segments of each window.
        pooling: Pooling within a window (eq. 12).
        loss: See `video_loss`.

    Returns:
        Mean over the windows of each video, shape (B,).
    """
    pooled_BWK = pool_windows(logits_BTK, mask_WT, pooling)
    return video_loss(pooled_BWK, window_labels_BWK, loss).mean(dim=1)


def union_of_labels(
    labels_BK: Tensor, partner_labels_BK: Tensor, *, background: bool = True
) -> Tensor:
    """Compute L(i) ∪ L(j), the events of a video or of its partner, shape (B, K).

    The background bit is set only if neither video has an event. Training collapses if the bit is
    always set.

    Args:
        labels_BK: Labels of the videos.
        partner_labels_BK: Labels of their partners.
        background: Whether the last column is background.
    """
    union_BK = labels_BK.bool() | partner_labels_BK.bool()
    if not background:
        return union_BK
    no_event_B1 = ~union_BK[..., :-1].any(dim=-1, keepdim=True)
    return torch.cat([union_BK[..., :-1], no_event_B1], dim=-1)
