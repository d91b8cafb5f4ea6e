"""What Steps 1 and 3 minimise, as a module around the base model.

A module, because DDP watches the forward pass of what it wraps, and the losses call `encode`
and `score` of the base model separately.
"""

import torch
from torch import Tensor, nn

from distributed_avel.losses import VideoLoss, auxiliary_loss, mil_loss, refinement_loss
from distributed_avel.mil import Pooling
from distributed_avel.models import BaseModel
from distributed_avel.refine.windows import mix_codes
from distributed_avel.train.batches import Batch


class Objective(nn.Module):
    """L_MIL, plus L_A where the batch has partners, plus L_LR where it has pseudo-labels.

    Args:
        mask_WT: The windows, see `refine.windows.window_mask`.
    """

    mask_WT: Tensor

    def __init__(
        self, model: BaseModel, mask_WT: Tensor, *, pooling: Pooling, loss: VideoLoss
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mask_WT", mask_WT, persistent=False)
        self._pooling: Pooling = pooling
        self._loss: VideoLoss = loss

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Each loss of each video, (B,); what is minimised is their weighted sum."""
        codes_NTD = self.model.encode(batch.audio_NTD, batch.visual_NTRD)
        codes_BTD = codes_NTD[: batch.num_videos]
        if batch.partner_B is None or batch.union_BK is None:
            scores_BTK = self.model.score(codes_BTD)
            losses = {"mil": mil_loss(scores_BTK, batch.labels_BK, self._pooling, self._loss)}
        else:
            partner_codes_BTD = codes_NTD[batch.num_videos :][batch.partner_B]
            mixed_BWTD = mix_codes(codes_BTD, partner_codes_BTD, self.mask_WT)
            scores_BTK, scores_BWTK = self._score_together(codes_BTD, mixed_BWTD)
            losses = {
                "mil": mil_loss(scores_BTK, batch.labels_BK, self._pooling, self._loss),
                "auxiliary": auxiliary_loss(scores_BWTK, batch.union_BK, self._pooling, self._loss),
            }
        if batch.window_labels_BWK is not None:
            losses["refinement"] = refinement_loss(
                scores_BTK, batch.window_labels_BWK, self.mask_WT, self._pooling, self._loss
            )
        return losses

    def _score_together(self, codes_BTD: Tensor, mixed_BWTD: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the videos and of their synthetic videos, in one pass over both."""
        num_videos = len(codes_BTD)
        scores = self.model.score(torch.cat([codes_BTD, mixed_BWTD.flatten(0, 1)]))
        return scores[:num_videos], scores[num_videos:].unflatten(0, mixed_BWTD.shape[:2])
