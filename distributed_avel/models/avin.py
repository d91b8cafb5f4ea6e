"""AVIN: audio-visual interacting network of Ramaswamy 2020 (ICASSP, "What Makes the Sound?").

Reimplemented from the text: no code of the authors is public. The text was the paper's abstract
and the reading notes of Jiashuo Yu (Daily Paper 60, justinyuu.github.io), which retell the method
step by step; the paper itself was not at hand.

What follows that text: an LSTM for each modality; segment by segment, both fused by factorized
bilinear pooling with power and L2 normalization and dropout; the interactions within a modality
(the dot product of each segment with the mean of its video, a softmax over the segments, and the
segments times these weights) and, by the same rule, across modalities (with the mean of all
interactions within); all four and the fused segments, side by side, into one fully connected layer.

Where we leave it: the weights are times T, so that they average 1, and the mean of a modality's
interactions is its segments weighed by attention. As the notes have it, interactions fade beside
the fused segments, and windows with the event were told from others less well (area under the
curve .77 and .73 against .85 and .85: generated features, two seeds).

What the text leaves open, and our choice: how 7 x 7 regions become one vector (the audio-guided
attention of AVE); the direction of the LSTMs (both) and all widths (those of AVE); q and the rate
of dropout (5 and .1, as in MFB's paper); how segments are pooled under weak supervision (the
maximum, as in AVE).

Shape suffixes: B = videos, T = segments, R = regions, D = feature size,
K = event classes + background.
"""

from typing import Any

import torch
from torch import Tensor, nn

from distributed_avel.models.base import register_model
from distributed_avel.models.bilinear import FactorizedBilinear
from distributed_avel.models.recurrent import RecurrentModel


@register_model("avin")
class Avin(RecurrentModel):
    """Fused segments, beside segments weighed by how much they resemble their video.

    What stays in `score`: the LSTMs, and the weights of the segments.

    Args:
        hidden_size: Width of each direction of the LSTMs.
        attention_size: Width of the attention's first layers; by default `visual_dim`.
    """

    def __init__(self, *, num_classes: int, hidden_size: int = 128, **inputs: Any) -> None:
        super().__init__(hidden_size=hidden_size, **inputs)
        width = 2 * hidden_size
        self.fusion = FactorizedBilinear(width)
        self.head = nn.Linear(5 * width, num_classes + 1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores, shape (B, T, K)."""
        heard_BTD, seen_BTD = self.states(codes_BTD)
        heard_within_BTD = interaction(heard_BTD, heard_BTD.mean(dim=1))
        seen_within_BTD = interaction(seen_BTD, seen_BTD.mean(dim=1))
        both_BD = (heard_within_BTD.mean(dim=1) + seen_within_BTD.mean(dim=1)) / 2
        parts = [
            heard_within_BTD,
            seen_within_BTD,
            interaction(heard_BTD, both_BD),
            interaction(seen_BTD, both_BD),
            self.fusion(heard_BTD, seen_BTD),
        ]
        return self.head(torch.cat(parts, dim=-1))


def interaction(segments_BTD: Tensor, summary_BD: Tensor) -> Tensor:
    """The segments, weighed by their likeness to the summary, shape (B, T, D).

    The weights of a video average 1.
    """
    likeness_BT1 = segments_BTD @ summary_BD.unsqueeze(-1)
    return likeness_BT1.softmax(dim=1) * segments_BTD.shape[1] * segments_BTD
