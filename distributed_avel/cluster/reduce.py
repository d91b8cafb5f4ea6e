"""Sums over training workers."""

from collections.abc import Mapping

import torch
import torch.distributed as dist


def all_reduce_sums(local: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sum values over all workers, in float64; the result is the same on each worker.

    Without DDP, return the input. All workers must pass the same names.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return dict(local)
    names = sorted(local)
    totals = torch.tensor([local[name] for name in names], dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    return dict(zip(names, totals.tolist(), strict=True))
