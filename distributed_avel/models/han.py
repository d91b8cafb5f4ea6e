"""HAN: hybrid attention network for video parsing, of Tian et al. 2020 (AVVP, `MMIL_Net`).

Parsing predicts the audible and the visible events of each segment. A segment may have several
events, and there is no background class. The model therefore applies sigmoids instead of a
softmax, and pools with an attention-weighted mean of probabilities. The attention weights depend
on the segments that are pooled, so `score` returns the attention logits, too, and a window of a
video can be pooled like a whole video.

Shape suffixes used in this file:
    B = videos    T = segments    R = frames of a segment    D = feature size
    M = modalities (audio, visual)    C = event classes
    P = outputs of a segment: event logit, segment-attention logit, modality-attention logit
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distributed_avel.errors import ConfigError
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
    """Attention within and across modalities, then attentive MIL pooling.

    Visual features are those of LLP: each row of a segment concatenates the features of one frame
    (ResNet-152) and the motion features of the segment (R(2+1)D), which are the same in each row.
    Rows are averaged, so 8 frames per segment, (B, T, 8, 2560), and their mean, (B, T, 1, 2560),
    give equal results.

    `score` contains the attention between segments and the attention logits of the pooling.

    Args:
        num_classes: C; there is no column for background.
        visual_dim: Width of the frame features plus that of the motion features.
        audio_dim: Width of the audio features.
        regions: Unused; any number of frames is accepted.
        hidden_size: A quarter of the width of the network.
        motion_dim: See `Config`.

    Raises:
        ConfigError: `motion_dim` leaves no columns for the frame features.
    """

    class Config(PublishedModel.Config):
        """Options of HAN."""

        motion_dim: PositiveInt | None = None
        """Width of the motion features, the last columns of the visual features (default: a fifth
        of the columns, like 512 of the published 2560)."""

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
        motion_dim: int | None,
    ) -> None:
        if motion_dim is not None and motion_dim >= visual_dim:
            raise ConfigError(
                f"model.options.motion_dim: must be less than the width of the visual features, "
                f"{visual_dim}, got {motion_dim}"
            )
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
        """Project both modalities to the same width and concatenate them."""
        frame_BTD, motion_BTD = visual_BTRD.mean(dim=-2).split(self.visual_sizes, dim=-1)
        visual_BTD = torch.cat([self.frame_in(frame_BTD), self.motion_in(motion_BTD)], dim=-1)
        return torch.cat([self.audio_in(audio_BTD), self.visual_in(visual_BTD)], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute the logits of events, segment attention and modality attention.

        Returns:
            Shape (B, T, M, P, C).
        """
        audio_BTD, visual_BTD = codes_BTD.chunk(2, dim=-1)
        related_BTMD = torch.stack(
            [
                self.hybrid(audio_BTD, visual_BTD, audio_BTD),
                self.hybrid(visual_BTD, audio_BTD, visual_BTD),
            ],
            dim=-2,
        )
        layers = (self.event, self.segment_attention, self.modality_attention)
        return torch.stack([layer(related_BTMD) for layer in layers], dim=-2)

    def segment_prob(self, scores: Tensor) -> Tensor:
        """Compute the sigmoid of the event logits, shape (B, T, M, C)."""
        return scores[..., 0, :].sigmoid()

    def video_prob(self, scores: Tensor, valid_BT: Tensor | None = None) -> VideoProb:
        """Pool the probabilities over the segments with attention (attentive MMIL pooling)."""
        event, segment, modality = scores.unbind(dim=-2)
        if valid_BT is not None:
            outside_BT11 = ~valid_BT.unsqueeze(-1).unsqueeze(-1)
            segment = segment.masked_fill(outside_BT11, -torch.inf)
        by_segment_BTMC = event.sigmoid() * segment.softmax(dim=-3)
        audio_BC, visual_BC = by_segment_BTMC.sum(dim=-3).unbind(dim=-2)
        either_BC = (by_segment_BTMC * modality.softmax(dim=-2)).sum(dim=(-3, -2))
        return VideoProb(either=either_BC, heard=audio_BC, seen=visual_BC)

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Derive the sizes from the authors' layers, which do not depend on the frames."""
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
