"""Transformer layer of CMRAN, HAN and AVT: post-norm, ReLU, dropout 0.1.

Shape suffixes used in this file:
    B = videos    T = segments    S = segments of a memory    D = feature size
"""

from collections.abc import Sequence

from torch import Tensor, nn


class AttentionLayer(nn.Module):
    """Attention from a query to one or more memories, then a feed-forward layer.

    The outputs of all attentions are added to the query.

    Args:
        width: D.
        heads: Number of attention heads.
        feedforward_size: Width of the feed-forward layer.
        memories: Number of memories.
    """

    def __init__(self, width: int, *, heads: int, feedforward_size: int, memories: int = 1) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
            for _ in range(memories)
        )
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feedforward_size)
        self.linear2 = nn.Linear(feedforward_size, width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, query_BTD: Tensor, *memories_BSD: Tensor) -> Tensor:
        """Attend to the memories (by default to the query itself), shape (B, T, D)."""
        state_BTD = query_BTD
        memories = memories_BSD or (query_BTD,)
        for attention, memory_BSD in zip(self.attentions, memories, strict=True):
            attended_BTD, _ = attention(query_BTD, memory_BSD, memory_BSD, need_weights=False)
            state_BTD = state_BTD + self.dropout(attended_BTD)
        state_BTD = self.norm1(state_BTD)
        update_BTD = self.linear2(self.dropout(self.linear1(state_BTD).relu()))
        return self.norm2(state_BTD + self.dropout(update_BTD))


def layer_names(ours: str, theirs: str, attentions: Sequence[str]) -> dict[str, str]:
    """Map the names of a layer to the authors', who call its attentions `attentions`."""
    names = {f"{ours}.attentions.{i}": f"{theirs}.{name}" for i, name in enumerate(attentions)}
    return {**names, ours: theirs}
