"""Strategies that know nothing of time; no result means much without them beside it.

On AVE two segments of three lie in a video whose event lasts throughout, so that naming the
video and repeating the name is hard to beat in accuracy, although it finds no background at
all. GT-repeat repeats the true video-level label; model-repeat (`AVE-repeat` for the base
model AVE) repeats the video-level prediction of a model.

Shape suffixes used in this file:
    V = videos    T = segments
"""

import numpy as np
from numpy.typing import NDArray


def repeat(video_class_V: NDArray[np.integer], num_segments: int) -> NDArray[np.int64]:
    """The class of each video as the prediction of all its segments, shape (V, T).

    Args:
        video_class_V: The true class of each video, or the most probable one under a model;
            background where a video has no event.
        num_segments: T.
    """
    video_class_V = np.asarray(video_class_V)
    if video_class_V.ndim != 1 or not np.issubdtype(video_class_V.dtype, np.integer):
        raise ValueError(
            f"expected one class index a video, got {video_class_V.dtype} {video_class_V.shape}"
        )
    return np.repeat(video_class_V[:, None].astype(np.int64), num_segments, axis=1)
