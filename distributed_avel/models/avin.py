"""AVIN: audio-visual interacting network of Ramaswamy 2020 (ICASSP, "What Makes the Sound?").

Reimplemented from a description, because the authors published no code. The paper's abstract and
the reading notes of Jiashuo Yu (Daily Paper 60, justinyuu.github.io), which describe the method
step by step, were available; the paper itself was not.

From the description:
    * An LSTM for each modality. Both modalities are fused per segment by factorized bilinear
      pooling with power and L2 normalization and dropout.
    * Interactions within a modality: the dot product of each segment with the mean of its video, a
      softmax over the segments, and the segments times these weights. Interactions across
      modalities: the same with the mean of all interactions within modalities.
    * A fully connected layer on the concatenation of the four interactions and the fused segments.

Deviation: the weights are multiplied by T, so that their average is 1 and the mean of a modality's
interactions is the attention-weighted mean of its segments. Without it, interactions are small
compared with the fused segments, and windows with and without the event are separated less well
(area under the ROC curve 0.77 and 0.73 instead of 0.85 and 0.85; generated features, two seeds).

Our choices, which the description leaves open:
    * Attention over the 7 x 7 regions: audio-guided, as in AVE.
    * LSTMs: bidirectional, with the widths of AVE.
    * q and the dropout rate: 5 and 0.1, as in the paper of MFB.
    * Pooling under weak supervision: the maximum, as in AVE.

Shape suffixes used in this file:
    B = videos    T = segments    R = regions    D = feature size
    K = event classes + background
"""

from typing import Any

import torch
from torch import Tensor, nn

from distributed_avel.models.base import register_model
from distributed_avel.models.bilinear import FactorizedBilinear
from distributed_avel.models.recurrent import RecurrentModel


@register_model("avin")
class Avin(RecurrentModel):
    """Bilinear fusion of the modalities, and segments weighted by similarity to their video.

    `score` contains the LSTMs and the weighting of the segments.

    Args:
        num_classes: C.
        hidden_size: Width of each direction of the LSTMs.
        inputs: Further arguments of `RecurrentModel`.
    """

    def __init__(self, *, num_classes: int, hidden_size: int = 128, **inputs: Any) -> None:
        super().__init__(hidden_size=hidden_size, **inputs)
        width = 2 * hidden_size
        self.fusion = FactorizedBilinear(width)
        self.head = nn.Linear(5 * width, num_classes + 1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute segment logits, shape (B, T, K)."""
        audio_BTD, visual_BTD = self.states(codes_BTD)
        audio_within_BTD = interaction(audio_BTD, audio_BTD.mean(dim=1))
        visual_within_BTD = interaction(visual_BTD, visual_BTD.mean(dim=1))
        both_BD = (audio_within_BTD.mean(dim=1) + visual_within_BTD.mean(dim=1)) / 2
        parts = [
            audio_within_BTD,
            visual_within_BTD,
            interaction(audio_BTD, both_BD),
            interaction(visual_BTD, both_BD),
            self.fusion(audio_BTD, visual_BTD),
        ]
        return self.head(torch.cat(parts, dim=-1))


def interaction(segments_BTD: Tensor, summary_BD: Tensor) -> Tensor:
    """Weight segments by their similarity to a summary vector, shape (B, T, D).

    The weights of a video average 1.
    """
    similarity_BT1 = segments_BTD @ summary_BD.unsqueeze(-1)
    return similarity_BT1.softmax(dim=1) * segments_BTD.shape[1] * segments_BTD
