"""The strategy that repeats a video's class over its segments."""

import numpy as np

from distributed_avel.metrics.naive import repeat


def test_every_segment_gets_the_class_of_its_video():
    assert repeat(np.array([3, 0]), num_segments=4).tolist() == [[3, 3, 3, 3], [0, 0, 0, 0]]


def test_no_videos_make_no_rows():
    assert repeat(np.zeros(0, dtype=np.int32), num_segments=4).shape == (0, 4)


def test_columns_are_repeated_as_a_whole():
    columns_VK = np.array([[0.0, 1.0], [1.0, 1.0]])
    repeated_VTK = repeat(columns_VK, num_segments=3)
    assert repeated_VTK.shape == (2, 3, 2)
    assert (repeated_VTK == columns_VK[:, None]).all()
