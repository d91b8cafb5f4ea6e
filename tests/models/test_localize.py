"""Segment predictions of models that do not predict the class with the largest score."""

import pytest
import torch

from tests.models.examples import features, small_model


@pytest.mark.parametrize("name", ["ave", "psp"])
@torch.no_grad()
def test_the_largest_score_is_the_prediction_by_default(name):
    model = small_model(name)
    codes = model.encode(*features(3))

    assert torch.equal(model.localize(codes), model.score(codes))


@pytest.mark.parametrize("name", ["avsdn", "cmran"])
@torch.no_grad()
def test_a_closed_gate_predicts_background_and_an_open_one_the_class_of_the_video(name):
    model = small_model(name)
    model.event.weight.mul_(20)  # so that gates of both kinds occur
    codes = model.encode(*features(6))
    event_logits, class_logits = model.logits(codes)

    predicted = model.localize(codes).argmax(dim=-1)

    background, num_open = class_logits.shape[-1] - 1, 0
    for video in range(6):
        for segment in range(10):
            is_open = event_logits[video, segment].sigmoid() > 0.5
            num_open += int(is_open)
            expected = class_logits[video].argmax() if is_open else background
            assert predicted[video, segment] == expected
    assert 0 < num_open < 60


@pytest.mark.parametrize("name", ["avsdn", "cmran"])
@torch.no_grad()
def test_an_open_gate_keeps_the_trained_scores(name):
    model = small_model(name)
    model.event.bias.fill_(100.0)
    codes = model.encode(*features(3))

    assert torch.equal(model.localize(codes), model.score(codes))
