"""AVT: audiovisual transformer with instance attention of Lin & Wang 2020 (ACCV).

Reimplemented from a description, because the authors published no code. Only the paper's abstract
was available. It says that a transformer uses visual information within a frame and between
frames, that co-attention combines both with audio, and that instance attention finds the regions
of a frame that belong to the sound.

From the abstract: within a frame, regions attend to each other and to the audio feature
(co-attention); the audio feature then weights the resulting regions (instance attention); between
segments, each modality attends to itself and to the other.

Our choices, which the abstract leaves open, concern the form of all of these:
    * Transformer layers: post-norm, 4 heads, dropout 0.1, one layer each, feed-forward layers
      twice as wide as the network; sinusoidal position encoding of the segments.
    * Attention between frames: on the vectors after instance attention instead of on regions,
      which also keeps the codes of `encode` small.
    * Classifier: one layer on the concatenation of both modalities; max pooling under weak
      supervision.

The result is a network of the kind that the abstract describes, and probably not the authors'.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size    H = D / 2
    K = event classes + background
"""

import torch
from torch import Tensor, nn

from distributed_avel.errors import ConfigError
from distributed_avel.models.base import BaseModel, register_model
from distributed_avel.models.transformer import AttentionLayer


@register_model("avt")
class Avt(BaseModel):
    """Attention between regions and audio within a segment, then attention between segments.

    `score` contains all attention between segments. In train mode, `encode` applies dropout once,
    and all synthetic videos of a video share it; a naive loop would apply it to each separately.

    Args:
        num_classes: C.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: Unused; any number of regions is accepted.
        hidden_size: Half the width of the network; must be even.

    Raises:
        ConfigError: `hidden_size` is odd.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        visual_dim: int,
        audio_dim: int,
        regions: int,
        hidden_size: int = 128,
    ) -> None:
        if hidden_size % 2:
            raise ConfigError(
                f"model.hidden_size: avt has 4 heads and needs an even number, got {hidden_size}"
            )
        super().__init__()
        width = 2 * hidden_size

        def layer(memories: int) -> AttentionLayer:
            return AttentionLayer(width, heads=4, feedforward_size=2 * width, memories=memories)

        self.audio_in = nn.Linear(audio_dim, width)
        self.visual_in = nn.Linear(visual_dim, width)
        self.within_frame = layer(memories=1)
        self.instance_query = nn.Linear(width, width)
        self.instance_key = nn.Linear(width, width, bias=False)
        self.audio_between = layer(memories=2)
        self.visual_between = layer(memories=2)
        self.head = nn.Linear(2 * width, num_classes + 1)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Concatenate the audio feature and the audio-weighted regions, shape (B, T, 2 D)."""
        audio_BT1D = self.audio_in(audio_BTD).unsqueeze(-2)
        regions_BTRD = self.visual_in(visual_BTRD)
        memory = torch.cat([regions_BTRD, audio_BT1D], dim=-2).flatten(0, 1)
        related = self.within_frame(regions_BTRD.flatten(0, 1), memory)
        related_BTRD = related.unflatten(0, regions_BTRD.shape[:2])
        query_BTD1 = self.instance_query(audio_BT1D).transpose(-1, -2)
        similarity_BTR1 = self.instance_key(related_BTRD) @ query_BTD1 / query_BTD1.shape[-2] ** 0.5
        visual_BT1D = similarity_BTR1.softmax(dim=-2).transpose(-1, -2) @ related_BTRD
        return torch.cat([audio_BT1D, visual_BT1D], dim=-1).squeeze(-2)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute segment logits, shape (B, T, K)."""
        audio_BTD, visual_BTD = codes_BTD.chunk(2, dim=-1)
        positions_TD = sinusoids(audio_BTD.shape[1], audio_BTD)
        audio_BTD, visual_BTD = audio_BTD + positions_TD, visual_BTD + positions_TD
        both = [
            self.audio_between(audio_BTD, audio_BTD, visual_BTD),
            self.visual_between(visual_BTD, visual_BTD, audio_BTD),
        ]
        return self.head(torch.cat(both, dim=-1))


def sinusoids(num_segments: int, like: Tensor) -> Tensor:
    """Compute sinusoidal position encodings (Vaswani et al. 2017), shape (T, D).

    Args:
        num_segments: T.
        like: Tensor whose last axis has size D, and whose dtype and device the result has.
    """
    width = like.shape[-1]
    position_T1 = torch.arange(num_segments, dtype=like.dtype, device=like.device).unsqueeze(-1)
    even_H = torch.arange(0, width, 2, dtype=like.dtype, device=like.device)
    angle_TH = position_T1 / 10000 ** (even_H / width)
    return torch.stack([angle_TH.sin(), angle_TH.cos()], dim=-1).flatten(-2)
