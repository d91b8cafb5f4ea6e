"""MIL pooling: from segment-level scores to a video-level score.

Weak supervision labels a video, never its segments. Multiple-instance learning
(MIL) closes the gap: the video is a bag, its segments are the instances, and a
pooling rule decides how instance scores make the bag score (eq. 6).

Shape suffixes used in this file:
    B = videos    T = segments    W = windows    K = event classes + background
"""

import math
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["max", "mean", "lse"]


def mil_pool(scores_BTK: Tensor, pooling: Pooling, valid_BT: Tensor | None = None) -> Tensor:
    """Pool raw segment scores into raw bag scores, shape (B, K).

    Args:
        scores_BTK: Raw segment scores, before any softmax.
        pooling: "max" follows the single strongest segment, "mean" asks for
            evidence throughout, "lse" (log-mean-exp) lies between the two.
        valid_BT: True for the segments of the bag; by default all. Broadcasts over B.

    Raises:
        ValueError: A bag has no segment.
    """
    if valid_BT is None:
        valid_BT = scores_BTK.new_ones(scores_BTK.shape[:-1], dtype=torch.bool)
    valid_BT = valid_BT.expand(scores_BTK.shape[:-1])
    if not valid_BT.any(dim=-1).all():
        raise ValueError("every bag needs at least one segment")

    outside_BT1 = ~valid_BT.unsqueeze(-1)
    num_valid_B1 = valid_BT.sum(dim=-1, keepdim=True)
    if pooling == "mean":
        return scores_BTK.masked_fill(outside_BT1, 0.0).sum(dim=-2) / num_valid_B1
    scores_BTK = scores_BTK.masked_fill(outside_BT1, -math.inf)
    if pooling == "max":
        return scores_BTK.amax(dim=-2)
    return torch.logsumexp(scores_BTK, dim=-2) - num_valid_B1.to(scores_BTK.dtype).log()


def pool_windows(scores_BTK: Tensor, mask_WT: Tensor, pooling: Pooling) -> Tensor:
    """Pool the scores within each window of each video, shape (B, W, K) (eq. 12)."""
    num_windows = len(mask_WT)
    scores_BWTK = scores_BTK.unsqueeze(1).expand(-1, num_windows, -1, -1)
    return mil_pool(scores_BWTK, pooling, mask_WT.unsqueeze(0))
