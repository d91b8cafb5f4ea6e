"""Adding up over workers."""

import torch
import torch.distributed as dist

from distributed_avel.train.loop import EpochSums


def all_reduce_sums(local: EpochSums, device: torch.device) -> EpochSums:
    """Sum over all workers; the result is the same on each. Without DDP, return the input."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    names = sorted(local.loss_sums)
    values = [*(local.loss_sums[name] for name in names), float(local.num_videos)]
    totals = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    *loss_sums, num_videos = totals.tolist()
    return EpochSums(
        loss_sums=dict(zip(names, loss_sums, strict=True)), num_videos=round(num_videos)
    )
