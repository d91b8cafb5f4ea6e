"""Options that an extractor declares."""

import pickle

import numpy as np
import pydantic
import pytest

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import ConfigError
from distributed_avel.features import base
from distributed_avel.features.base import ExtractorRecipe, Features, extractor_names
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.timeline import Timeline
from tests.media.clips import clip

TIMELINE = Timeline(num_segments=2, segment_s=1.0)


class Louder(Descriptors):
    """An extractor with an option, as in a plug-in."""

    class Config(Descriptors.Config):
        gain: float = 1.0

    def embed(self, prepared):
        return [
            Features(self.options.gain * features.audio_TD, features.visual_TRD)
            for features in super().embed(prepared)
        ]


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    monkeypatch.setattr(base._EXTRACTORS, "_items", dict(base._EXTRACTORS._items))
    base.register_extractor("louder")(Louder)


def audio(**options) -> np.ndarray:
    """Compute audio features with the extractor as another process creates it."""
    recipe = ExtractorRecipe(TIMELINE, ExtractConfig(extractor="louder", options=options))
    extractor = pickle.loads(pickle.dumps(recipe))()
    (features,) = extractor.embed([extractor.prepare(clip(seconds=2))])
    return features.audio_TD


def test_an_option_of_a_run_reaches_the_extractor_of_every_process():
    np.testing.assert_array_equal(audio(gain="2"), 2 * audio())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"gian": 1},
            r"extract\.options\.gian: extractor louder has no such option; perhaps gain; ",
        ),
        ({"gain": "loud"}, r"extract\.options\.gain: Input should be a valid number"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, told):
    with pytest.raises(ConfigError, match=told):
        audio(**options)


def test_options_that_would_accept_any_key_are_refused():
    class Loose(Descriptors):
        class Config(pydantic.BaseModel):
            gain: float = 1.0

    with pytest.raises(TypeError, match=r"Loose\.Config is not a subclass of Extractor\.Config"):
        base.register_extractor("loose")(Loose)


def test_the_extractors_of_this_package_have_no_options():
    """The help text of `extract.options` says so."""
    ours = [name for name in extractor_names() if name != "louder"]

    assert [name for name in ours if base.extractor_class(name).Config.model_fields] == []
