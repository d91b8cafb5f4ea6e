"""Windows of a video and synthetic videos (Sec. 4.2).

A model encodes V(i) and its partner V(j) once, each segment independently. A synthetic video is
then a mix of their *codes*, and its logits equal those of a synthetic video of raw features
exactly. This saves encoding each video T1 times.

Shape suffixes used in this file:
    B = videos    W = windows    T = segments    D = code size    K = event classes + background
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.models import BaseModel

WindowsOf = Callable[[int], NDArray[np.bool_]]
"""Returns the segments of each window of a video with M segments, shape (W, M)."""


def equal_lengths(lengths_V: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each distinct length, ascending, with the indices of the videos that have it."""
    for length in np.unique(lengths_V):
        yield int(length), np.flatnonzero(lengths_V == length)


def valid_segments(lengths_V: NDArray[np.integer], num_segments: int) -> NDArray[np.bool_]:
    """Return True for the segments that a video has, shape (V, T)."""
    return np.arange(num_segments) < np.asarray(lengths_V)[:, None]


def windows_of_length(num_segments: int, window: int, stride: int) -> NDArray[np.bool_]:
    """Return the segments of each window of a video of any length, shape (W, M).

    Where `window_mask` accepts the arguments, the result is the same. In a shorter video, windows
    have at most half of its segments, so that its partner, too, occurs in all segments, and leave
    no gaps. The last window ends with the video. A video of one segment has one window.

    Args:
        num_segments: M, the number of segments of the video.
        window: N, the number of segments of a window in videos that are long enough.
        stride: s >= 1.
    """
    if window > num_segments // 2:
        window = max(1, num_segments // 2)
        stride = min(stride, window)
    starts_W1 = np.array([*range(0, num_segments - window, stride), num_segments - window])[:, None]
    segments_M = np.arange(num_segments)
    return (segments_M >= starts_W1) & (segments_M < starts_W1 + window)


def whole_video(num_segments: int) -> NDArray[np.bool_]:
    """Return one window with all segments, shape (1, M)."""
    return np.ones((1, num_segments), dtype=bool)


def single_segments(num_segments: int) -> NDArray[np.bool_]:
    """Return a window for each segment, shape (M, M)."""
    return np.eye(num_segments, dtype=bool)


def most_windows(windows_of: WindowsOf, num_segments: int) -> int:
    """Return the largest number of windows of videos of up to T segments."""
    return max(len(windows_of(length)) for length in range(1, num_segments + 1))


def valid_windows(
    lengths_V: NDArray[np.integer], windows_of: WindowsOf, num_segments: int
) -> NDArray[np.bool_]:
    """Return True for the windows that a video has, shape (V, W) with W of `most_windows`.

    Args:
        lengths_V: Number of segments of each video.
        windows_of: The windows.
        num_segments: T, the largest number of segments.
    """
    num_windows_V = np.array([len(windows_of(int(length))) for length in lengths_V])
    return valid_segments(num_windows_V, most_windows(windows_of, num_segments))


def resampled(num_segments: int, partner_segments: int) -> NDArray[np.intp]:
    """Return the segments of a partner video that fill a video of another length, shape (M,).

    Segments are repeated or skipped evenly, so that the whole partner is represented, because the
    auxiliary loss expects its events (eq. 14). `PartnerPool` avoids partners that are longer.
    """
    return np.arange(num_segments) * partner_segments // num_segments


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
