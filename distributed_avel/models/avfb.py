"""AVFB: audio-visual fusion block of Ramaswamy & Das 2020 (WACV, "See the Sound, Hear the Pixels").

Reimplemented from a description, because the authors published no code. Only the paper's abstract
was available. It names two blocks, audio-visual fusion (AVFB) and segment-wise attention (SWAB),
and says that the same network serves full and weak supervision with minor modifications.

From the abstract: both modalities are fused within a segment, attention then weights the segments
of a video, and one network computes segment logits for either kind of supervision.

Our choices, which the abstract leaves open:
    * Fusion: factorized bilinear pooling, as in the first author's next paper, AVIN. We believe
      that this paper uses it, too, but could not verify it.
    * Attention: additive, with a softmax over the segments.
    * Weak supervision: a linear classifier on the attention-weighted mean of the video. This equals
      the mean over the segments of T x weight x logits, so this product is the segment logit.
      Weights change the confidence of a segment, but not its class. (Weighting the segments before
      a classifier and max pooling predicted background for four of five segments on generated
      features, far from the 68.9 % accuracy reported for AVFB.)
    * Attention over regions, the LSTMs before the fusion, and all widths: as in AVE.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
    K = event classes + background
"""

from typing import Any

from torch import Tensor, nn

from distributed_avel.models.base import register_model
from distributed_avel.models.bilinear import FactorizedBilinear
from distributed_avel.models.recurrent import RecurrentModel


@register_model("avfb")
class Avfb(RecurrentModel):
    """Two Bi-LSTMs, fusion of their states in each segment, and attention over the segments.

    `score` contains the LSTMs and the attention over the segments.

    Args:
        num_classes: C.
        hidden_size: Width of each direction of the LSTMs, and of the attention over segments.
        inputs: Further arguments of `RecurrentModel`.
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
        """Compute segment logits whose mean is the video logit, shape (B, T, K)."""
        audio_BTD, visual_BTD = self.states(codes_BTD)
        fused_BTD = self.fusion(audio_BTD, visual_BTD)
        weights_BT1 = self.weigh(fused_BTD).softmax(dim=1) * fused_BTD.shape[1]
        return weights_BT1 * self.head(fused_BTD)
