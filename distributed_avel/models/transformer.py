"""The attention layer that CMRAN and HAN are made of: post-norm, ReLU, dropout .1."""

from collections.abc import Sequence

from torch import Tensor, nn


class AttentionLayer(nn.Module):
    """A query attends to one or more memories, all added to it; then a feed-forward step."""

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
        """The query in the light of the memories, by default of itself, shape (B, T, D)."""
        found_BTD = query_BTD
        memories = memories_BSD or (query_BTD,)
        for attention, memory_BSD in zip(self.attentions, memories, strict=True):
            attended_BTD, _ = attention(query_BTD, memory_BSD, memory_BSD, need_weights=False)
            found_BTD = found_BTD + self.dropout(attended_BTD)
        found_BTD = self.norm1(found_BTD)
        step_BTD = self.linear2(self.dropout(self.linear1(found_BTD).relu()))
        return self.norm2(found_BTD + self.dropout(step_BTD))


def layer_names(ours: str, theirs: str, attentions: Sequence[str]) -> dict[str, str]:
    """The authors' names of a layer, whose attentions they call `attentions`."""
    names = {f"{ours}.attentions.{i}": f"{theirs}.{name}" for i, name in enumerate(attentions)}
    return {**names, ours: theirs}
