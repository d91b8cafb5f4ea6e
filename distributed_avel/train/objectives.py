"""What Steps 1 and 3 minimise, as a module around the base model.

A module, because DDP watches the forward pass of what it wraps, and the losses call `encode`
and `score` of the base model separately.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distributed_avel.models import BaseModel
from distributed_avel.refine.windows import mix_codes
from distributed_avel.train.batches import Batch


class Losses(Protocol):
    """The losses of a task, given the raw scores of a model; see `tasks.Task`."""

    def mil_loss(self, model: Any, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """L_MIL of each video."""
        ...

    def auxiliary_loss(self, model: Any, scores_of_windows: Tensor, union_BK: Tensor) -> Tensor:
        """L_A of each video."""
        ...

    def refinement_loss(
        self, model: Any, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """L_LR of each video."""
        ...


class Objective(nn.Module):
    """L_MIL, plus L_A where the batch has partners, plus L_LR where it has pseudo-labels.

    Args:
        mask_WT: The windows, see `refine.windows.window_mask`.
        fully_supervised: The windows are single segments whose labels are taken for the ground
            truth: the loss is the mean of g over the segments, and nothing else.
    """

    mask_WT: Tensor

    def __init__(
        self, model: BaseModel, mask_WT: Tensor, losses: Losses, *, fully_supervised: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mask_WT", mask_WT, persistent=False)
        self._losses = losses
        self._fully_supervised = fully_supervised

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of each video, (B,); what is minimised is their weighted sum."""
        model = self.model
        codes_NTD = model.encode(batch.audio_NTD, batch.visual_NTRD)
        codes_BTD = codes_NTD[: batch.num_videos]
        if self._fully_supervised:
            assert batch.window_labels_BWK is not None
            scores, labels_BTK = model.score(codes_BTD), batch.window_labels_BWK
            loss_B = self._losses.refinement_loss(model, scores, labels_BTK, self.mask_WT)
            return {"supervised": loss_B}
        if batch.partner_B is None or batch.union_BK is None:
            scores = model.score(codes_BTD)
            losses = {"mil": self._losses.mil_loss(model, scores, batch.labels_BK)}
        else:
            # Not an index: its backward pass adds atomically, in another order every time.
            partner_codes_BTD = codes_NTD[batch.num_videos :].index_select(0, batch.partner_B)
            mixed_BWTD = mix_codes(codes_BTD, partner_codes_BTD, self.mask_WT)
            scores, scores_of_windows = self._score_together(codes_BTD, mixed_BWTD)
            losses = {
                "mil": self._losses.mil_loss(model, scores, batch.labels_BK),
                "auxiliary": self._losses.auxiliary_loss(model, scores_of_windows, batch.union_BK),
            }
        if batch.window_labels_BWK is not None:
            losses["refinement"] = self._losses.refinement_loss(
                model, scores, batch.window_labels_BWK, self.mask_WT
            )
        return losses

    def _score_together(self, codes_BTD: Tensor, mixed_BWTD: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the videos and of their synthetic videos, in one pass over both."""
        num_videos = len(codes_BTD)
        scores = self.model.score(torch.cat([codes_BTD, mixed_BWTD.flatten(0, 1)]))
        return scores[:num_videos], scores[num_videos:].unflatten(0, mixed_BWTD.shape[:2])
