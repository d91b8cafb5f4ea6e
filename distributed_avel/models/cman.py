"""CMAN: cross-modal attention network of Xuan et al. 2020 (AAAI): where, when and which to attend.

Reimplemented from a description, because the authors published no code. The paper's abstract and
the reading notes of Jiashuo Yu (Daily Paper 61, justinyuu.github.io), which describe the method
module by module, were available; the paper itself was not. The notes show the equations of the
sentinel only as images and identify it as the visual sentinel, so it follows equations 5, 6, 8 and
9 of Lu et al. 2017 ("Knowing When to Look").

From the description:
    * Where: both modalities are projected linearly to one size, and regions are weighted by the
      normalized inner product of the audio feature and the visual features.
    * When: self-attention over the segments of each modality.
    * Which: an LSTM with a sentinel, which contains what the LSTM stores of its own modality. The
      state attends to the segments of the other modality and to the sentinel; beta, the weight of
      the sentinel, balances the modalities. The result is added to the state.

Our choices, which the description leaves open:
    * Weights of the regions: a softmax of the cosines, without temperature.
    * Self-attention: one head, scaled dot product, without residual connection or feed-forward
      layer.
    * The attended segments of the other modality are those before its LSTM.
    * Classifier: a single layer on the sum of state and result.
    * Widths: `hidden_size`. Pooling under weak supervision: the maximum, as in AVE.

Shape suffixes used in this file:
    B = videos    T = segments    S = segments of the other modality    R = regions
    D = feature size    K = event classes + background
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from distributed_avel.models.base import BaseModel, register_model


@register_model("cman")
class Cman(BaseModel):
    """Attention over regions ("where"), over segments ("when") and over modalities ("which").

    `score` contains the attention between segments and the LSTMs.

    Args:
        num_classes: C.
        visual_dim: Width of the visual features.
        audio_dim: Width of the audio features.
        regions: Unused; any number of regions is accepted.
        hidden_size: Width of all layers between the features and the logits.
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
        super().__init__()
        self.code_sizes = [audio_dim, visual_dim]
        self.audio_where = nn.Linear(audio_dim, hidden_size)
        self.visual_where = nn.Linear(visual_dim, hidden_size)
        self.audio_when = SegmentAttention(audio_dim, hidden_size)
        self.visual_when = SegmentAttention(visual_dim, hidden_size)
        self.audio_lstm = SentinelLstm(hidden_size)
        self.visual_lstm = SentinelLstm(hidden_size)
        self.audio_which = AdaptiveCoAttention(hidden_size)
        self.visual_which = AdaptiveCoAttention(hidden_size)
        self.head = nn.Linear(2 * hidden_size, num_classes + 1)

    def encode(self, audio_BTD: Tensor, visual_BTRD: Tensor) -> Tensor:
        """Concatenate the audio feature and the regions weighted by similarity to it."""
        query_BTD1 = normalize(self.audio_where(audio_BTD), dim=-1).unsqueeze(-1)
        key_BTRD = normalize(self.visual_where(visual_BTRD), dim=-1)
        weights_BTR1 = (key_BTRD @ query_BTD1).softmax(dim=-2)
        attended_BTD = (weights_BTR1.transpose(-1, -2) @ visual_BTRD).squeeze(-2)
        return torch.cat([audio_BTD, attended_BTD], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute segment logits, shape (B, T, K)."""
        audio_BTD, visual_BTD = codes_BTD.split(self.code_sizes, dim=-1)
        audio_BTD, visual_BTD = self.audio_when(audio_BTD), self.visual_when(visual_BTD)
        both = [
            self.audio_which(*self.audio_lstm(audio_BTD), visual_BTD),
            self.visual_which(*self.visual_lstm(visual_BTD), audio_BTD),
        ]
        return self.head(torch.cat(both, dim=-1))


class SegmentAttention(nn.Module):
    """Self-attention over the segments of a video (one head, scaled dot product)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width_in, width, bias=False)
        self.key = nn.Linear(width_in, width, bias=False)
        self.value = nn.Linear(width_in, width, bias=False)

    def forward(self, segments_BTD: Tensor) -> Tensor:
        """Attend from each segment to all segments, shape (B, T, D)."""
        query_BTD, key_BTD = self.query(segments_BTD), self.key(segments_BTD)
        similarity_BTT = query_BTD @ key_BTD.transpose(-1, -2) / query_BTD.shape[-1] ** 0.5
        return similarity_BTT.softmax(dim=-1) @ self.value(segments_BTD)


class SentinelLstm(nn.Module):
    """An LSTM that also returns a sentinel, its gated memory (Lu et al. 2017, eqs. 5 and 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(width, width)
        self.gate_input = nn.Linear(width, width)
        self.gate_state = nn.Linear(width, width, bias=False)

    def forward(self, segments_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden states and the sentinels, both (B, T, D)."""
        state_BD = segments_BTD.new_zeros(segments_BTD.shape[0], self.cell.hidden_size)
        memory_BD = state_BD
        states, memories = [state_BD], []
        for segment_BD in segments_BTD.unbind(dim=1):
            state_BD, memory_BD = self.cell(segment_BD, (state_BD, memory_BD))
            states.append(state_BD)
            memories.append(memory_BD)
        before_BTD = torch.stack(states[:-1], dim=1)
        gate_BTD = (self.gate_input(segments_BTD) + self.gate_state(before_BTD)).sigmoid()
        return torch.stack(states[1:], dim=1), gate_BTD * torch.stack(memories, dim=1).tanh()


class AdaptiveCoAttention(nn.Module):
    """Adds to each state a mix of its sentinel and the other modality (Lu et al., eqs. 8 and 9)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, width)
        self.other = nn.Linear(width, width, bias=False)
        self.sentinel = nn.Linear(width, width, bias=False)
        self.weigh = nn.Linear(width, 1, bias=False)

    def forward(self, states_BTD: Tensor, sentinels_BTD: Tensor, other_BSD: Tensor) -> Tensor:
        """Attend from each state to the other modality and to the sentinel, shape (B, T, D)."""
        query_BTD = self.state(states_BTD)
        joint_BTSD = (self.other(other_BSD).unsqueeze(1) + query_BTD.unsqueeze(2)).tanh()
        across_BTS = self.weigh(joint_BTSD).squeeze(-1)
        within_BT1 = self.weigh((self.sentinel(sentinels_BTD) + query_BTD).tanh())
        # beta is the weight of the sentinel in a softmax over it and the other modality.
        beta_BT1 = torch.cat([across_BTS, within_BT1], dim=-1).softmax(dim=-1)[..., -1:]
        attended_BTD = across_BTS.softmax(dim=-1) @ other_BSD
        return states_BTD + beta_BT1 * sentinels_BTD + (1 - beta_BT1) * attended_BTD
