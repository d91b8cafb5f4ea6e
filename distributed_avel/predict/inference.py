"""Probabilities of the segments of one video, of any length.

Shape suffixes: M = segments of the video, T = segments of the training videos, R = regions,
D = feature or code size, K = columns of labels (see `tasks.Task`).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from distributed_avel.models import BaseModel
from distributed_avel.tasks import Task
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.predict import segment_codes

CPU = torch.device("cpu")


@torch.no_grad()
def segment_probabilities(
    task: Task,
    model: BaseModel,
    audio_MD: NDArray[np.float32],
    visual_MRD: NDArray[np.float16],
    num_segments: int,
    device: torch.device = CPU,
) -> NDArray[np.float32]:
    """Probabilities of the segments of one video, shape (M, K), in [0, 1].

    A video of at most T segments is scored as a whole. A longer one is scored in windows of T
    segments that overlap by half; where windows overlap, their probabilities are averaged. The
    result depends on this video alone, not on a batch.

    Args:
        num_segments: T, the number of segments of the training videos.
    """
    prob_MK: NDArray[np.float64] | None = None
    count_M1 = np.zeros((len(audio_MD), 1))
    with reproducible_arithmetic(device):
        codes_1MD = segment_codes(model, audio_MD[None], visual_MRD[None], device=device)
        for start in window_starts(len(audio_MD), num_segments):
            window = slice(start, start + num_segments)
            # Copies are at aligned addresses; elsewhere, some matrix products round differently.
            prob_1TK = task.segment_prob(model, codes_1MD[:, window].clone())
            prob_TK = prob_1TK[0].cpu().numpy()
            if len(count_M1) <= num_segments:
                return prob_TK  # as it is: a mean in float64 would be rounded again
            if prob_MK is None:
                prob_MK = np.zeros((len(audio_MD), prob_TK.shape[-1]))
            prob_MK[window] += prob_TK
            count_M1[window] += 1
    assert prob_MK is not None
    return (prob_MK / count_M1).astype(np.float32)


def window_starts(num_video_segments: int, num_segments: int) -> list[int]:
    """First segments of the windows that cover a video.

    Windows of `num_segments` overlap by half; the last one ends with the video.
    """
    last = max(0, num_video_segments - num_segments)
    return [*range(0, last, max(1, num_segments // 2)), last]
