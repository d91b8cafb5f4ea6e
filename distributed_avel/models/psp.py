"""PSP: weakly supervised positive sample propagation of Zhou et al. 2021 (`psp_net`).

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
    K = event classes + background
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from distributed_avel.models.attention import ATTENTION_NAMES, AudioGuidedAttention
from distributed_avel.models.base import PublishedModel, Shape, register_model


@register_model("psp")
class Psp(PublishedModel):
    """Attention and Bi-LSTMs as in AVE, then propagation between similar segments of modalities.

    `score` contains the LSTMs, the propagation between segments, and the weight of a segment,
    which is computed from its logits. The threshold makes the logits discontinuous, as in the
    published model: rounding can move a similarity across it.

    Args:
        num_classes: C.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: R.
        hidden_size: Width of each direction of the LSTMs.
        attention_size, head_size, threshold: See `Config`.
    """

    class Config(PublishedModel.Config):
        """Options of PSP."""

        attention_size: PositiveInt | None = None
        """Width of the attention's first layers (default: width of the visual features)."""

        head_size: PositiveInt = 64
        """Width of the layer before the logits."""

        threshold: NonNegativeFloat = 0.95
        """Normalized similarities up to threshold / T are set to 0. The default corresponds to the
        published 0.095 for 10 segments."""

    pooling = "mean"
    reference_names: ClassVar[Mapping[str, str]] = {
        **{f"attention.{ours}": f"attention.{theirs}" for ours, theirs in ATTENTION_NAMES.items()},
        "narrow": "linear_v",
        "audio_lstm": "lstm_a_v.lstm_audio",
        "visual_lstm": "lstm_a_v.lstm_video",
        "propagation.visual_value": "psp.v_L1",
        "propagation.visual_key": "psp.v_L2",
        "propagation.audio_key": "psp.a_L1",
        "propagation.audio_value": "psp.a_L2",
        "propagation.norm": "psp.layer_norm",
        "head.0": "L1",
        "head.2": "L2",
        "weigh": "W3",
    }
    reference_unused = ("temperature", "W1", "W2")

    def __init__(
        self,
        *,
        num_classes: int,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
        attention_size: int | None,
        head_size: int,
        threshold: float,
    ) -> None:
        super().__init__()
        self.attention = AudioGuidedAttention(
            audio_dim=audio_dim,
            visual_dim=visual_dim,
            regions=regions,
            hidden_size=attention_size or visual_dim,
        )
        self.narrow = nn.Linear(visual_dim, audio_dim)
        self.audio_lstm = nn.LSTM(audio_dim, hidden_size, batch_first=True, bidirectional=True)
        self.visual_lstm = nn.LSTM(audio_dim, hidden_size, batch_first=True, bidirectional=True)
        self.propagation = Propagation(2 * hidden_size, threshold)
        first = nn.Linear(2 * hidden_size, head_size, bias=False)
        last = nn.Linear(head_size, num_classes + 1, bias=False)
        nn.init.xavier_uniform_(first.weight)
        nn.init.xavier_uniform_(last.weight)
        self.head = nn.Sequential(first, nn.ReLU(), last)
        self.weigh = nn.Linear(num_classes + 1, 1, bias=False)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Concatenate the audio feature and the attended visual feature, of equal width."""
        visual_BTD = self.narrow(self.attention(audio_BTD, visual_BTRD))
        return torch.cat([audio_BTD, visual_BTD], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute segment logits, each weighted by its own confidence, shape (B, T, K)."""
        audio_BTD, visual_BTD = codes_BTD.chunk(2, dim=-1)
        audio_BTD, _ = self.audio_lstm(audio_BTD)
        visual_BTD, _ = self.visual_lstm(visual_BTD)
        logits_BTK = self.head(self.propagation(audio_BTD, visual_BTD))
        return logits_BTK * self.weigh(logits_BTK).relu().sigmoid()

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Derive the sizes from the authors' layers."""
        attention_size, audio_dim = shapes["attention.affine_audio.weight"]
        num_scores, head_size = shapes["L2.weight"]
        return {
            "num_classes": num_scores - 1,
            "visual_dim": shapes["attention.affine_video.weight"][1],
            "audio_dim": audio_dim,
            "regions": shapes["attention.affine_v.weight"][0],
            "hidden_size": shapes["lstm_a_v.lstm_audio.weight_hh_l0"][1],
            "attention_size": attention_size,
            "head_size": head_size,
        }


class Propagation(nn.Module):
    """Adds to each segment the similar segments of the other modality (positive samples)."""

    def __init__(self, width: int, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.visual_value = nn.Linear(width, width, bias=False)
        self.visual_key = nn.Linear(width, width, bias=False)
        self.audio_value = nn.Linear(width, width, bias=False)
        self.audio_key = nn.Linear(width, width, bias=False)
        for layer in (self.visual_value, self.visual_key, self.audio_value, self.audio_key):
            nn.init.xavier_uniform_(layer.weight)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, audio_BTD: Tensor, visual_BTD: Tensor) -> Tensor:
        """Propagate between the modalities and return their mean, shape (B, T, D)."""
        visual_key_BTD = self._map(self.visual_key, visual_BTD)
        audio_key_BTD = self._map(self.audio_key, audio_BTD)
        similarity_BTT = visual_key_BTD @ audio_key_BTD.transpose(-1, -2)
        visual_to_audio_BTT = (similarity_BTT / visual_BTD.shape[-1] ** 0.5).relu()
        audio_to_visual_BTT = visual_to_audio_BTT.transpose(-1, -2)

        audio_value_BTD = self._map(self.audio_value, audio_BTD)
        visual_value_BTD = self._map(self.visual_value, visual_BTD)
        visual_BTD = visual_BTD + self._positive(visual_to_audio_BTT) @ audio_value_BTD
        audio_BTD = audio_BTD + self._positive(audio_to_visual_BTT) @ visual_value_BTD
        return (self.norm(visual_BTD) + self.norm(audio_BTD)) / 2

    def _map(self, layer: nn.Linear, x_BTD: Tensor) -> Tensor:
        return self.dropout(layer(x_BTD).relu())

    def _positive(self, similarity_BTT: Tensor) -> Tensor:
        share_BTT = similarity_BTT / (similarity_BTT.sum(dim=-1, keepdim=True) + 1e-8)
        return share_BTT.where(share_BTT > self.threshold / share_BTT.shape[-1], 0.0)
