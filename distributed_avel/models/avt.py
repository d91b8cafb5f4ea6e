"""AVT: audiovisual transformer with instance attention of Lin & Wang 2020 (ACCV).

Reimplemented from the text: no code of the authors is public. The text was the paper's abstract
only. It says that a transformer exploits visual information within a frame and between frames,
that audio is observed jointly with them by co-attention over these three, and that attention at
the level of instances tells which regions of a frame belong to the sound.

What follows that text: within a frame, regions attend to each other and to what is heard
(co-attention within the frame); what is heard then weighs the regions so related (instance
attention); between segments, each modality attends to itself over time and to the other.

What the text leaves open, and our choice: the form of all of this. The layers are those of the
transformer (post-norm, 4 heads, dropout .1, one layer each, feed-forward steps twice as wide as
the network); the order of segments is told by sinusoids; between frames, frames are compared after
instance attention, as vectors, not region by region, which also keeps the codes of `encode`
small; one layer classifies both modalities side by side; weak supervision takes the maximum over
the segments. So this is one network of the kind that the abstract describes, hardly the authors'.

Shape suffixes: B = videos, T = segments, R = regions, D = feature size,
K = event classes + background.
"""

import torch
from torch import Tensor, nn

from distributed_avel.errors import ConfigError
from distributed_avel.models.base import BaseModel, register_model
from distributed_avel.models.transformer import AttentionLayer


@register_model("avt")
class Avt(BaseModel):
    """Attention between regions and sound within a segment, then between segments.

    What stays in `score`: all attention between segments. In train mode the attention of `encode`
    has dropout: the synthetic videos of a video then share one draw, where a naive loop would
    draw for each.

    Args:
        regions: Not needed, any number will do.
        hidden_size: Half the width of the network; an even number.
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
        """What is heard, and the regions that it weighs, side by side, twice the width."""
        heard_BT1D = self.audio_in(audio_BTD).unsqueeze(-2)
        regions_BTRD = self.visual_in(visual_BTRD)
        memory = torch.cat([regions_BTRD, heard_BT1D], dim=-2).flatten(0, 1)
        related = self.within_frame(regions_BTRD.flatten(0, 1), memory)
        related_BTRD = related.unflatten(0, regions_BTRD.shape[:2])
        asked_BTD1 = self.instance_query(heard_BT1D).transpose(-1, -2)
        likeness_BTR1 = self.instance_key(related_BTRD) @ asked_BTD1 / asked_BTD1.shape[-2] ** 0.5
        seen_BT1D = likeness_BTR1.softmax(dim=-2).transpose(-1, -2) @ related_BTRD
        return torch.cat([heard_BT1D, seen_BT1D], dim=-1).squeeze(-2)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores, shape (B, T, K)."""
        heard_BTD, seen_BTD = codes_BTD.chunk(2, dim=-1)
        places_TD = sinusoids(heard_BTD.shape[1], heard_BTD)
        heard_BTD, seen_BTD = heard_BTD + places_TD, seen_BTD + places_TD
        both = [
            self.audio_between(heard_BTD, heard_BTD, seen_BTD),
            self.visual_between(seen_BTD, seen_BTD, heard_BTD),
        ]
        return self.head(torch.cat(both, dim=-1))


def sinusoids(num_segments: int, like: Tensor) -> Tensor:
    """Where a segment stands, as in Vaswani et al. 2017, shape (T, D) with the D of `like`."""
    width = like.shape[-1]
    place_T1 = torch.arange(num_segments, dtype=like.dtype, device=like.device).unsqueeze(-1)
    even_H = torch.arange(0, width, 2, dtype=like.dtype, device=like.device)
    angle_TH = place_T1 / 10000 ** (even_H / width)
    return torch.stack([angle_TH.sin(), angle_TH.cos()], dim=-1).flatten(-2)
