"""`--model.name linear`: each segment is scored alone, by a linear layer.

Shape suffixes: B = videos, T = segments, R = regions, D = feature size.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from distributed_avel.models import BaseModel, register_model


@register_model("linear")
class Linear(BaseModel):
    """Mean over the regions, next to the audio features, and a linear layer."""

    class Config(BaseModel.Config):
        """Options of this model, such as `--model.options.dropout 0.2`."""

        dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
        """Fraction of the features that are dropped out in training."""

    def __init__(
        self, *, num_classes: int, visual_dim: int, audio_dim: int, dropout: float, **unused: Any
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(visual_dim + audio_dim, num_classes + 1)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Codes of shape (B, T, visual_dim + audio_dim)."""
        return torch.cat([visual_BTRD.mean(dim=2), audio_BTD], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Scores of shape (B, T, num_classes + 1); the last column is background."""
        return self.classifier(self.dropout(codes_BTD))
