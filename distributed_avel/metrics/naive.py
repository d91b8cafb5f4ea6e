"""Strategies that know nothing of time; no result means much without them beside it.

On AVE two segments of three lie in a video whose event lasts throughout, so that naming the
video and repeating the name is hard to beat in accuracy, although it finds no background at
all. GT-repeat repeats the true video-level label; model-repeat (`AVE-repeat` for the base
model AVE) repeats the event that a model finds most probable in the video (Sec. 5.1).

Shape suffix used in this file:
    V = videos
"""

import numpy as np
from numpy.typing import NDArray


def repeat(of_video_V: NDArray, num_segments: int) -> NDArray:
    """What holds of each video, repeated over its segments.

    Args:
        of_video_V: Classes (V,), or columns of labels or probabilities (V, K): the true ones of
            each video, or those of a model.
        num_segments: T.

    Returns:
        Shape (V, T) or (V, T, K).
    """
    return np.repeat(np.asarray(of_video_V)[:, None], num_segments, axis=1)
