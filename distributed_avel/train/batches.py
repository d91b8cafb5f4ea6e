"""Batches that are the same for any number of workers.

The videos of an epoch are shuffled, cut into global batches and given partners once, for all
workers; then each worker takes its share. Drawing per worker instead would train another
model: the synthetic videos, and so the gradients, would be other ones.

Shape suffixes used in this file:
    V = videos of the training set    B = videos of a batch    P = different partners in it
    T = segments    R = regions    W = windows    D = feature size
    K = columns of labels, background the last of them if there is one
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.losses import union_of_labels
from distributed_avel.randomness import derive, generator
from distributed_avel.refine.partners import PartnerPool


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The training videos, in memory.

    Args:
        labels_VK: Video-level targets, for the losses.
        window_labels_VWK: Pseudo-labels of the windows (Step 3), if there are any.
        partners: Where partner videos come from (Step 1 with the auxiliary loss), if needed.
        background: Whether the last column of labels is background.
    """

    video_ids: Sequence[str]
    files: Sequence[str]
    audio_VTD: NDArray[np.float32]
    visual_VTRD: NDArray[np.float16]
    labels_VK: NDArray[np.bool_]
    window_labels_VWK: NDArray[np.bool_] | NDArray[np.float32] | None = None
    partners: PartnerPool | None = None
    background: bool = True

    def __len__(self) -> int:
        return len(self.video_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One worker's share of a global batch.

    `weight_B` makes the sum of the weighted losses, averaged over the workers, the mean over
    the global batch; a video that only fills an empty share weighs nothing. The last
    P videos of `audio` and `visual` are the partners; `partner_B` says which is whose.
    """

    audio_NTD: Tensor
    visual_NTRD: Tensor
    labels_BK: Tensor
    weight_B: Tensor
    partner_B: Tensor | None = None
    union_BK: Tensor | None = None
    window_labels_BWK: Tensor | None = None

    @property
    def num_videos(self) -> int:
        """B, without the partners."""
        return len(self.labels_BK)

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if value is not None}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochPlan:
    """What decides the order of the videos and their partners in an epoch."""

    seed: int
    stage: str
    epoch: int
    batch_size: int

    def global_batches(self, num_videos: int) -> list[NDArray[np.intp]]:
        """Indices of the videos of each batch; the last may be smaller."""
        order_V = generator(self.seed, self.stage, "order", self.epoch).permutation(num_videos)
        return [order_V[i : i + self.batch_size] for i in range(0, num_videos, self.batch_size)]

    def partner(self, pool: PartnerPool, videos: TrainingSet, index: int) -> int:
        """The partner of a video in this epoch."""
        number = derive(self.seed, self.stage, "partner", self.epoch, videos.video_ids[index])
        return pool.draw(pool.labels_VK[index], videos.files[index], number)


def worker_batches(
    videos: TrainingSet, plan: EpochPlan, *, rank: int, num_workers: int, dtype: torch.dtype
) -> Iterator[Batch]:
    """This worker's share of each global batch of an epoch: every worker gets as many.

    Args:
        rank: The worker, in 0..num_workers - 1.
        dtype: Type of the features that the model takes.
    """
    for whole in plan.global_batches(len(videos)):
        share = whole[rank::num_workers]
        weight = num_workers / len(whole)
        if not len(share):
            share, weight = whole[:1], 0.0
        yield _batch(videos, plan, share, weight, dtype)


def _batch(
    videos: TrainingSet, plan: EpochPlan, share: NDArray[np.intp], weight: float, dtype: torch.dtype
) -> Batch:
    labels_BK = torch.from_numpy(videos.labels_VK[share])
    rows, partner_B, union_BK, window_labels_BWK = share, None, None, None
    if videos.partners is not None:
        drawn_B = np.array([plan.partner(videos.partners, videos, int(i)) for i in share])
        different_P, partner_of_B = np.unique(drawn_B, return_inverse=True)
        rows = np.concatenate([share, different_P])
        partner_B = torch.from_numpy(partner_of_B)
        theirs_BK = torch.from_numpy(videos.labels_VK[drawn_B])
        union_BK = union_of_labels(labels_BK, theirs_BK, background=videos.background)
    if videos.window_labels_VWK is not None:
        window_labels_BWK = torch.from_numpy(videos.window_labels_VWK[share])
    return Batch(
        audio_NTD=torch.from_numpy(videos.audio_VTD[rows]).to(dtype),
        visual_NTRD=torch.from_numpy(videos.visual_VTRD[rows]).to(dtype),
        labels_BK=labels_BK,
        weight_B=torch.full((len(share),), weight, dtype=dtype),
        partner_B=partner_B,
        union_BK=union_BK,
        window_labels_BWK=window_labels_BWK,
    )
