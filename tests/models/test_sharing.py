"""Mixing codes equals mixing videos, because a code depends on its own segment only.

The naive loop builds each synthetic video from features and passes it through the whole model.
Dropout is off, because in train mode two forward passes draw different masks.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from distributed_avel import models
from tests.models.examples import SIZES, features, small_model

WINDOWS = [(start, start + 4) for start in range(0, 7, 2)]
NAMES = models.model_names()


@dataclass(frozen=True)
class Difference:
    """Difference of shared and naive computation: absolute of scores, relative of gradients."""

    scores: float
    gradients: float


def mix(inside: Tensor, outside: Tensor, window: tuple[int, int]) -> Tensor:
    """Return the segments in the window from `inside`, and the others from `outside`."""
    mixed = outside.clone()
    mixed[:, slice(*window)] = inside[:, slice(*window)]
    return mixed


def naive_scores(model, audio, visual, partner_audio, partner_visual) -> Tensor:
    return torch.stack(
        [model(mix(audio, partner_audio, w), mix(visual, partner_visual, w)) for w in WINDOWS]
    )


def shared_scores(model, audio, visual, partner_audio, partner_visual) -> Tensor:
    codes, partner_codes = model.encode(audio, visual), model.encode(partner_audio, partner_visual)
    return torch.stack([model.score(mix(codes, partner_codes, w)) for w in WINDOWS])


def sharing_difference(model: models.BaseModel) -> Difference:
    dtype = next(model.parameters()).dtype
    videos = (*features(3, dtype=dtype, seed=1), *features(3, dtype=dtype, seed=2))
    scores, gradients = zip(
        *(scores_and_gradients(model, f(model, *videos)) for f in (naive_scores, shared_scores)),
        strict=True,
    )
    return Difference(
        scores=(scores[0] - scores[1]).abs().max().item(),
        gradients=((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()).item(),
    )


def scores_and_gradients(model: models.BaseModel, scores: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(scores.shape, generator=generator).to(scores.dtype)
    gradients = torch.autograd.grad((scores * direction).sum(), list(model.parameters()))
    return scores.detach(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("name", NAMES)
def test_shared_scores_are_exact_in_float64(name):
    difference = sharing_difference(small_model(name, torch.float64))

    assert difference.scores <= 1e-12
    assert difference.gradients <= 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_shared_scores_differ_by_rounding_in_float32(name):
    difference = sharing_difference(small_model(name, torch.float32))

    assert difference.scores <= 1e-6
    assert difference.gradients <= 1e-5


class Leaky(models.model_class("ave")):
    """Violates the contract: its codes contain a hundredth of the mean over the video."""

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        codes_BTD = super().encode(audio_BTD, visual_BTRD)
        return codes_BTD + 0.01 * codes_BTD.mean(dim=1, keepdim=True)


def test_codes_that_depend_on_other_segments_are_detected():
    torch.manual_seed(0)

    difference = sharing_difference(Leaky(**SIZES, **dict(Leaky.Config())).eval())

    assert difference.scores > 1e-5
    assert difference.gradients > 1e-4


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_code_depends_on_its_own_segment_only(name):
    model = small_model(name, torch.float64)
    audio, visual = features(2, dtype=torch.float64)
    codes = model.encode(audio, visual)

    audio[:, 4], visual[:, 4] = audio[:, 4] + 1, visual[:, 4] * 2
    changed = (model.encode(audio, visual) - codes).abs().amax(dim=(0, 2)) > 1e-12

    assert changed.nonzero().flatten().tolist() == [4]


@torch.no_grad()
def test_sharing_is_exact_for_ave_at_the_size_of_the_paper():
    torch.manual_seed(0)
    model = models.create_model(
        "ave", num_classes=28, visual_dim=512, audio_dim=128, regions=49
    ).eval()
    generator = torch.Generator().manual_seed(1)
    audio, visual = (
        torch.randn(4, 10, *rest, generator=generator).relu() for rest in [(128,), (49, 512)]
    )
    videos = (audio[:2], visual[:2], audio[2:], visual[2:])

    difference = naive_scores(model, *videos) - shared_scores(model, *videos)

    assert difference.abs().max() <= 1e-6
