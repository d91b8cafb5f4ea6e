"""One epoch of training, in plain PyTorch.

The loop does not depend on the number of workers. It returns sums and counts instead of means,
because sums of several workers can be added.

Shape suffixes used in this file:
    B = videos of a batch
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from distributed_avel.train.batches import Batch

_NUM_VIDEOS = "num_videos"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochSums:
    """Sums of the losses of one epoch, of one or several workers."""

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

    def to_values(self) -> dict[str, float]:
        """All sums and the count by name, to be added up over workers; see `from_values`."""
        return {**self.loss_sums, _NUM_VIDEOS: float(self.num_videos)}

    @classmethod
    def from_values(cls, values: Mapping[str, float]) -> "EpochSums":
        """The inverse of `to_values`."""
        loss_sums = {name: value for name, value in values.items() if name != _NUM_VIDEOS}
        return cls(loss_sums=loss_sums, num_videos=round(values[_NUM_VIDEOS]))

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the videos, and the sum of these means as "total".

        Raises:
            ValueError: There is no video.
        """
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
    """Train for one epoch, one optimizer step per batch.

    Args:
        objective: Returns the losses (B,) of a batch by name; a `train.objectives.Objective`, or
            DDP around one.
        batches: Batches of this worker.
        optimizer: Optimizer of the model's parameters.
        device: Device of the model.

    Returns:
        Sums of the losses over the videos of this worker.

    Raises:
        FloatingPointError: A loss is not finite.
    """
    sums = EpochSums()
    for batch in batches:
        batch = batch.to(device)
        losses = objective(batch)
        # The weights make this, averaged over the workers, the mean over the global batch.
        loss = sum((batch.weight_B * loss_B).sum() for loss_B in losses.values())
        assert isinstance(loss, Tensor)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} after {sums.num_videos} videos")

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

        is_counted_B = batch.weight_B > 0  # excludes padding videos
        sums += EpochSums(
            loss_sums={
                name: float(loss_B.detach()[is_counted_B].sum()) for name, loss_B in losses.items()
            },
            num_videos=int(is_counted_B.sum()),
        )
    return sums
