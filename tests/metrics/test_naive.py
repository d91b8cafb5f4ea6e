"""The strategy that repeats a video's class over its segments."""

import numpy as np
import pytest

from distributed_avel.metrics.naive import repeat


def test_every_segment_gets_the_class_of_its_video():
    assert repeat(np.array([3, 0]), num_segments=4).tolist() == [[3, 3, 3, 3], [0, 0, 0, 0]]


def test_no_videos_make_no_rows():
    assert repeat(np.zeros(0, dtype=np.int32), num_segments=4).shape == (0, 4)


@pytest.mark.parametrize("not_classes", [np.array([0.9, 0.1]), np.array([[1, 0], [0, 1]])])
def test_scores_in_place_of_classes_are_refused(not_classes):
    with pytest.raises(ValueError, match="one class index a video"):
        repeat(not_classes, num_segments=4)
