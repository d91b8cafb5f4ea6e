"""Codes of videos without training on them.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions    D = feature size
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    """Codes of the segments, shape (V, T, D'), on `device`. The model is left in eval mode.

    Args:
        batch_size: Videos encoded at a time. At AVE's size a CPU is a quarter faster with 16
            than with 64, whose intermediate results are new memory each time.
    """
    model.eval()
    dtype = next(model.parameters()).dtype
    codes = []
    for start in range(0, len(audio_VTD), batch_size):
        rows = slice(start, start + batch_size)
        # Copies lie at aligned addresses; elsewhere, some matrix products round differently.
        audio = torch.from_numpy(audio_VTD[rows]).to(device, dtype, copy=True)
        visual = torch.from_numpy(visual_VTRD[rows]).to(device, dtype, copy=True)
        codes.append(model.encode(audio, visual))
    return torch.cat(codes)
