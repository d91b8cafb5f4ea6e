"""Baselines that repeat a video-level label over all segments."""

import numpy as np
import pytest
import torch

from distributed_avel.metrics.naive import repeat
from distributed_avel.tasks import Localization
from tests.models.examples import features, small_model


def test_repeat_gives_every_segment_the_class_of_its_video():
    assert repeat(np.array([3, 0]), num_segments=4).tolist() == [[3, 3, 3, 3], [0, 0, 0, 0]]


def test_repeat_of_no_videos_has_no_rows():
    assert repeat(np.zeros(0, dtype=np.int32), num_segments=4).shape == (0, 4)


def test_multi_hot_labels_are_repeated_over_segments():
    columns_VK = np.array([[0.0, 1.0], [1.0, 1.0]])
    repeated_VTK = repeat(columns_VK, num_segments=3)
    assert repeated_VTK.shape == (2, 3, 2)
    assert (repeated_VTK == columns_VK[:, None]).all()


@pytest.mark.parametrize("background", [0.0, 50.0])
def test_model_repeat_uses_the_most_probable_event_and_never_background(background):
    """Sec. 5.1: the event with the highest video-level probability, computed in a loop."""
    model = small_model("ave", torch.float64, 0).eval()
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.bias[-1] = background
        codes_BTD = model.encode(*features(6, dtype=torch.float64))
        repeated_BK = Localization("max", "soft_margin").repeated(model, codes_BTD)
        scores_BTK = model.score(codes_BTD)

    num_classes = scores_BTK.shape[-1] - 1
    for scores_TK, repeated_K in zip(scores_BTK, repeated_BK, strict=True):
        best = max(range(num_classes), key=lambda k: max(float(row[k]) for row in scores_TK))
        assert repeated_K.nonzero().flatten().tolist() == [best]
