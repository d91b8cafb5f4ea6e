"""One epoch of training, in plain PyTorch.

Nothing here knows how many workers there are. Results are sums and counts, not
means, because sums add up exactly over workers and means do not.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def deterministic_algorithms(device: torch.device) -> Iterator[None]:
    """Let torch compute with deterministic algorithms only, and restore its settings afterwards.

    The same command then gives the same weights, bit for bit. On a CPU, an operation without
    a deterministic algorithm raises an error. On a GPU it warns: that is where such operations
    are common, and cuBLAS needs the workspace that is set here before its first use.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


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
