"""Training batches that do not depend on the number of workers.

The videos of an epoch are shuffled, divided into global batches and assigned partners once, for
all workers. Each worker then takes its shard of every global batch. If each worker drew its own
partners, the synthetic videos and so the gradients would depend on the number of workers.

Shape suffixes used in this file:
    V = videos of the training set    B = videos of a batch    P = distinct partners of a batch
    N = B + P    T = segments    R = regions    W = windows    D = feature size
    K = columns of labels (background last, if there is one)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.method.losses import union_of_labels
from distributed_avel.method.partners import PartnerPool
from distributed_avel.method.windows import WindowsOf, equal_lengths, resampled
from distributed_avel.randomness import derive, generator


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The training videos, in memory.

    Args:
        video_ids: Id of each video.
        files: File of each video.
        audio_VTD: Audio features.
        visual_VTRD: Visual features.
        labels_VK: Video-level targets.
        lengths_V: Number of segments of each video; None if all have T. Features of shorter videos
            are padded.
        window_labels_VWK: Pseudo-labels of the windows, in Step 3.
        partners: Pool of partner videos, in Step 1 with the auxiliary loss.
        background: Whether the last column of labels is background.
    """

    video_ids: Sequence[str]
    files: Sequence[str]
    audio_VTD: NDArray[np.float32]
    visual_VTRD: NDArray[np.float16]
    labels_VK: NDArray[np.bool_]
    lengths_V: NDArray[np.int64] | None = None
    window_labels_VWK: NDArray[np.bool_] | NDArray[np.float32] | None = None
    partners: PartnerPool | None = None
    background: bool = True

    def __len__(self) -> int:
        return len(self.video_ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One worker's shard of a global batch.

    Args:
        audio_NTD: Audio features of the B videos, then of the P partners.
        visual_NTRD: Visual features, in the same order.
        labels_BK: Video-level targets.
        weight_B: Weight of each video in the loss. The weighted sum, averaged over the workers as
            DDP does, is the mean over the global batch. A padding video has weight 0.
        partner_B: Partner of each video, as an index into the P partners.
        union_BK: Union of the labels of each video and its partner.
        window_labels_BWK: Pseudo-labels of the windows.
        lengths_N: Number of segments of each video and partner; None if all have T.
    """

    audio_NTD: Tensor
    visual_NTRD: Tensor
    labels_BK: Tensor
    weight_B: Tensor
    partner_B: Tensor | None = None
    union_BK: Tensor | None = None
    window_labels_BWK: Tensor | None = None
    lengths_N: NDArray[np.int64] | None = None

    @property
    def num_videos(self) -> int:
        """Number of videos B, without the partners."""
        return len(self.labels_BK)

    def to(self, device: torch.device) -> Self:
        """Return the batch with its tensors on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochPlan:
    """Determines the order of the videos and their partners in an epoch."""

    seed: int
    stage: str
    epoch: int
    batch_size: int

    def global_batches(self, num_videos: int) -> list[NDArray[np.intp]]:
        """Return the indices of the videos of each global batch; the last may be smaller."""
        order_V = generator(self.seed, self.stage, "order", self.epoch).permutation(num_videos)
        return [order_V[i : i + self.batch_size] for i in range(0, num_videos, self.batch_size)]

    def partner(self, pool: PartnerPool, videos: TrainingSet, index: int) -> int:
        """Return the index of the partner of a video in this epoch."""
        # Derived from the video id, so that it does not depend on the order of rows or batches.
        number = derive(self.seed, self.stage, "partner", self.epoch, videos.video_ids[index])
        num_segments = None if videos.lengths_V is None else int(videos.lengths_V[index])
        return pool.draw(pool.labels_VK[index], videos.files[index], number, num_segments)


def split_by_length(batch: Batch, windows_of: WindowsOf) -> Iterator[tuple[Tensor, Batch]]:
    """Divide a batch into batches of videos of equal length, without padding.

    Partners are resampled to the length of their video.

    Args:
        batch: A batch with `lengths_N`.
        windows_of: Windows of the pseudo-labels.

    Yields:
        The indices of the videos in the batch, and their batch; its lengths are None.
    """
    assert batch.lengths_N is not None
    lengths_B, lengths_P = np.split(batch.lengths_N, [batch.num_videos])
    for length, rows in equal_lengths(lengths_B):
        rows_B = torch.from_numpy(rows).to(batch.labels_BK.device)
        audio = [batch.audio_NTD[rows_B, :length]]
        visual = [batch.visual_NTRD[rows_B, :length]]
        partner_B, union_BK, window_labels_BWK = None, None, None
        if batch.partner_B is not None and batch.union_BK is not None:
            distinct_P, partner_B = batch.partner_B[rows_B].unique(return_inverse=True)
            for p in distinct_P.tolist():
                segments = torch.from_numpy(resampled(length, int(lengths_P[p]))).to(rows_B.device)
                audio.append(batch.audio_NTD[batch.num_videos + p, segments][None])
                visual.append(batch.visual_NTRD[batch.num_videos + p, segments][None])
            # A single segment is a window of its own, which leaves nothing to the partner.
            union_BK = (batch.union_BK if length > 1 else batch.labels_BK)[rows_B]
        if batch.window_labels_BWK is not None:
            window_labels_BWK = batch.window_labels_BWK[rows_B, : len(windows_of(length))]
        yield (
            rows_B,
            Batch(
                audio_NTD=torch.cat(audio),
                visual_NTRD=torch.cat(visual),
                labels_BK=batch.labels_BK[rows_B],
                weight_B=batch.weight_B[rows_B],
                partner_B=partner_B,
                union_BK=union_BK,
                window_labels_BWK=window_labels_BWK,
            ),
        )


def worker_batches(
    videos: TrainingSet, plan: EpochPlan, *, rank: int, num_workers: int, dtype: torch.dtype
) -> Iterator[Batch]:
    """Yield one worker's shard of each global batch of an epoch.

    All workers get the same number of batches, because a collective operation of DDP waits for
    all of them.

    Args:
        videos: The training set.
        plan: Order and partners of the epoch.
        rank: The worker, in 0..num_workers - 1.
        num_workers: Number of workers.
        dtype: Type of the features that the model expects.
    """
    for global_batch in plan.global_batches(len(videos)):
        shard = global_batch[rank::num_workers]
        # DDP averages the gradients of the workers, so this weight gives the global mean.
        weight = num_workers / len(global_batch)
        if not len(shard):
            shard, weight = global_batch[:1], 0.0
        yield _batch(videos, plan, shard, weight, dtype)


def _batch(
    videos: TrainingSet, plan: EpochPlan, shard: NDArray[np.intp], weight: float, dtype: torch.dtype
) -> Batch:
    labels_BK = torch.from_numpy(videos.labels_VK[shard])
    rows, partner_B, union_BK, window_labels_BWK = shard, None, None, None
    if videos.partners is not None:
        # A video may be the partner of several: encode each distinct partner once.
        drawn_B = np.array([plan.partner(videos.partners, videos, int(i)) for i in shard])
        distinct_P, partner_of_B = np.unique(drawn_B, return_inverse=True)
        rows = np.concatenate([shard, distinct_P])
        partner_B = torch.from_numpy(partner_of_B)
        partner_labels_BK = torch.from_numpy(videos.labels_VK[drawn_B])
        union_BK = union_of_labels(labels_BK, partner_labels_BK, background=videos.background)
    if videos.window_labels_VWK is not None:
        window_labels_BWK = torch.from_numpy(videos.window_labels_VWK[shard])
    return Batch(
        audio_NTD=torch.from_numpy(videos.audio_VTD[rows]).to(dtype),
        visual_NTRD=torch.from_numpy(videos.visual_VTRD[rows]).to(dtype),
        labels_BK=labels_BK,
        weight_B=torch.full((len(shard),), weight, dtype=dtype),
        partner_B=partner_B,
        union_BK=union_BK,
        window_labels_BWK=window_labels_BWK,
        lengths_N=None if videos.lengths_V is None else videos.lengths_V[rows],
    )
