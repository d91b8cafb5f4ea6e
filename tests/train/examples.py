"""Small training sets of random features, and functions that use them in tests."""

from functools import partial

import numpy as np
import torch

from distributed_avel.method.partners import PartnerKind, PartnerPool
from distributed_avel.method.windows import windows_of_length
from distributed_avel.tasks import Localization
from distributed_avel.train.batches import EpochPlan, TrainingSet
from distributed_avel.train.objectives import Objective
from tests.models.examples import SIZES, small_model

NUM_CLASSES = SIZES["num_classes"]
WINDOWS = partial(windows_of_length, window=4, stride=2)
MASK_WT = WINDOWS(10)


def training_set(
    num_videos: int,
    *,
    seed: int = 0,
    partners: PartnerKind | None = "event_free",
    window_labels: bool = False,
) -> TrainingSet:
    """Make videos with one event each, every fourth without; the first audio value is the index."""
    generator = np.random.default_rng(seed)
    labels_VK = np.zeros((num_videos, NUM_CLASSES + 1), dtype=bool)
    columns = generator.integers(NUM_CLASSES, size=num_videos)
    columns[::4] = NUM_CLASSES
    labels_VK[np.arange(num_videos), columns] = True
    audio_VTD = generator.random((num_videos, 10, SIZES["audio_dim"]), dtype=np.float32)
    audio_VTD[:, 0, 0] = np.arange(num_videos)
    shape = (num_videos, 10, SIZES["regions"], SIZES["visual_dim"])
    windows_VWK = generator.random((num_videos, len(MASK_WT), NUM_CLASSES + 1)) < 0.4
    windows_VWK[..., -1] = ~windows_VWK[..., :-1].any(axis=-1)
    files = [f"{index}.mp4" for index in range(num_videos)]
    return TrainingSet(
        video_ids=[f"video {index}" for index in range(num_videos)],
        files=files,
        audio_VTD=audio_VTD,
        visual_VTRD=generator.random(shape, dtype=np.float32).astype(np.float16),
        labels_VK=labels_VK,
        window_labels_VWK=windows_VWK if window_labels else None,
        partners=partners and PartnerPool(labels_VK, files, partners),
    )


def plan(epoch: int = 0, *, batch_size: int = 3, seed: int = 0) -> EpochPlan:
    return EpochPlan(seed=seed, stage="base", epoch=epoch, batch_size=batch_size)


def objective(dtype: torch.dtype, *, name: str = "ave", seed: int = 0) -> Objective:
    """Make an objective around a small model, in train mode."""
    model = small_model(name, dtype, seed).train()
    return Objective(model, WINDOWS, Localization(model.pooling, "soft_margin"))
