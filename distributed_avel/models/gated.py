"""Models that ask of each segment whether it has an event, and of the video which one.

The segment score is gate times class score, and the video score is its maximum over the
segments, so they pool like any other model. But the class scores are the whole video's: every
segment of a video ranks the classes alike, and only the gate tells event from background.

Shape suffixes: B = videos, T = segments, D = feature size, K = event classes + background.
"""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from distributed_avel.models.base import BaseModel


class GatedModel(BaseModel):
    """An event gate for each segment and a classifier of the video, on related segments.

    Args:
        width: D, the size of what `relate` returns.
        summary: How the segments of a video are summed up for the classifier.
    """

    def __init__(self, *, width: int, num_classes: int, summary: Literal["max", "mean"]) -> None:
        super().__init__()
        self.summary = summary
        self.event = nn.Linear(width, 1)
        self.category = nn.Linear(width, num_classes + 1)

    @abstractmethod
    def relate(self, codes_BTD: Tensor) -> Tensor:
        """Both modalities fused, each segment in the light of the others, shape (B, T, D)."""

    def logits(self, codes_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Raw event scores of the segments (B, T), raw class scores of the video (B, K)."""
        fused_BTD = self.relate(codes_BTD)
        event_BT = self.event(fused_BTD).squeeze(-1)
        video_BD = fused_BTD.amax(dim=1) if self.summary == "max" else fused_BTD.mean(dim=1)
        return event_BT, self.category(video_BD)

    def score(self, codes_BTD: Tensor) -> Tensor:
        """Gate times class score, shape (B, T, K)."""
        event_BT, class_BK = self.logits(codes_BTD)
        return event_BT.sigmoid().unsqueeze(-1) * class_BK.unsqueeze(1)

    def localize(self, codes_BTD: Tensor) -> Tensor:
        """Scores that predict background, the last column, wherever the gate is not above 1/2.

        That is the authors' rule. Elsewhere all columns are those of `score`.
        """
        event_BT, class_BK = self.logits(codes_BTD)
        gate_BT = event_BT.sigmoid()
        scores_BTK = gate_BT.unsqueeze(-1) * class_BK.unsqueeze(1)
        on_top_BT = scores_BTK.amax(dim=-1) + 1 - gate_BT
        background_BT = torch.where(event_BT > 0, scores_BTK[..., -1], on_top_BT)
        return torch.cat([scores_BTK[..., :-1], background_BT.unsqueeze(-1)], dim=-1)
