"""Windows of a video and synthetic videos (Sec. 4.2).

A model encodes V(i) and its partner V(j) once, each segment independently. A synthetic video is
then a mix of their *codes*, and its logits equal those of a synthetic video of raw features
exactly. This saves encoding each video T1 times.

Shape suffixes used in this file:
    B = videos    W = windows    T = segments    D = code size    K = event classes + background
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.models import BaseModel


def window_mask(num_segments: int, window: int, stride: int) -> NDArray[np.bool_]:
    """Return the segments of each window, shape (W, T), W = T1 = (T - N) / s + 1.

    Args:
        num_segments: T.
        window: N, with 1 < N < (T + 1) / 2, so that every segment of the partner, too, occurs in
            one of the synthetic videos (eq. 14).
        stride: s >= 1, a divisor of T - N, so that the last window ends with the video.

    Raises:
        ValueError: `window` or `stride` violates these conditions.
    """
    if not 1 < window < (num_segments + 1) / 2:
        raise ValueError(f"window must be in 2..{num_segments // 2}, got {window}")
    if stride < 1 or (num_segments - window) % stride:
        raise ValueError(f"stride must divide {num_segments - window}, got {stride}")
    starts_W1 = np.arange(0, num_segments - window + 1, stride)[:, None]
    segments_T = np.arange(num_segments)
    return (segments_T >= starts_W1) & (segments_T < starts_W1 + window)


def mix_codes(codes_BTD: Tensor, partner_codes_BTD: Tensor, mask_WT: Tensor) -> Tensor:
    """Mix codes of synthetic videos: V(i) inside the window, V(j) outside it (eq. 9).

    Returns:
        Shape (B, W, T, D).
    """
    inside_WT1 = mask_WT.unsqueeze(-1)
    return torch.where(inside_WT1, codes_BTD.unsqueeze(1), partner_codes_BTD.unsqueeze(1))


def exchange_modality(codes_BTD: Tensor, partner_codes_BTD: Tensor) -> Tensor:
    """Replace one modality of each video by that of its partner (arm MA).

    Wu and Yang (2021) "exchange the audio and visual tracks". The codes of the model must consist
    of the audio code followed by the visual code, of equal size.

    Returns:
        Shape (B, 2, T, D): first with the audio of the video and the visual stream of its
        partner, then with the visual stream of the video and the audio of its partner.
    """
    audio_BTD, visual_BTD = codes_BTD.chunk(2, dim=-1)
    partner_audio_BTD, partner_visual_BTD = partner_codes_BTD.chunk(2, dim=-1)
    own_audio_BTD = torch.cat([audio_BTD, partner_visual_BTD], dim=-1)
    own_visual_BTD = torch.cat([partner_audio_BTD, visual_BTD], dim=-1)
    return torch.stack([own_audio_BTD, own_visual_BTD], dim=1)


def score_synthetic(
    model: BaseModel, codes_BTD: Tensor, partner_codes_BTD: Tensor, mask_WT: Tensor
) -> Tensor:
    """Compute the segment logits of all synthetic videos.

    Returns:
        Shape (B, W, T, K); models of parsing have further axes.
    """
    # Windows become part of the batch, so that `score` sees videos of T segments.
    mixed_BWTD = mix_codes(codes_BTD, partner_codes_BTD, mask_WT)
    return model.score(mixed_BWTD.flatten(0, 1)).unflatten(0, mixed_BWTD.shape[:2])
