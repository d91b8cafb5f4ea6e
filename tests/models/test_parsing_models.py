"""Tests that run for every parsing model: the registered ones, and one defined in the tests."""

import pytest
import torch

from distributed_avel import models
from distributed_avel.models import BaseModel, ParsingModel
from tests.models.examples import SIZES, features, small_model
from tests.models.noisy_or import NAME as SECOND
from tests.models.noisy_or import noisy_or_registered

PARSING = [name for name in models.model_names() if models.model_class(name).task == "parsing"]
pytestmark = pytest.mark.parametrize("name", [*PARSING, SECOND])


@pytest.fixture(autouse=True)
def registered():
    with noisy_or_registered():
        yield


def parsing_model(name: str) -> ParsingModel:
    model = small_model(name, torch.float64)
    assert isinstance(model, ParsingModel)
    return model


@torch.no_grad()
def test_segments_and_videos_have_a_probability_for_each_event(name):
    model, num_classes = parsing_model(name), SIZES["num_classes"]

    scores = model(*features(3, 7, dtype=torch.float64))

    segments_BTMC, video = model.segment_prob(scores), model.video_prob(scores)
    assert segments_BTMC.shape == (3, 7, 2, num_classes)
    assert {of.shape for of in video} == {(3, num_classes)}
    for prob in (segments_BTMC, *video):
        assert ((prob > 0) & (prob < 1)).all()


@torch.no_grad()
def test_a_window_is_pooled_like_a_video_of_its_segments(name):
    model = parsing_model(name)
    scores = model(*features(3, dtype=torch.float64))
    window = torch.zeros(10, dtype=torch.bool)
    window[2:6] = True

    by_mask, by_hand = model.video_prob(scores, window), model.video_prob(scores[:, 2:6])

    for masked, cut in zip(by_mask, by_hand, strict=True):
        torch.testing.assert_close(masked, cut, rtol=0, atol=1e-12)


@torch.no_grad()
def test_several_windows_are_pooled_at_once(name):
    model = parsing_model(name)
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
def test_each_half_of_the_codes_depends_on_one_modality(name):
    """Arm MA exchanges half of the codes of a video."""
    model = parsing_model(name)
    (audio, visual), (other_audio, other_visual) = (
        features(2, dtype=torch.float64, seed=seed) for seed in (1, 2)
    )

    heard_BTD, seen_BTD = model.encode(audio, visual).chunk(2, dim=-1)

    assert torch.equal(model.encode(audio, other_visual).chunk(2, dim=-1)[0], heard_BTD)
    assert torch.equal(model.encode(other_audio, visual).chunk(2, dim=-1)[1], seen_BTD)
    assert not torch.equal(model.encode(other_audio, visual).chunk(2, dim=-1)[0], heard_BTD)


def test_a_parsing_model_must_be_a_subclass_of_parsing_model(name):
    """A class that only declares the task could not be trained."""

    class Claims(BaseModel):
        task = "parsing"

    with pytest.raises(TypeError, match="Claims: a model for parsing is a subclass of Parsing"):
        models.register_model(f"not {name}")(Claims)
