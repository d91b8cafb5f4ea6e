"""CMAN: cross-modal attention network of Xuan et al. 2020 (AAAI), which asks where, when, which.

Reimplemented from the text: no code of the authors is public. The text was the paper's abstract
and the reading notes of Jiashuo Yu (Daily Paper 61, justinyuu.github.io), which retell the method
module by module; the paper itself was not at hand. The notes show the sentinel's equations as
pictures only; they say that it is the visual sentinel, whose equations (5, 6, 8 and 9 of Lu et
al. 2017, "Knowing When to Look") stand in for them.

What follows that text:
    where: both modalities are projected to one size without nonlinearity, and regions are weighed
        by the normalized inner product of what is heard and what is seen;
    when: self-attention over the segments of each modality;
    which: an LSTM that also yields a sentinel, what it remembers of its own modality; attention of
        its state over the segments of the other modality and the sentinel; beta, the share of the
        sentinel, trades one modality for the other; the result is added to the state.

What the text leaves open, and our choice: whether the weights of the regions are a softmax of the
cosines (yes, without temperature); the form of the self-attention (one head, scaled dot product,
neither residual nor feed-forward step); that what is attended to is the other modality before its
LSTM; that the sum of state and result enters the classifier, a single layer, as it is; all widths
(`hidden_size`); the maximum over the segments under weak supervision (as in AVE).

Shape suffixes: B = videos, T = segments, S = segments of the other modality, R = regions,
D = feature size, K = event classes + background.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from distributed_avel.models.base import BaseModel, register_model


@register_model("cman")
class Cman(BaseModel):
    """Attention to regions, to segments, and to one modality or the other.

    What stays in `score`: the attention between segments, and the LSTMs.

    Args:
        regions: Not needed, any number will do.
        hidden_size: Width of everything between the features and the scores.
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
        """The audio feature, and the regions weighed by their likeness to it, side by side."""
        heard_BTD1 = normalize(self.audio_where(audio_BTD), dim=-1).unsqueeze(-1)
        seen_BTRD = normalize(self.visual_where(visual_BTRD), dim=-1)
        weights_BTR1 = (seen_BTRD @ heard_BTD1).softmax(dim=-2)
        attended_BTD = (weights_BTR1.transpose(-1, -2) @ visual_BTRD).squeeze(-2)
        return torch.cat([audio_BTD, attended_BTD], dim=-1)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Raw segment scores, shape (B, T, K)."""
        audio_BTD, visual_BTD = codes_BTD.split(self.code_sizes, dim=-1)
        heard_BTD, seen_BTD = self.audio_when(audio_BTD), self.visual_when(visual_BTD)
        both = [
            self.audio_which(*self.audio_lstm(heard_BTD), seen_BTD),
            self.visual_which(*self.visual_lstm(seen_BTD), heard_BTD),
        ]
        return self.head(torch.cat(both, dim=-1))


class SegmentAttention(nn.Module):
    """Each segment becomes a mean over all segments of its video, weighed by likeness."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width_in, width, bias=False)
        self.key = nn.Linear(width_in, width, bias=False)
        self.value = nn.Linear(width_in, width, bias=False)

    def forward(self, segments_BTD: Tensor) -> Tensor:
        """The segments in the light of their video, shape (B, T, D)."""
        query_BTD, key_BTD = self.query(segments_BTD), self.key(segments_BTD)
        likeness_BTT = query_BTD @ key_BTD.transpose(-1, -2) / query_BTD.shape[-1] ** 0.5
        return likeness_BTT.softmax(dim=-1) @ self.value(segments_BTD)


class SentinelLstm(nn.Module):
    """An LSTM that also says what its memory holds, gated by what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(width, width)
        self.gate_input = nn.Linear(width, width)
        self.gate_state = nn.Linear(width, width, bias=False)

    def forward(self, segments_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Its states and its sentinels, both of shape (B, T, D)."""
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
    """A modality takes up as much of the other as it cannot say itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, width)
        self.other = nn.Linear(width, width, bias=False)
        self.sentinel = nn.Linear(width, width, bias=False)
        self.weigh = nn.Linear(width, 1, bias=False)

    def forward(self, states_BTD: Tensor, sentinels_BTD: Tensor, other_BSD: Tensor) -> Tensor:
        """The states, with what each of them asks for added, shape (B, T, D)."""
        asked_BTD = self.state(states_BTD)
        joint_BTSD = (self.other(other_BSD).unsqueeze(1) + asked_BTD.unsqueeze(2)).tanh()
        across_BTS = self.weigh(joint_BTSD).squeeze(-1)
        within_BT1 = self.weigh((self.sentinel(sentinels_BTD) + asked_BTD).tanh())
        share_BT1 = torch.cat([across_BTS, within_BT1], dim=-1).softmax(dim=-1)[..., -1:]
        found_BTD = across_BTS.softmax(dim=-1) @ other_BSD
        return states_BTD + share_BT1 * sentinels_BTD + (1 - share_BT1) * found_BTD
