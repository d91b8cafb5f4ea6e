"""AVE: the weakly supervised network of Tian et al. 2018 (AVE-ECCV18, `att_Net`).

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
    K = event classes + background
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distributed_avel.models.attention import ATTENTION_NAMES
from distributed_avel.models.base import PublishedModel, Shape, register_model
from distributed_avel.models.recurrent import RecurrentModel


@register_model("ave")
class Ave(RecurrentModel, PublishedModel):
    """Audio-guided attention, a Bi-LSTM per modality, and a segment classifier (eqs. 1-5).

    Args:
        num_classes: C.
        hidden_size: Width of each direction of the LSTMs.
        head_size: See `Config`.
        inputs: Further arguments of `RecurrentModel`.
    """

    class Config(RecurrentModel.Config):
        """Options of AVE."""

        head_size: PositiveInt = 64
        """Width of the layer before the logits."""

    reference_names: ClassVar[Mapping[str, str]] = {
        **{f"attention.{ours}": theirs for ours, theirs in ATTENTION_NAMES.items()},
        "audio_lstm": "lstm_audio",
        "visual_lstm": "lstm_video",
        "head.0": "L1",
        "head.2": "L2",
    }

    def __init__(
        self, *, num_classes: int, hidden_size: int = 128, head_size: int, **inputs: Any
    ) -> None:
        super().__init__(hidden_size=hidden_size, **inputs)
        first, last = nn.Linear(4 * hidden_size, head_size), nn.Linear(head_size, num_classes + 1)
        nn.init.xavier_uniform_(first.weight)
        nn.init.xavier_uniform_(last.weight)
        self.head = nn.Sequential(first, nn.ReLU(), last)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute segment logits (eqs. 2-5), shape (B, T, K)."""
        audio_BTD, visual_BTD = self.states(codes_BTD)
        return self.head(torch.cat([audio_BTD, visual_BTD], dim=-1).relu())

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Derive the sizes from the authors' layers."""
        attention_size, audio_dim = shapes["affine_audio.weight"]
        head_size, _ = shapes["L1.weight"]
        return {
            "num_classes": shapes["L2.weight"][0] - 1,
            "visual_dim": shapes["affine_video.weight"][1],
            "audio_dim": audio_dim,
            "regions": shapes["affine_v.weight"][0],
            "hidden_size": shapes["lstm_audio.weight_hh_l0"][1],
            "attention_size": attention_size,
            "head_size": head_size,
        }
