"""AVSDN: dual-modality sequence-to-sequence network of Lin et al. 2019, weakly supervised.

It follows the code published with CPSP (`avsdn_net`), with average pooling: the video-level
classifier receives the mean of the segments.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
    K = event classes + background
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distributed_avel.models.attention import ATTENTION_NAMES, AudioGuidedAttention
from distributed_avel.models.base import PublishedModel, Shape, register_model
from distributed_avel.models.gated import GatedModel


@register_model("avsdn")
class Avsdn(GatedModel, PublishedModel):
    """A Bi-LSTM per modality, whose fused final states initialize a Bi-LSTM over both modalities.

    `score` contains all LSTMs and the class logits, which belong to the video.

    Args:
        num_classes: C.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: R.
        hidden_size: Width of each direction of the LSTMs.
        attention_size: See `Config`.
    """

    class Config(PublishedModel.Config):
        """Options of AVSDN."""

        attention_size: PositiveInt | None = None
        """Width of the attention's first layers (default: width of the visual features)."""

    reference_names: ClassVar[Mapping[str, str]] = {
        **{f"attention.{ours}": theirs for ours, theirs in ATTENTION_NAMES.items()},
        "audio_lstm": "lstm_audio",
        "visual_lstm": "lstm_video",
        "fused_lstm": "lstm_a_v",
        "fusion.audio": "U_a",
        "fusion.visual": "U_v",
        "event": "event_classifier.0",
        "category": "category_classifier.0",
    }

    def __init__(
        self,
        *,
        num_classes: int,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
        attention_size: int | None,
    ) -> None:
        super().__init__(width=2 * hidden_size, num_classes=num_classes, summary="mean")
        self.code_sizes = [audio_dim, visual_dim]
        self.attention = AudioGuidedAttention(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            regions=regions,
            hidden_size=attention_size or visual_dim,
        )
        both_dim = audio_dim + visual_dim
        self.audio_lstm = nn.LSTM(audio_dim, hidden_size, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(visual_dim, hidden_size, batch_first=True, bidirectional=True)
        self.fused_lstm = nn.LSTM(both_dim, hidden_size, batch_first=True, bidirectional=True)
        self.fusion = StateFusion(hidden_size)
        nn.init.xavier_uniform_(self.event.weight)
        nn.init.xavier_uniform_(self.category.weight)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Concatenate the audio feature and the attended visual feature."""
        return torch.cat([audio_BTD, self.attention(audio_BTD, visual_BTRD)], dim=-1)

    def relate(self, codes_BTD: Tensor) -> Tensor:
        """Run the LSTM over both modalities, shape (B, T, D)."""
        audio_BTD, visual_BTD = codes_BTD.split(self.code_sizes, dim=-1)
        _, audio_state = self.audio_lstm(audio_BTD)
        _, visual_state = self.visual_lstm(visual_BTD)
        hidden, cell = (
            self.fusion(audio.relu(), visual.relu())
            for audio, visual in zip(audio_state, visual_state, strict=True)
        )
        fused_BTD, _ = self.fused_lstm(codes_BTD, (hidden, cell))
        return fused_BTD.relu()

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Derive the sizes from the authors' layers."""
        attention_size, audio_dim = shapes["affine_audio.weight"]
        return {
            "num_classes": shapes["category_classifier.0.weight"][0] - 1,
            "visual_dim": shapes["affine_video.weight"][1],
            "audio_dim": audio_dim,
            "regions": shapes["affine_v.weight"][0],
            "hidden_size": shapes["lstm_audio.weight_hh_l0"][1],
            "attention_size": attention_size,
        }


class StateFusion(nn.Module):
    """Residual fusion of the final states of two LSTMs into one state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.audio = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.visual = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Fuse two states of the same shape; the result has that shape, too."""
        merged = (self.audio(audio) + self.visual(visual)) / 2
        return (torch.tanh(audio + merged) + torch.tanh(visual + merged)) / 2
