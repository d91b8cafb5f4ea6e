"""Multi-modal factorized bilinear pooling (MFB, Yu et al. 2017), the fusion of AVFB and AVIN.

Shape suffixes used in this file:
    B = videos    T = segments    D = feature size
"""

from torch import Tensor, nn
from torch.nn.functional import normalize


class FactorizedBilinear(nn.Module):
    """Each output is a bilinear form of the audio and the visual input, of rank `factors`.

    In train mode, the products are dropped out with probability 0.1 before they are summed.

    Args:
        width: D, of both inputs and of the output.
        factors: q, the number of products per output.
    """

    def __init__(self, width: int, *, factors: int = 5) -> None:
        super().__init__()
        self.factors = factors
        self.audio = nn.Linear(width, factors * width, bias=False)
        self.visual = nn.Linear(width, factors * width, bias=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, audio_BTD: Tensor, visual_BTD: Tensor) -> Tensor:
        """Fuse segments, with power and L2 normalization, shape (B, T, D)."""
        products = self.dropout(self.audio(audio_BTD) * self.visual(visual_BTD))
        fused_BTD = products.unflatten(-1, (-1, self.factors)).sum(dim=-1)
        # Without the shift, the gradient of the square root is infinite at 0.
        root_BTD = fused_BTD.sign() * (fused_BTD.abs() + ROOT_SHIFT).sqrt()
        return normalize(root_BTD, dim=-1)


ROOT_SHIFT = 1e-8
"""Added to the radicand; typical products are larger by orders of magnitude."""
