"""Each base model gives the outputs of its authors' code."""

import numpy as np
import pytest
import torch
from torch import Tensor

from distributed_avel import models
from tests.models.reference_weights import Reference, reference

LOCALIZATION = ["ave", "avsdn", "cmran", "psp"]


def ave_inputs(published: Reference) -> tuple[Tensor, Tensor]:
    audio, visual = (
        published.input("audio", (3, 10, 128)),
        published.input("visual", (3, 10, 49, 512)),
    )
    return torch.from_numpy(audio), torch.from_numpy(visual)


def llp_inputs(published: Reference) -> tuple[Tensor, Tensor]:
    audio = torch.from_numpy(published.input("audio", (3, 10, 128), signed=True))
    frames = torch.from_numpy(published.input("visual_2d", (3, 80, 2048))).view(3, 10, 8, 2048)
    motion = torch.from_numpy(published.input("visual_3d", (3, 10, 512)))
    return audio, torch.cat([frames, motion.unsqueeze(2).expand(3, 10, 8, 512)], dim=-1)


def assert_equal_to_published(ours: Tensor, published: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), published, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LOCALIZATION)
@torch.no_grad()
def test_video_probabilities_equal_the_published_ones(name):
    published = reference(name)
    model = models.load_reference(name, published.weights)

    scores = model(*ave_inputs(published))

    pooled = scores.amax(dim=1) if model.pooling == "max" else scores.mean(dim=1)
    assert_equal_to_published(pooled.softmax(dim=-1), published.outputs["video_prob"])


@pytest.mark.parametrize("name", ["ave", "psp"])
@torch.no_grad()
def test_segment_scores_equal_the_published_ones(name):
    published = reference(name)
    model = models.load_reference(name, published.weights)

    scores = model(*ave_inputs(published))

    assert_equal_to_published(scores, published.outputs["segment_scores"])


@pytest.mark.parametrize("name", ["avsdn", "cmran"])
@torch.no_grad()
def test_gates_and_class_scores_equal_the_published_ones(name):
    published = reference(name)
    model = models.load_reference(name, published.weights)

    event_logits, class_logits = model.logits(model.encode(*ave_inputs(published)))

    assert_equal_to_published(event_logits, published.outputs["event_logits"])
    assert_equal_to_published(class_logits, published.outputs["class_logits"])


@torch.no_grad()
def test_parsing_probabilities_equal_the_published_ones():
    published = reference("han")
    model = models.load_reference("han", published.weights)

    scores = model(*llp_inputs(published))

    video = model.video_prob(scores)
    assert_equal_to_published(video.either, published.outputs["global_prob"])
    assert_equal_to_published(video.heard, published.outputs["audio_prob"])
    assert_equal_to_published(video.seen, published.outputs["visual_prob"])
    assert_equal_to_published(model.segment_prob(scores), published.outputs["segment_prob"])


@torch.no_grad()
def test_parsing_of_averaged_frames_equals_parsing_of_frames():
    published = reference("han")
    model = models.load_reference("han", published.weights)
    audio, visual = llp_inputs(published)

    scores = model(audio, visual.mean(dim=2, keepdim=True))

    assert_equal_to_published(model.video_prob(scores).either, published.outputs["global_prob"])


@pytest.mark.parametrize("name", [*LOCALIZATION, "han"])
def test_the_default_sizes_equal_the_published_ones(name):
    published = reference(name)
    sizes = {"num_classes": 28, "visual_dim": 512, "audio_dim": 128, "regions": 49}
    if name == "han":
        sizes = {"num_classes": 25, "visual_dim": 2560, "audio_dim": 128, "regions": 8}

    created = models.create_model(name, **sizes).state_dict()

    loaded = models.load_reference(name, published.weights).state_dict()
    assert {k: v.shape for k, v in created.items()} == {k: v.shape for k, v in loaded.items()}
