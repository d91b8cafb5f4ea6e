"""HAN: hybrid attention network for video parsing, of Tian et al. 2020 (AVVP, `MMIL_Net`).

Parsing asks which events are heard and which are seen in each segment: there are two
modalities, several events may be present at once, and there is no background class. So the
scores go through sigmoids, not a softmax, and pooling is a weighted mean of probabilities,
whose weights the model finds itself. They depend on the segments that are pooled, so the
scores carry their logits along, and a window of a video is pooled like the whole.

Shape suffixes: B = videos, T = segments, R = frames of a segment, D = feature size,
M = modalities (heard, seen), C = event classes, P = parts of a score.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distributed_avel.models.base import (
    ParsingModel,
    PublishedModel,
    Shape,
    VideoProb,
    register_model,
)
from distributed_avel.models.transformer import AttentionLayer, layer_names


@register_model("han")
class Han(PublishedModel, ParsingModel):
    """Each modality attends to itself and to the other; then attentive MIL pooling.

    Visual features are those of LLP: a row of a segment holds the features of one frame
    (ResNet-152) and, behind them, those of the segment's motion (R(2+1)D), the same in each
    row. Rows are averaged, so 8 frames a segment, (B, T, 8, 2560), and their mean,
    (B, T, 1, 2560), score alike.

    What stays in `score`: the attention between segments, and that of the pooling.

    Args:
        num_classes: C; there is no column for background.
        visual_dim: Width of the frame features and the motion features together.
        regions: Not needed, any number of frames will do.
        hidden_size: A quarter of the width of the network.
        motion_dim: Width of the motion features; by default a fifth of `visual_dim`, as 512
            are of the published 2560.
    """

    reference_names: ClassVar[Mapping[str, str]] = {
        "audio_in": "fc_a",
        "frame_in": "fc_v",
        "motion_in": "fc_st",
        "visual_in": "fc_fusion",
        **layer_names("hybrid", "hat_encoder.layers.0", ["cm_attn", "self_attn"]),
        "event": "fc_prob",
        "segment_attention": "fc_frame_att",
        "modality_attention": "fc_av_att",
    }
    reference_unused = (
        "audio_encoder",
        "visual_encoder",
        "cmt_encoder",
        "hat_encoder.norm1",
        "hat_encoder.norm2",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
        motion_dim: int | None = None,
    ) -> None:
        super().__init__()
        width = 4 * hidden_size
        motion_dim = motion_dim or max(visual_dim // 5, 1)
        self.visual_sizes = [visual_dim - motion_dim, motion_dim]
        self.audio_in = nn.Linear(audio_dim, width)
        self.frame_in = nn.Linear(visual_dim - motion_dim, width)
        self.motion_in = nn.Linear(motion_dim, width)
        self.visual_in = nn.Linear(2 * width, width)
        self.hybrid = AttentionLayer(width, heads=1, feedforward_size=width, memories=2)
        self.event = nn.Linear(width, num_classes)
        self.segment_attention = nn.Linear(width, num_classes)
        self.modality_attention = nn.Linear(width, num_classes)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Both modalities, brought to one width, side by side."""
        frame_BTD, motion_BTD = visual_BTRD.mean(dim=-2).split(self.visual_sizes, dim=-1)
        seen_BTD = torch.cat([self.frame_in(frame_BTD), self.motion_in(motion_BTD)], dim=-1)
        return torch.cat([self.audio_in(audio_BTD), self.visual_in(seen_BTD)], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw scores of shape (B, T, M, P, C): event, segment attention, modality attention."""
        heard_BTD, seen_BTD = codes_BTD.chunk(2, dim=-1)
        related_BTMD = torch.stack(
            [
                self.hybrid(heard_BTD, seen_BTD, heard_BTD),
                self.hybrid(seen_BTD, heard_BTD, seen_BTD),
            ],
            dim=-2,
        )
        parts = (self.event, self.segment_attention, self.modality_attention)
        return torch.stack([part(related_BTMD) for part in parts], dim=-2)

    def segment_prob(self, scores: Tensor) -> Tensor:
        """The sigmoid of the event scores, shape (B, T, M, C)."""
        return scores[..., 0, :].sigmoid()

    def video_prob(self, scores: Tensor, valid_BT: Tensor | None = None) -> VideoProb:
        """Attentive MIL pooling over the segments."""
        event, segment, modality = scores.unbind(dim=-2)
        if valid_BT is not None:
            outside_BT11 = ~valid_BT.unsqueeze(-1).unsqueeze(-1)
            segment = segment.masked_fill(outside_BT11, -torch.inf)
        by_segment_BTMC = event.sigmoid() * segment.softmax(dim=-3)
        heard_BC, seen_BC = by_segment_BTMC.sum(dim=-3).unbind(dim=-2)
        either_BC = (by_segment_BTMC * modality.softmax(dim=-2)).sum(dim=(-3, -2))
        return VideoProb(either=either_BC, heard=heard_BC, seen=seen_BC)

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Sizes from the authors' layers; none depends on the number of frames."""
        width, audio_dim = shapes["fc_a.weight"]
        motion_dim = shapes["fc_st.weight"][1]
        return {
            "num_classes": shapes["fc_prob.weight"][0],
            "visual_dim": shapes["fc_v.weight"][1] + motion_dim,
            "audio_dim": audio_dim,
            "regions": 8,
            "hidden_size": width // 4,
            "motion_dim": motion_dim,
        }
