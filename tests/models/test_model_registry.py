"""Tests that run for every registered base model."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from distributed_avel import models
from distributed_avel.errors import ConfigError
from distributed_avel.models.base import PublishedModel
from tests.models.examples import SIZES, features, small_model

NAMES = models.model_names()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("num_videos", "num_segments"), [(3, 10), (1, 10), (2, 1), (1, 1), (2, 7)])
@torch.no_grad()
def test_every_segment_of_every_video_is_scored(name, num_videos, num_segments):
    model = small_model(name)

    codes = model.encode(*features(num_videos, num_segments))
    scores = model.score(codes)

    assert codes.shape[:2] == (num_videos, num_segments)
    assert codes.ndim == 3
    assert scores.shape[:2] == (num_videos, num_segments)
    if model.task == "localization":  # for `ParsingModel` see test_parsing_models.py
        assert scores.shape[2:] == (SIZES["num_classes"] + 1,)
        assert model.localize(codes).isfinite().all()
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_have_the_dtype_of_the_weights(name, dtype):
    assert small_model(name, dtype)(*features(2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_parameters(name):
    model = small_model(name, torch.float64).train()
    scores = model(*features(16, dtype=torch.float64))

    (scores * torch.randn_like(scores)).sum().backward()

    still = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.fixture
def process_group(tmp_path: Path):
    """A process group of size 1, in which DDP also detects unused parameters."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("name", NAMES)
def test_ddp_finds_no_unused_parameter(name):
    model = DistributedDataParallel(small_model(name).train())

    for _ in range(2):  # DDP refuses the second step if the first had unused parameters
        model(*features(4)).sum().backward()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_saved_model_gives_equal_scores(name, tmp_path):
    model = small_model(name, seed=3)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = small_model(name, seed=4)
    before = model(*features(2))
    assert not torch.equal(other(*features(2)), before)

    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))

    assert torch.equal(other(*features(2)), before)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_scores_of_a_video_do_not_depend_on_the_batch(name):
    model = small_model(name, torch.float64)
    audio, visual = features(5, dtype=torch.float64)

    together = model(audio, visual)

    alone = torch.cat([model(audio[i : i + 1], visual[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name):
    first, second = small_model(name, seed=5), small_model(name, seed=5)

    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("name", ["ave", "avfb", "avin", "avsdn", "psp"])
def test_the_attention_depends_on_the_number_of_regions(name):
    model = models.create_model(name, **{**SIZES, "regions": 4})
    audio, visual = features(2)

    assert model(audio, visual[:, :, :4]).shape == (2, 10, 5)
    with pytest.raises(ValueError, match="expects 4 regions, got 9"):
        model(audio, visual)


def test_an_unknown_model_is_refused_with_the_list_of_models():
    with pytest.raises(ConfigError, match="no base model 'avee'; there are: ave, "):
        models.create_model("avee", **SIZES)


def test_a_name_can_be_registered_only_once():
    with pytest.raises(ValueError, match="'ave' is already registered"):
        models.register_model("ave")(models.model_class("ave"))


@pytest.mark.parametrize("name", ["avt", "cmran"])
def test_a_hidden_size_not_divisible_by_the_heads_is_refused(name):
    with pytest.raises(ConfigError, match=rf"model\.hidden_size: {name} .* even number, got 7"):
        models.create_model(name, **{**SIZES, "hidden_size": 7})


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_if_a_model_is_reimplemented_from_text(name):
    """Readers of the file must not mistake it for the authors' implementation."""
    file = sys.modules[models.model_class(name).__module__]
    follows_text = not issubclass(models.model_class(name), PublishedModel)

    assert ("Reimplemented from a description" in (file.__doc__ or "")) == follows_text
