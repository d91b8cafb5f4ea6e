"""CMRAN: cross-modal relation-aware network of Xu et al. 2020 (`weak_main_model`).

Shape suffixes used in this file:
    B = videos    T = segments    S = segments of both modalities (2 T)    R = regions
    D = feature size    K = event classes + background
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distributed_avel.errors import ConfigError
from distributed_avel.models.base import PublishedModel, Shape, register_model
from distributed_avel.models.gated import GatedModel
from distributed_avel.models.transformer import AttentionLayer, layer_names


@register_model("cmran")
class Cmran(GatedModel, PublishedModel):
    """Audio-guided attention over channels and regions, then within and across modalities.

    `score` contains all attention between segments and the class logits, which belong to the
    video. In train mode, `encode` applies dropout once, and all synthetic videos of a video share
    it; a naive loop would apply it to each separately.

    Args:
        num_classes: C.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: Unused; any number of regions is accepted.
        hidden_size: Half the width of the attention between segments; must be even.
        attention_size, feedforward_size: See `Config`.

    Raises:
        ConfigError: `hidden_size` is odd.
    """

    class Config(PublishedModel.Config):
        """Options of CMRAN."""

        attention_size: PositiveInt | None = None
        """Width of the audio-guided attention (default: width of the visual features)."""

        feedforward_size: PositiveInt | None = None
        """Width of the feed-forward layers (default: 16 times model.hidden_size)."""

    reference_names: ClassVar[Mapping[str, str]] = {
        "visual_in": "v_fc",
        "attention.visual_to_channels": "spatial_channel_att.affine_video_1",
        "attention.audio_to_channels": "spatial_channel_att.affine_audio_1",
        "attention.bottleneck": "spatial_channel_att.affine_bottleneck",
        "attention.channels": "spatial_channel_att.affine_v_c_att",
        "attention.visual_to_regions": "spatial_channel_att.affine_video_2",
        "attention.audio_to_regions": "spatial_channel_att.affine_audio_2",
        "attention.regions": "spatial_channel_att.affine_v_s_att",
        "visual_memory.0": "video_encoder.affine_matrix",
        **layer_names("visual_memory.1", "video_encoder.encoder.layers.0", ["self_attn"]),
        **layer_names("visual_memory.2", "video_encoder.encoder.layers.1", ["self_attn"]),
        "audio_memory.0": "audio_encoder.affine_matrix",
        **layer_names("audio_memory.1", "audio_encoder.encoder.layers.0", ["self_attn"]),
        **layer_names("audio_memory.2", "audio_encoder.encoder.layers.1", ["self_attn"]),
        "visual_query": "video_decoder.affine_matrix",
        **layer_names("visual_relation", "video_decoder.decoder.layers.0", ["multihead_attn"]),
        "audio_query": "audio_decoder.affine_matrix",
        **layer_names("audio_relation", "audio_decoder.decoder.layers.0", ["multihead_attn"]),
        "fusion": "AVInter.video_multihead",
        "fusion_norm": "AVInter.norm1",
        "event": "localize_module.classifier",
        "category": "localize_module.event_classifier",
    }
    reference_unused = (
        "spatial_channel_att.affine_video_guided_1",
        "spatial_channel_att.affine_video_guided_2",
        "video_encoder.encoder_layer",
        "audio_encoder.encoder_layer",
        "video_decoder.decoder_layer",
        "audio_decoder.decoder_layer",
        "video_decoder.decoder.layers.0.self_attn",
        "audio_decoder.decoder.layers.0.self_attn",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
        attention_size: int | None,
        feedforward_size: int | None,
    ) -> None:
        if hidden_size % 2:
            raise ConfigError(
                f"model.hidden_size: cmran has 4 heads and needs an even number, got {hidden_size}"
            )
        width = 2 * hidden_size
        super().__init__(width=width, num_classes=num_classes, summary="max")
        self.code_sizes = [audio_dim, visual_dim]
        self.visual_in = nn.Linear(visual_dim, visual_dim)
        self.dropout = nn.Dropout(0.2)
        self.attention = SpatialChannelAttention(
            audio_dim=audio_dim, visual_dim=visual_dim, hidden_size=attention_size or visual_dim
        )

        def layer() -> AttentionLayer:
            size = feedforward_size or 16 * hidden_size
            return AttentionLayer(width, heads=4, feedforward_size=size)

        self.visual_memory = nn.Sequential(nn.Linear(visual_dim, width), layer(), layer())
        self.audio_memory = nn.Sequential(nn.Linear(audio_dim, width), layer(), layer())
        self.visual_query, self.visual_relation = nn.Linear(visual_dim, width), layer()
        self.audio_query, self.audio_relation = nn.Linear(audio_dim, width), layer()
        self.fusion = nn.MultiheadAttention(width, num_heads=2, dropout=0.1, batch_first=True)
        self.fusion_dropout = nn.Dropout(0.1)
        self.fusion_norm = nn.LayerNorm(width)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Concatenate the audio feature and the attended visual feature."""
        visual_BTRD = self.dropout(self.visual_in(visual_BTRD).relu())
        return torch.cat([audio_BTD, self.attention(audio_BTD, visual_BTRD)], dim=-1)

    def relate(self, codes_BTD: Tensor) -> Tensor:
        """Relate each modality to the other and fuse them, shape (B, T, D)."""
        audio_BTD, visual_BTD = codes_BTD.split(self.code_sizes, dim=-1)
        audio_query_BTD = self.audio_query(audio_BTD)
        visual_query_BTD = self.visual_query(visual_BTD)
        visual_memory_BSD = torch.cat([self.visual_memory(visual_BTD), audio_query_BTD], dim=1)
        audio_memory_BSD = torch.cat([self.audio_memory(audio_BTD), visual_query_BTD], dim=1)
        audio_BTD = self.audio_relation(audio_query_BTD, visual_memory_BSD)
        visual_BTD = self.visual_relation(visual_query_BTD, audio_memory_BSD)
        both_BTD = visual_BTD * audio_BTD
        memory_BSD = torch.cat([audio_BTD, visual_BTD], dim=1)
        fused_BTD, _ = self.fusion(both_BTD, memory_BSD, memory_BSD, need_weights=False)
        return self.fusion_norm(both_BTD + self.fusion_dropout(fused_BTD))

    @classmethod
    def reference_sizes(cls, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Derive the sizes from the authors' layers, which do not depend on the regions."""
        attention_size, audio_dim = shapes["spatial_channel_att.affine_audio_1.weight"]
        num_scores, width = shapes["localize_module.event_classifier.weight"]
        return {
            "num_classes": num_scores - 1,
            "visual_dim": shapes["v_fc.weight"][1],
            "audio_dim": audio_dim,
            "regions": 49,
            "hidden_size": width // 2,
            "attention_size": attention_size,
            "feedforward_size": shapes["video_encoder.encoder.layers.0.linear1.weight"][0],
        }


class SpatialChannelAttention(nn.Module):
    """Audio-guided attention over the channels, then the regions, of the visual features."""

    def __init__(self, *, audio_dim: int, visual_dim: int, hidden_size: int) -> None:
        super().__init__()
        bottleneck_size = hidden_size // 2
        self.visual_to_channels = nn.Linear(visual_dim, hidden_size)
        self.audio_to_channels = nn.Linear(audio_dim, hidden_size)
        self.bottleneck = nn.Linear(hidden_size, bottleneck_size)
        self.channels = nn.Linear(bottleneck_size, visual_dim)
        self.visual_to_regions = nn.Linear(visual_dim, bottleneck_size)
        self.audio_to_regions = nn.Linear(audio_dim, bottleneck_size)
        self.regions = nn.Linear(bottleneck_size, 1)

    def forward(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Compute the attention-weighted mean over the regions, shape (B, T, D)."""
        audio_query_BTD = self.audio_to_channels(audio_BTD).relu()
        visual_mean_BTD = self.visual_to_channels(visual_BTRD).relu().mean(dim=-2)
        joint_BTD = audio_query_BTD * visual_mean_BTD
        channels_BTD = self.channels(self.bottleneck(joint_BTD).relu()).sigmoid()
        visual_BTRD = visual_BTRD * (channels_BTD.unsqueeze(-2) + 1)

        audio_query_BT1D = self.audio_to_regions(audio_BTD).relu().unsqueeze(-2)
        visual_key_BTRD = self.visual_to_regions(visual_BTRD).relu()
        weights_BTR1 = torch.tanh(self.regions(audio_query_BT1D * visual_key_BTRD)).softmax(dim=-2)
        return (weights_BTR1.transpose(-1, -2) @ visual_BTRD).squeeze(-2)
