"""Naive baselines that repeat a video-level label over all segments (Sec. 5.1).

Two of three segments of AVE belong to a video whose event lasts throughout. Repeating the
video-level label is therefore hard to beat in accuracy, although it never predicts background.
GT-repeat repeats the ground-truth label; model-repeat (`AVE-repeat` for the base model AVE)
repeats the event class with the highest video-level probability of a model.

Shape suffixes used in this file:
    V = videos    T = segments    K = columns of labels or probabilities
"""

import numpy as np
from numpy.typing import NDArray


def repeat(video_level_V: NDArray, num_segments: int) -> NDArray:
    """Repeat a video-level label or prediction over the segments of each video.

    Args:
        video_level_V: Class of each video (V,), or its labels or probabilities (V, K).
        num_segments: T.

    Returns:
        Shape (V, T) or (V, T, K).
    """
    return np.repeat(np.asarray(video_level_V)[:, None], num_segments, axis=1)
