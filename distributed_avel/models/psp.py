"""PSP: positive sample propagation, weakly supervised, of Zhou et al. 2021 (`psp_net`).

Shape suffixes: B = videos, T = segments, R = regions, D = feature size,
K = event classes + background.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distributed_avel.models.attention import ATTENTION_NAMES, AudioGuidedAttention
from distributed_avel.models.base import PublishedModel, Shape, register_model


@register_model("psp")
class Psp(PublishedModel):
    """Attention and Bi-LSTMs as in AVE; then segments that agree across modalities share.

    What stays in `score`: the LSTMs, the propagation between segments, and the weight of a
    segment, which is read off its scores. A similarity that rounding carries over `threshold`
    changes the scores by more than rounding; the published model has that step too.

    Args:
        hidden_size: Width of each direction of the LSTMs.
        attention_size: Width of the attention's first layers; by default `visual_dim`.
        head_size: Width of the layer before the scores.
        threshold: Relative similarities up to this part of their mean, 1/T, are set to 0; the
            published .095 is that of 10 segments.
    """

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
        attention_size: int | None = None,
        head_size: int = 64,
        threshold: float = 0.95,
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
        """The audio feature and the attended visual feature, as wide, side by side."""
        seen_BTD = self.narrow(self.attention(audio_BTD, visual_BTRD))
        return torch.cat([audio_BTD, seen_BTD], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores, each weighted by its own confidence, shape (B, T, K)."""
        audio_BTD, visual_BTD = codes_BTD.chunk(2, dim=-1)
        heard_BTD, _ = self.audio_lstm(audio_BTD)
        seen_BTD, _ = self.visual_lstm(visual_BTD)
        scores_BTK = self.head(self.propagation(heard_BTD, seen_BTD))
        return scores_BTK * self.weigh(scores_BTK).relu().sigmoid()

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Sizes from the authors' layers."""
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
    """Each segment takes up the segments of the other modality that it is similar to."""

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

    def forward(self, heard_BTD: Tensor, seen_BTD: Tensor) -> Tensor:
        """The mean of both modalities after they propagated, shape (B, T, D)."""
        seen_key_BTD = self._map(self.visual_key, seen_BTD)
        heard_key_BTD = self._map(self.audio_key, heard_BTD)
        similarity_BTT = seen_key_BTD @ heard_key_BTD.transpose(-1, -2)
        seen_to_heard_BTT = (similarity_BTT / seen_BTD.shape[-1] ** 0.5).relu()
        heard_to_seen_BTT = seen_to_heard_BTT.transpose(-1, -2)

        heard_value_BTD = self._map(self.audio_value, heard_BTD)
        seen_value_BTD = self._map(self.visual_value, seen_BTD)
        seen_BTD = seen_BTD + self._positive(seen_to_heard_BTT) @ heard_value_BTD
        heard_BTD = heard_BTD + self._positive(heard_to_seen_BTT) @ seen_value_BTD
        return (self.norm(seen_BTD) + self.norm(heard_BTD)) / 2

    def _map(self, layer: nn.Linear, x_BTD: Tensor) -> Tensor:
        return self.dropout(layer(x_BTD).relu())

    def _positive(self, similarity_BTT: Tensor) -> Tensor:
        share_BTT = similarity_BTT / (similarity_BTT.sum(dim=-1, keepdim=True) + 1e-8)
        return share_BTT.where(share_BTT > self.threshold / share_BTT.shape[-1], 0.0)
