"""AVFB: audio-visual fusion block of Ramaswamy & Das 2020 (WACV, "See the Sound, Hear the Pixels").

Reimplemented from the text: no code of the authors is public. The text was the paper's abstract
only. It names the two blocks, audio-visual fusion (AVFB) and segment-wise attention (SWAB), and
says that the same network serves full and weak supervision with minor modifications.

What follows that text: that both modalities are fused within a segment, that attention then weighs
the segments of a video, and that one network scores segments however it is supervised.

What the text leaves open, and our choice: the fusion (factorized bilinear pooling, which the first
author's next paper, AVIN, fuses with; we believe it is this paper's too, but could not check it);
the attention (additive, a softmax over the segments); how the weak supervision uses it: a linear
classifier sees the mean of the video weighted by attention, which is the mean over the segments of
T x weight x score, so this product is the score of a segment. Weights change how sure a segment
is, never its class. (We first weighed the segments, before a classifier and the maximum: on
generated features that called four of five segments background, far from the 68.9 % accuracy that
is reported of AVFB.) How regions become one vector, the LSTMs before the fusion, and all widths
are as in AVE.

Shape suffixes: B = videos, T = segments, R = regions, D = feature size,
K = event classes + background.
"""

from typing import Any

from torch import Tensor, nn

from distributed_avel.models.base import register_model
from distributed_avel.models.bilinear import FactorizedBilinear
from distributed_avel.models.recurrent import RecurrentModel


@register_model("avfb")
class Avfb(RecurrentModel):
    """Two Bi-LSTMs, their states fused in each segment, and attention over the segments.

    What stays in `score`: the LSTMs and the attention over the segments.

    Args:
        hidden_size: Width of each direction of the LSTMs, and of the attention over segments.
        attention_size: Width of the first layers of the attention over regions; by default
            `visual_dim`.
    """

    pooling = "mean"

    def __init__(self, *, num_classes: int, hidden_size: int = 128, **inputs: Any) -> None:
        super().__init__(hidden_size=hidden_size, **inputs)
        width = 2 * hidden_size
        self.fusion = FactorizedBilinear(width)
        self.weigh = nn.Sequential(
            nn.Linear(width, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1, bias=False)
        )
        self.head = nn.Linear(width, num_classes + 1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores, weighed so that their mean is that of the video, shape (B, T, K)."""
        heard_BTD, seen_BTD = self.states(codes_BTD)
        fused_BTD = self.fusion(heard_BTD, seen_BTD)
        weights_BT1 = self.weigh(fused_BTD).softmax(dim=1) * fused_BTD.shape[1]
        return weights_BT1 * self.head(fused_BTD)
