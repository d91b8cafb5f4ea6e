"""AVE: the weakly supervised network of Tian et al. 2018 (AVE-ECCV18, `att_Net`).

Shape suffixes: B = videos, T = segments, R = regions, D = feature size,
K = event classes + background.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distributed_avel.models.attention import ATTENTION_NAMES, AudioGuidedAttention
from distributed_avel.models.base import BaseModel, Shape, register_model


@register_model("ave")
class Ave(BaseModel):
    """Audio-guided attention, a Bi-LSTM for each modality, and a classifier of segments.

    Args:
        hidden_size: Width of each direction of the LSTMs.
        attention_size: Width of the attention's first layers; by default `visual_dim`.
        head_size: Width of the layer before the scores.
    """

    reference_names: ClassVar[Mapping[str, str]] = {
        **{f"attention.{ours}": theirs for ours, theirs in ATTENTION_NAMES.items()},
        "audio_lstm": "lstm_audio",
        "visual_lstm": "lstm_video",
        "head.0": "L1",
        "head.2": "L2",
    }

    def __init__(
        self,
        *,
        num_classes: int,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
        attention_size: int | None = None,
        head_size: int = 64,
    ) -> None:
        super().__init__()
        self.code_sizes = [audio_dim, visual_dim]
        self.attention = AudioGuidedAttention(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            regions=regions,
            hidden_size=attention_size or visual_dim,
        )
        self.audio_lstm = nn.LSTM(audio_dim, hidden_size, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(visual_dim, hidden_size, batch_first=True, bidirectional=True)
        first, last = nn.Linear(4 * hidden_size, head_size), nn.Linear(head_size, num_classes + 1)
        nn.init.xavier_uniform_(first.weight)
        nn.init.xavier_uniform_(last.weight)
        self.head = nn.Sequential(first, nn.ReLU(), last)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """The audio feature and the attended visual feature, side by side (eq. 1)."""
        return torch.cat([audio_BTD, self.attention(audio_BTD, visual_BTRD)], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores (eqs. 2-5), shape (B, T, K)."""
        audio_BTD, visual_BTD = codes_BTD.split(self.code_sizes, dim=-1)
        heard_BTD, _ = self.audio_lstm(audio_BTD)
        seen_BTD, _ = self.visual_lstm(visual_BTD)
        return self.head(torch.cat([heard_BTD, seen_BTD], dim=-1).relu())

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Sizes from the authors' layers."""
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
