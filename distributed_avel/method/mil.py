"""Multiple-instance learning (MIL): pool segment-level logits into a video-level logit.

Weak supervision labels a video, not its segments. In MIL, the video is a bag, its segments are
the instances, and a pooling function computes the logits of the bag from those of the instances
(eq. 6).

Shape suffixes used in this file:
    B = videos    T = segments    W = windows    K = event classes + background
"""

import math
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["max", "mean", "lse"]


def mil_pool(logits_BTK: Tensor, pooling: Pooling, valid_BT: Tensor | None = None) -> Tensor:
    """Pool segment logits into bag logits (eq. 6, before the softmax).

    Args:
        logits_BTK: Segment logits x_t; further leading axes are allowed.
        pooling: "max" (the paper's) takes the strongest segment, "mean" averages all segments,
            "lse" (log-mean-exp) is a soft maximum between the two.
        valid_BT: True for the segments that belong to the bag; all by default. Broadcasts over B.

    Returns:
        Bag logits, shape (B, K).

    Raises:
        ValueError: A bag has no segment.
    """
    if valid_BT is None:
        valid_BT = logits_BTK.new_ones(logits_BTK.shape[:-1], dtype=torch.bool)
    valid_BT = valid_BT.expand(logits_BTK.shape[:-1])
    if not valid_BT.any(dim=-1).all():
        raise ValueError("every bag needs at least one segment")

    outside_BT1 = ~valid_BT.unsqueeze(-1)
    num_valid_B1 = valid_BT.sum(dim=-1, keepdim=True)
    # Segments outside the bag get the neutral element of the reduction: 0 for the sum, -inf for
    # max and logsumexp.
    if pooling == "mean":
        return logits_BTK.masked_fill(outside_BT1, 0.0).sum(dim=-2) / num_valid_B1
    logits_BTK = logits_BTK.masked_fill(outside_BT1, -math.inf)
    if pooling == "max":
        return logits_BTK.amax(dim=-2)
    # Subtracting log n makes it log-mean-exp, so that long bags have no larger logits.
    return torch.logsumexp(logits_BTK, dim=-2) - num_valid_B1.to(logits_BTK.dtype).log()


def pool_windows(logits_BTK: Tensor, mask_WT: Tensor, pooling: Pooling) -> Tensor:
    """Pool the segment logits within each window of each video (eq. 12).

    Args:
        logits_BTK: Segment logits.
        mask_WT: Segments of each window, see `method.windows.window_mask`.
        pooling: See `mil_pool`.

    Returns:
        Window logits, shape (B, W, K).
    """
    num_windows = len(mask_WT)
    logits_BWTK = logits_BTK.unsqueeze(1).expand(-1, num_windows, -1, -1)
    return mil_pool(logits_BWTK, pooling, mask_WT.unsqueeze(0))
