"""`--model.name linear`: each segment is scored alone, by a linear layer.

Shape suffixes: B = videos, T = segments, R = regions, D = feature size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distributed_avel.models import BaseModel, register_model


@register_model("linear")
class Linear(BaseModel):
    """Mean over the regions, next to the audio features, and a linear layer."""

    def __init__(self, *, num_classes: int, visual_dim: int, audio_dim: int, **unused: Any) -> None:
        super().__init__()
        self.classifier = nn.Linear(visual_dim + audio_dim, num_classes + 1)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Codes of shape (B, T, visual_dim + audio_dim)."""
        return torch.cat([visual_BTRD.mean(dim=2), audio_BTD], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Scores of shape (B, T, num_classes + 1); the last column is background."""
        return self.classifier(codes_BTD)
