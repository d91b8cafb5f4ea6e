"""Windows of a video and the synthetic videos made of them (Sec. 4.2).

Pure: no model, no file, no Ray. A model encodes V(i) and its partner V(j) once, each segment
on its own; a synthetic video is then a mix of their *codes*, and its scores are exactly those
of a synthetic video of raw features.

Shape suffixes used in this file:
    B = videos    W = windows    T = segments    D = code size    K = event classes + background
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.models import BaseModel


def window_mask(num_segments: int, window: int, stride: int) -> NDArray[np.bool_]:
    """Which segments each window keeps, shape (W, T).

    Args:
        num_segments: T.
        window: N, with 1 < N < (T + 1) / 2, so that the union of the synthetic
            videos shows every segment of the partner too (eq. 14).
        stride: s >= 1, a divisor of T - N, so that the last window ends with the video.

    Raises:
        ValueError: The three numbers do not satisfy these conditions.
    """
    if not 1 < window < (num_segments + 1) / 2:
        raise ValueError(f"window must lie in 2..{num_segments // 2}, got {window}")
    if stride < 1 or (num_segments - window) % stride:
        raise ValueError(f"stride must divide {num_segments - window}, got {stride}")
    starts_W1 = np.arange(0, num_segments - window + 1, stride)[:, None]
    segments_T = np.arange(num_segments)
    return (segments_T >= starts_W1) & (segments_T < starts_W1 + window)


def mix_codes(codes_BTD: Tensor, partner_codes_BTD: Tensor, mask_WT: Tensor) -> Tensor:
    """Codes of the synthetic videos: V(i) inside the window, V(j) outside (eq. 9), (B, W, T, D)."""
    inside_WT1 = mask_WT.unsqueeze(-1)
    return torch.where(inside_WT1, codes_BTD.unsqueeze(1), partner_codes_BTD.unsqueeze(1))


def exchange_modality(codes_BTD: Tensor, partner_codes_BTD: Tensor) -> Tensor:
    """Codes of videos with one modality of their own and the other one of the partner.

    For models whose codes hold what is heard in their first half and what is seen in the
    second (Wu and Yang 2021: "exchange the audio and visual tracks").

    Returns:
        Shape (B, 2, T, D): first with the video's own sound, then with its own pictures.
    """
    heard_BTD, seen_BTD = codes_BTD.chunk(2, dim=-1)
    other_heard_BTD, other_seen_BTD = partner_codes_BTD.chunk(2, dim=-1)
    own_sound_BTD = torch.cat([heard_BTD, other_seen_BTD], dim=-1)
    own_pictures_BTD = torch.cat([other_heard_BTD, seen_BTD], dim=-1)
    return torch.stack([own_sound_BTD, own_pictures_BTD], dim=1)


def score_synthetic(
    model: BaseModel, codes_BTD: Tensor, partner_codes_BTD: Tensor, mask_WT: Tensor
) -> Tensor:
    """Raw segment scores of all synthetic videos, shape (B, W, T, K) (more axes for parsing)."""
    mixed_BWTD = mix_codes(codes_BTD, partner_codes_BTD, mask_WT)
    return model.score(mixed_BWTD.flatten(0, 1)).unflatten(0, mixed_BWTD.shape[:2])
