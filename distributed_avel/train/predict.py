"""Encode and score videos without gradients.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions    D = feature or code size    K = columns of labels
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.method.windows import equal_lengths
from distributed_avel.models import BaseModel


@torch.no_grad()
def segment_codes(
    model: BaseModel,
    audio_VTD: NDArray[np.float32],
    visual_VTRD: NDArray[np.float16],
    *,
    device: torch.device,
    batch_size: int = 16,
) -> Tensor:
    """Encode the segments of all videos. Puts the model into eval mode.

    Args:
        model: Base model.
        audio_VTD: Audio features.
        visual_VTRD: Visual features.
        device: Device of the model.
        batch_size: Number of videos to encode at once. With the feature sizes of AVE, 16 is 25 %
            faster than 64 on a CPU, because larger intermediate results are allocated again each
            time.

    Returns:
        Codes, shape (V, T, D'), on `device`.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    codes = []
    for start in range(0, len(audio_VTD), batch_size):
        rows = slice(start, start + batch_size)
        # Copies are aligned in memory; some matrix products round differently on unaligned data.
        audio = torch.from_numpy(audio_VTD[rows]).to(device, dtype, copy=True)
        visual = torch.from_numpy(visual_VTRD[rows]).to(device, dtype, copy=True)
        codes.append(model.encode(audio, visual))
    return torch.cat(codes)


@torch.no_grad()
def predict_codes(
    predict: Callable[[Tensor], Tensor],
    model: BaseModel,
    audio_VTD: NDArray[np.float32],
    visual_VTRD: NDArray[np.float16],
    lengths_V: NDArray[np.int64] | None,
    *,
    device: torch.device,
) -> NDArray[np.float32]:
    """Apply a function of the codes to videos, those of equal length together.

    Args:
        predict: Computes probabilities of each segment, (V, M, K), or of each video, (V, K), from
            codes (V, M, D').
        model: Base model.
        audio_VTD: Audio features.
        visual_VTRD: Visual features.
        lengths_V: Number of segments of each video; None if all have T.
        device: Device of the model.

    Returns:
        Shape (V, T, K), 0 where a video has no segment, or (V, K).
    """
    if lengths_V is None:
        codes_VTD = segment_codes(model, audio_VTD, visual_VTRD, device=device)
        return predict(codes_VTD).cpu().numpy()
    num_videos, num_segments = audio_VTD.shape[:2]
    prob: NDArray[np.float32] | None = None
    for length, rows in equal_lengths(lengths_V):
        codes = segment_codes(
            model, audio_VTD[rows, :length], visual_VTRD[rows, :length], device=device
        )
        of_rows = predict(codes).cpu().numpy()
        if of_rows.ndim == 2:
            padded = of_rows
        else:
            padded = np.zeros((len(rows), num_segments, of_rows.shape[-1]), of_rows.dtype)
            padded[:, :length] = of_rows
        if prob is None:
            prob = np.zeros((num_videos, *padded.shape[1:]), padded.dtype)
        prob[rows] = padded
    assert prob is not None
    return prob
