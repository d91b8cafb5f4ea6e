"""One epoch of training, in plain PyTorch.

Nothing here knows how many workers there are. Results are sums and counts, not
means, because sums add up exactly over workers and means do not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from distributed_avel.train.batches import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochSums:
    """What one worker, or several together, saw in one epoch."""

    loss_sums: dict[str, float] = field(default_factory=dict)
    num_videos: int = 0

    def __add__(self, other: "EpochSums") -> "EpochSums":
        names = {**self.loss_sums, **other.loss_sums}
        return EpochSums(
            loss_sums={
                name: self.loss_sums.get(name, 0.0) + other.loss_sums.get(name, 0.0)
                for name in names
            },
            num_videos=self.num_videos + other.num_videos,
        )

    def means(self) -> dict[str, float]:
        """Mean of each loss per video, and of their sum as "total"."""
        if self.num_videos == 0:
            raise ValueError("an epoch without videos has no mean loss")
        means = {name: loss / self.num_videos for name, loss in self.loss_sums.items()}
        return {**means, "total": sum(means.values())}


def train_epoch(
    objective: Callable[[Batch], dict[str, Tensor]],
    batches: Iterable[Batch],
    optimizer: Optimizer,
    device: torch.device,
) -> EpochSums:
    """Take one optimizer step per batch and return what was seen.

    Args:
        objective: Maps a batch to the losses of each video; `train.objectives.Objective`, or
            DDP around it.

    Raises:
        FloatingPointError: A loss is not finite.
    """
    sums = EpochSums()
    for batch in batches:
        batch = batch.to(device)
        losses = objective(batch)
        loss = sum((batch.weight_B * loss_B).sum() for loss_B in losses.values())
        assert isinstance(loss, Tensor)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} after {sums.num_videos} videos")

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        counts_B = batch.weight_B > 0
        sums += EpochSums(
            loss_sums={k: float(loss_B.detach()[counts_B].sum()) for k, loss_B in losses.items()},
            num_videos=int(counts_B.sum()),
        )
    return sums
