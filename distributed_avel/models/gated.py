"""Models with an event gate for each segment and a classifier of the video (CMRAN, AVSDN).

The segment logit is gate times class logit, and the video logit is its maximum over the segments,
so these models are pooled like any other. The class logits belong to the video: all segments of a
video rank the classes in the same order, and only the gate separates events from background.

Shape suffixes used in this file:
    B = videos    T = segments    D = feature size    K = event classes + background
"""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from distributed_avel.models.base import BaseModel


class GatedModel(BaseModel):
    """An event gate for each segment and a video-level classifier.

    Args:
        width: D, the width of the output of `relate`.
        num_classes: C.
        summary: Pooling of the segments for the classifier.
    """

    def __init__(self, *, width: int, num_classes: int, summary: Literal["max", "mean"]) -> None:
        super().__init__()
        self.summary = summary
        self.event = nn.Linear(width, 1)
        self.category = nn.Linear(width, num_classes + 1)

    @abstractmethod
    def relate(self, codes_BTD: Tensor) -> Tensor:
        """Fuse both modalities and relate the segments to each other, shape (B, T, D)."""

    def logits(self, codes_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Return event logits of the segments (B, T) and class logits of the video (B, K)."""
        fused_BTD = self.relate(codes_BTD)
        event_BT = self.event(fused_BTD).squeeze(-1)
        video_BD = fused_BTD.amax(dim=1) if self.summary == "max" else fused_BTD.mean(dim=1)
        return event_BT, self.category(video_BD)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Compute gate times class logits, shape (B, T, K)."""
        event_BT, class_BK = self.logits(codes_BTD)
        return event_BT.sigmoid().unsqueeze(-1) * class_BK.unsqueeze(1)

    def localize(self, codes_BTD: Tensor) -> Tensor:
        """Return the logits of `score`, with background on top where the gate is at most 1/2.

        This is the authors' rule: a segment is background unless its gate exceeds 1/2.
        """
        event_BT, class_BK = self.logits(codes_BTD)
        gate_BT = event_BT.sigmoid()
        logits_BTK = gate_BT.unsqueeze(-1) * class_BK.unsqueeze(1)
        # Larger than all other logits of the segment, because 1 - gate is positive.
        on_top_BT = logits_BTK.amax(dim=-1) + 1 - gate_BT
        background_BT = torch.where(event_BT > 0, logits_BTK[..., -1], on_top_BT)
        return torch.cat([logits_BTK[..., :-1], background_BT.unsqueeze(-1)], dim=-1)
