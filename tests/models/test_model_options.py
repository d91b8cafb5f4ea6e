"""Options that a base model declares."""

import pickle
from typing import Any

import pydantic
import pytest
import torch
from pydantic import PositiveFloat

from distributed_avel import models
from distributed_avel.config import ModelConfig
from distributed_avel.errors import ConfigError
from distributed_avel.models import BaseModel, base
from distributed_avel.models.ave import Ave
from distributed_avel.train.model_recipe import ModelRecipe
from tests.models.examples import SIZES, features, small_model

NAMES = models.model_names()
OTHER = {
    "attention_size": 5,
    "head_size": 7,
    "threshold": 1.4,
    "motion_dim": 3,
    "feedforward_size": 9,
}
OPTIONS = [
    (name, option) for name in NAMES for option in models.model_class(name).Config.model_fields
]


class Scaled(Ave):
    """A model as in a plug-in: AVE with scaled scores."""

    class Config(Ave.Config):
        """Options of the plug-in."""

        scale: PositiveFloat = 2.0
        """Factor of the scores."""

    def __init__(self, *, scale: float, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.scale = scale

    def score(self, codes_BTD: torch.Tensor) -> torch.Tensor:
        return self.scale * super().score(codes_BTD)


@pytest.fixture
def plugin(monkeypatch):
    monkeypatch.setattr(base._MODELS, "_items", dict(base._MODELS._items))
    models.register_model("scaled")(Scaled)


def weights(model: BaseModel) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


def created(name: str, **options: Any) -> BaseModel:
    torch.manual_seed(0)
    return models.create_model(name, **SIZES, **options).eval()


@pytest.mark.parametrize(("name", "option"), OPTIONS)
@torch.no_grad()
def test_each_option_has_a_description_and_changes_the_output(name, option):
    assert models.model_class(name).Config.model_fields[option].description

    changed, default = created(name, **{option: OTHER[option]}), small_model(name)

    if weights(changed) == weights(default):
        audio, visual = features(3)
        assert not torch.equal(changed(audio, visual), default(audio, visual))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_explicit_defaults_change_nothing(name):
    written = models.model_options(name, {}).model_dump(mode="json")

    assert torch.equal(created(name, **written)(*features(2)), small_model(name)(*features(2)))


def test_an_option_of_a_run_reaches_the_model_of_every_process():
    config = ModelConfig(name="psp", hidden_size=4, options={"threshold": "0.1"})
    recipe = ModelRecipe(config=config, num_classes=3, audio_shape=(10, 6), visual_shape=(10, 9, 8))

    model = pickle.loads(pickle.dumps(recipe))()

    assert model.propagation.threshold == 0.1
    default = ModelRecipe(
        config=config.model_copy(update={"options": {}}),
        num_classes=3,
        audio_shape=(10, 6),
        visual_shape=(10, 9, 8),
    )()
    assert default.propagation.threshold == 0.95


def test_motion_dim_must_leave_columns_for_the_frame_features():
    model = created("han", motion_dim=SIZES["visual_dim"] - 1)
    assert model.visual_sizes == [1, SIZES["visual_dim"] - 1]

    with pytest.raises(
        ConfigError, match=r"model\.options\.motion_dim: must be less than .* 10, got"
    ):
        created("han", motion_dim=SIZES["visual_dim"])


@pytest.mark.usefixtures("plugin")
@torch.no_grad()
def test_a_model_of_a_plug_in_has_its_own_and_inherited_options():
    scores = [created("scaled", **o)(*features(2)) for o in ({}, {"scale": 1}, {"scale": "4.0"})]

    torch.testing.assert_close(scores[0], 2 * scores[1])
    torch.testing.assert_close(scores[2], 4 * scores[1])
    assert created("scaled", head_size=7).head[0].out_features == 7
    with pytest.raises(ConfigError, match=r"model\.options\.scale: Input should be greater than 0"):
        created("scaled", scale=0)
    with pytest.raises(
        ConfigError, match=r"scaled has no such option; perhaps scale; there are: att"
    ):
        created("scaled", scal=1)
    with pytest.raises(ConfigError, match="base model ave has no such option"):
        created("ave", scale=1)


def test_options_that_would_accept_any_key_are_refused():
    class Loose(Ave):
        class Config(pydantic.BaseModel):
            scale: float = 1.0

    with pytest.raises(TypeError, match=r"Loose\.Config is not a subclass of BaseModel\.Config"):
        models.register_model("loose")(Loose)
