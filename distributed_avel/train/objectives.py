"""Training objective of Steps 1 and 3, as a module around the base model.

It is a module because DDP hooks into the forward pass of the module that it wraps, and the losses
call `encode` and `score` of the base model separately.

Shape suffixes used in this file:
    B = videos    N = videos and their partners    W = windows    T = segments    R = regions
    D = feature or code size    K = columns of labels
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distributed_avel.method.windows import WindowsOf, mix_codes
from distributed_avel.models import BaseModel
from distributed_avel.train.batches import Batch, split_by_length


class Losses(Protocol):
    """Losses of a task, given the logits of a model; see `tasks.Task`."""

    def mil_loss(self, model: Any, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """Compute L_MIL of each video, shape (B,)."""
        ...

    def auxiliary_loss(self, model: Any, scores_of_windows: Tensor, union_BK: Tensor) -> Tensor:
        """Compute L_A of each video, shape (B,)."""
        ...

    def refinement_loss(
        self, model: Any, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """Compute L_LR of each video, shape (B,)."""
        ...


class Objective(nn.Module):
    """L_MIL, plus L_A if the batch has partners, plus L_LR if it has pseudo-labels.

    Args:
        model: Base model.
        windows_of: Segments of each window of a video, see `method.windows`.
        losses: Losses of the task.
        fully_supervised: The windows are single segments whose labels are treated as ground
            truth (arm PL). The only loss is the mean of g over the segments.
    """

    def __init__(
        self,
        model: BaseModel,
        windows_of: WindowsOf,
        losses: Losses,
        *,
        fully_supervised: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._windows_of = windows_of
        self._masks: dict[int, Tensor] = {}
        self._losses = losses
        self._fully_supervised = fully_supervised

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of each video, (B,), by name; training minimizes their sum."""
        if batch.lengths_N is None:
            return self._equal_length(batch)
        # Videos of equal length are processed together, so that no model or loss sees padding.
        rows, losses = zip(
            *(
                (rows_B, self._equal_length(part))
                for rows_B, part in split_by_length(batch, self._windows_of)
            ),
            strict=True,
        )
        order_B = torch.cat(rows).argsort()
        return {
            name: torch.cat([of_part[name] for of_part in losses]).index_select(0, order_B)
            for name in losses[0]
        }

    def _equal_length(self, batch: Batch) -> dict[str, Tensor]:
        model = self.model
        mask_WT = self._mask(batch.audio_NTD.shape[1], batch.labels_BK.device)
        codes_NTD = model.encode(batch.audio_NTD, batch.visual_NTRD)
        codes_BTD = codes_NTD[: batch.num_videos]
        if self._fully_supervised:
            assert batch.window_labels_BWK is not None
            logits, labels_BTK = model.score(codes_BTD), batch.window_labels_BWK
            loss_B = self._losses.refinement_loss(model, logits, labels_BTK, mask_WT)
            return {"supervised": loss_B}
        if batch.partner_B is None or batch.union_BK is None:
            logits = model.score(codes_BTD)
            losses = {"mil": self._losses.mil_loss(model, logits, batch.labels_BK)}
        else:
            # Not `codes[index]`: its backward pass adds atomically, in a different order each time.
            partner_codes_BTD = codes_NTD[batch.num_videos :].index_select(0, batch.partner_B)
            mixed_BWTD = mix_codes(codes_BTD, partner_codes_BTD, mask_WT)  # eq. (9)
            logits, synthetic_logits = self._score_together(codes_BTD, mixed_BWTD)
            losses = {
                "mil": self._losses.mil_loss(model, logits, batch.labels_BK),
                "auxiliary": self._losses.auxiliary_loss(model, synthetic_logits, batch.union_BK),
            }
        if batch.window_labels_BWK is not None:
            losses["refinement"] = self._losses.refinement_loss(
                model, logits, batch.window_labels_BWK, mask_WT
            )
        return losses

    def _mask(self, num_segments: int, device: torch.device) -> Tensor:
        """Return the segments of each window of a video of some length, shape (W, T)."""
        if num_segments not in self._masks:
            mask_WT = torch.from_numpy(self._windows_of(num_segments))
            self._masks[num_segments] = mask_WT.to(device)
        return self._masks[num_segments]

    def _score_together(self, codes_BTD: Tensor, mixed_BWTD: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of the videos and of their synthetic videos in one forward pass."""
        num_videos = len(codes_BTD)
        logits = self.model.score(torch.cat([codes_BTD, mixed_BWTD.flatten(0, 1)]))
        return logits[:num_videos], logits[num_videos:].unflatten(0, mixed_BWTD.shape[:2])
