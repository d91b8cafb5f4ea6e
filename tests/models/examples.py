"""Small base models and inputs for tests that run for every registered model."""

import torch
from torch import Tensor

from distributed_avel import models

SIZES = {"num_classes": 4, "visual_dim": 10, "audio_dim": 6, "regions": 9, "hidden_size": 8}


def small_model(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> models.BaseModel:
    torch.manual_seed(seed)
    return models.create_model(name, **SIZES).to(dtype).eval()


def features(
    num_videos: int, num_segments: int = 10, dtype: torch.dtype = torch.float32, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Random non-negative audio and visual features."""
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(num_videos, num_segments, SIZES["audio_dim"], generator=generator)
    shape = (num_videos, num_segments, SIZES["regions"], SIZES["visual_dim"])
    visual = torch.randn(shape, generator=generator)
    return audio.relu().to(dtype), visual.relu().to(dtype)
