"""Multi-modal factorized bilinear pooling (MFB, Yu et al. 2017), which AVFB and AVIN fuse with."""

from torch import Tensor, nn
from torch.nn.functional import normalize


class FactorizedBilinear(nn.Module):
    """Every output is a bilinear form of what is heard and what is seen, of rank `factors`.

    In train mode a tenth of the products is dropped out before they are summed.

    Args:
        width: D, of both inputs and of the output.
        factors: q, how many products make one output.
    """

    def __init__(self, width: int, *, factors: int = 5) -> None:
        super().__init__()
        self.factors = factors
        self.audio = nn.Linear(width, factors * width, bias=False)
        self.visual = nn.Linear(width, factors * width, bias=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, heard_BTD: Tensor, seen_BTD: Tensor) -> Tensor:
        """Fused segments of length 1, after a signed square root, shape (B, T, D)."""
        products = self.dropout(self.audio(heard_BTD) * self.visual(seen_BTD))
        fused_BTD = products.unflatten(-1, (-1, self.factors)).sum(dim=-1)
        # Without the small term, the slope of the root is infinite at 0.
        root_BTD = fused_BTD.sign() * (fused_BTD.abs() + ROOT_SHIFT).sqrt()
        return normalize(root_BTD, dim=-1)


ROOT_SHIFT = 1e-8
"""Added to what the root is drawn of; a typical product is larger by orders of magnitude."""
