"""Small model folders with random weights, and features of the shape that their models expect."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distributed_avel.config import ExtractConfig, ModelConfig, TrainConfig
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.predict import TrainedModel, load_model
from distributed_avel.predict.model_folder import write_model_folder
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline
from distributed_avel.train.checkpoint import weights_to_bytes
from distributed_avel.train.model_recipe import ModelRecipe

T = 10
CLASSES = ("bell", "dog & <cat>", "a --> b\nc")


def write_folder(
    folder: Path,
    *,
    model: str = "ave",
    segment_s: float = 1.0,
    classes: tuple[str, ...] = CLASSES,
    has_extractor: bool = True,
    extract: ExtractConfig | None = None,
    audio_shape: tuple[int, ...] = (T, 128),
    visual_shape: tuple[int, ...] = (T, 49, 16),
    seed: int = 0,
    scale: float = 3.0,
    **changes: Any,
) -> Path:
    """Write a model folder with random weights; return its path.

    Args:
        scale: Factor of the weights; larger ones make predictions differ between segments.
    """
    config = ModelConfig(name=model, hidden_size=8)
    extract = extract or ExtractConfig()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = ModelRecipe(
            config=config,
            num_classes=len(classes),
            audio_shape=audio_shape,
            visual_shape=visual_shape,
        )()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter *= scale
    provenance = changes.pop("extractor_provenance", None)
    if provenance is None:
        timeline = Timeline(num_segments=T, segment_s=segment_s)
        provenance = ExtractorRecipe(timeline, extract)().provenance() if has_extractor else {}
    write_model_folder(
        Location.at(folder),
        {
            "version": "0.1.0",
            "arm": "AVE+A+LR",
            "dataset": "demo",
            "synthetic": True,
            "classes": classes,
            "num_segments": T,
            "segment_s": segment_s,
            "model": config,
            "train": TrainConfig(),
            "extract": extract if has_extractor else None,
            "extractor_provenance": provenance,
            "audio_shape": audio_shape,
            "visual_shape": visual_shape,
            **changes,
        },
        weights_to_bytes(made),
        {"accuracy": 50.0, "non_ave_precision": None},
    )
    return folder


def feature_model(folder: Path, model: str, **changes: Any) -> TrainedModel:
    """A model that takes small random features."""
    shapes = {"audio_shape": (T, 12), "visual_shape": (T, 4, 8)}
    return load_model(
        write_folder(folder, model=model, has_extractor=False, **{**shapes, **changes})
    )


def random_features(num_segments: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Audio (M, 12) and visual features (M, 4, 8)."""
    rng = np.random.default_rng((seed, num_segments))
    audio_MD = rng.normal(size=(num_segments, 12)).astype(np.float32)
    return audio_MD, rng.normal(size=(num_segments, 4, 8)).astype(np.float16)
