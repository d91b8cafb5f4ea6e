"""How a base model's scores become predictions, where the largest score is not the answer."""

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
def test_an_open_gate_keeps_the_scores_that_are_trained(name):
    model = small_model(name)
    model.event.bias.fill_(100.0)
    codes = model.encode(*features(3))

    assert torch.equal(model.localize(codes), model.score(codes))


@torch.no_grad()
def test_a_window_is_parsed_as_the_video_made_of_its_segments():
    model = small_model("han", torch.float64)
    scores = model(*features(3, dtype=torch.float64))
    window = torch.zeros(10, dtype=torch.bool)
    window[2:6] = True

    by_mask, by_hand = model.video_prob(scores, window), model.video_prob(scores[:, 2:6])

    for masked, cut in zip(by_mask, by_hand, strict=True):
        torch.testing.assert_close(masked, cut, rtol=0, atol=1e-12)


@torch.no_grad()
def test_several_windows_are_parsed_at_once():
    model = small_model("han", torch.float64)
    scores = model(*features(3, dtype=torch.float64))
    masks = torch.zeros(4, 10, dtype=torch.bool)
    for window in range(4):
        masks[window, 2 * window : 2 * window + 4] = True

    together = model.video_prob(scores.unsqueeze(1), masks)

    for window in range(4):
        alone = model.video_prob(scores, masks[window])
        torch.testing.assert_close(together.heard[:, window], alone.heard)
        torch.testing.assert_close(together.either[:, window], alone.either)


@torch.no_grad()
def test_an_event_that_the_video_lacks_is_in_no_segment():
    model = small_model("han")
    codes = model.encode(*features(8))
    scores = model.score(codes)
    present = model.video_prob(scores).either >= 0.5
    assert present.any()
    assert not present.all()

    predicted = model.localize(codes)

    for video in range(8):
        for event in range(4):
            expected = model.segment_prob(scores)[video, ..., event]
            if not present[video, event]:
                expected = torch.zeros_like(expected)
            assert torch.equal(predicted[video, ..., event], expected)
