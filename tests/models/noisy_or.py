"""A second parsing model, which differs from HAN in everything that a model may choose.

Its scores have one value for each event, modality and segment. The probability of an event in a
modality is the maximum over segments, and in the video the noisy-or of both modalities.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distributed_avel.models import ParsingModel, VideoProb, base

NAME = "noisy_or"


class NoisyOr(ParsingModel):
    """One linear layer for each modality; scores are relative to the mean over the video."""

    def __init__(
        self, *, num_classes: int, visual_dim: int, audio_dim: int, hidden_size: int, **_: Any
    ) -> None:
        super().__init__()
        self.audio_in = nn.Linear(audio_dim, hidden_size)
        self.visual_in = nn.Linear(visual_dim, hidden_size)
        self.heard, self.seen = (nn.Linear(hidden_size, num_classes) for _ in range(2))
        for layer in (self.heard, self.seen):
            nn.init.constant_(layer.bias, -0.55)  # otherwise a video would have every event
        self.sharpness = nn.Parameter(torch.ones(num_classes))

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        visual_BTD = self.visual_in(visual_BTRD.mean(dim=-2))
        return torch.cat([self.audio_in(audio_BTD), visual_BTD], dim=-1).tanh()

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Return scores of shape (B, T, C, M), in another order of axes than HAN's."""
        heard_BTD, seen_BTD = codes_BTD.chunk(2, dim=-1)
        scores_BTCM = torch.stack([self.heard(heard_BTD), self.seen(seen_BTD)], dim=-1)
        return scores_BTCM + scores_BTCM.mean(dim=1, keepdim=True)

    def segment_prob(self, scores: Tensor) -> Tensor:
        """The pooling has a parameter, so it is not a function of the scores alone."""
        return (scores.transpose(-1, -2) * self.sharpness).sigmoid()

    def video_prob(self, scores: Tensor, valid_BT: Tensor | None = None) -> VideoProb:
        prob_BTMC = self.segment_prob(scores)
        if valid_BT is not None:
            prob_BTMC = prob_BTMC.where(valid_BT[..., None, None], 0.0)
        heard_BC, seen_BC = prob_BTMC.amax(dim=-3).unbind(dim=-2)
        return VideoProb(1 - (1 - heard_BC) * (1 - seen_BC), heard_BC, seen_BC)


@contextmanager
def noisy_or_registered() -> Iterator[None]:
    """Register the model as `NAME` within the context."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base._MODELS, "_items", dict(base._MODELS._items))
        base.register_model(NAME)(NoisyOr)
        yield
