"""Steps 1 to 3, extraction and the whole pipeline on a GPU, compared with the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from benchmarks.extractors import video
from distributed_avel.config import ExtractConfig, ModelConfig, TrainConfig
from distributed_avel.features.base import extractor_class, extractor_names
from distributed_avel.models import model_names
from distributed_avel.run import run_pipeline
from distributed_avel.stages.refine import RefineWorker
from distributed_avel.stages.training import WEIGHTS, train_in_process
from distributed_avel.storage import Location
from distributed_avel.tasks import task_of
from distributed_avel.timeline import Timeline
from tests.ray.conftest import ray_cluster as ray_cluster
from tests.ray.test_pipeline import settings
from tests.stages.test_determinism import (
    ARMS,
    WIDTHS,
    WINDOWS,
    recipe,
    scores,
    trained,
    training,
)
from tests.stages.test_determinism import features as features

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

# The gradients of a step differ by rounding. Adam's first step turns the sign of a gradient
# that is nearly zero into a full learning rate, so a few weights may differ by that much.
FRACTION_OF_WEIGHTS_THAT_AGREE = 0.99


# Training


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_arm_trains_equal_weights_when_repeated(tmp_path, features, width, arm):
    job = training(features(width), width, use_gpu=True, **ARMS[arm])

    runs = {trained(job, tmp_path / str(number)) for number in range(3)}

    assert len(runs) == 1


@pytest.mark.parametrize("model", sorted(model_names()))
def test_every_model_trains_equal_weights_when_repeated(tmp_path, features, model):
    arms = {"auxiliary": True, "windows": True}
    job = training(features("demo"), "demo", model=model, use_gpu=True, **arms)

    runs = {trained(job, tmp_path / str(number)) for number in range(3)}

    assert len(runs) == 1


@pytest.mark.parametrize("arm", ARMS)
def test_training_on_a_gpu_agrees_with_training_on_a_cpu(tmp_path, features, arm):
    weights = {}
    for device, use_gpu in (("cpu", False), ("gpu", True)):
        out = Location.at(tmp_path / device)
        train_in_process(training(features("ave"), "ave", use_gpu=use_gpu, **ARMS[arm]), out)
        weights[device] = load((out / WEIGHTS).read_bytes())

    agree = torch.cat(
        [
            torch.isclose(weights["cpu"][name], value, rtol=1e-3, atol=1e-5).flatten()
            for name, value in weights["gpu"].items()
        ]
    )
    assert agree.double().mean() > FRACTION_OF_WEIGHTS_THAT_AGREE


# Step 2


@pytest.mark.parametrize("width", WIDTHS)
def test_window_scores_on_a_gpu_are_repeatable_and_agree_with_a_cpu(features, width):
    def actor(*, use_gpu: bool) -> RefineWorker:
        torch.manual_seed(0)
        task = task_of(ModelConfig(), TrainConfig())
        make_model = recipe("ave", WIDTHS[width])
        return RefineWorker(
            make_model, features(width), WINDOWS, 4, task, "refined", use_gpu=use_gpu
        )

    partners = list(range(20, 33))
    first, second = (scores(actor(use_gpu=True), partners) for _ in range(2))
    on_cpu = scores(actor(use_gpu=False), partners)

    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, on_cpu, atol=1e-5)


# Features


@pytest.mark.parametrize("name", extractor_names())
def test_extraction_on_a_gpu_agrees_with_a_cpu(monkeypatch, name):
    make = extractor_class(name)
    networks = make.networks(ExtractConfig(extractor=name))
    config = ExtractConfig(
        extractor=name, weights=dict.fromkeys(networks, "random"), frames_per_segment=2
    )

    timeline = Timeline(num_segments=2, segment_s=1.0)
    media = video(0, timeline, 120)

    def embedded() -> tuple[np.ndarray, np.ndarray]:
        extractor = make(timeline, config)
        extractor.load()
        (features,) = extractor.embed([extractor.prepare(media)])
        return features.audio_TD, features.visual_TRD.astype(np.float32)

    first, second = embedded(), embedded()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = embedded()

    for one, again, expected in zip(first, second, on_cpu, strict=True):
        np.testing.assert_array_equal(one, again)
        # visual features are stored with 11 bits
        np.testing.assert_allclose(one, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())


# Whole pipeline


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_pipeline_gives_equal_weights_when_repeated(tmp_path, ray_cluster):
    on_gpu = {
        "extract": {"gpus_per_actor": 0.5, "num_actors": 2, "cpus_per_actor": 1},
        "train": {"use_gpu": True},
        "refine": {"gpus_per_actor": 0.5, "num_actors": 2},
        "arms": ["A+LR"],  # each stage in Ray takes half a minute, mostly to import torch
    }
    weights: dict[str, list[bytes]] = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run_pipeline(settings(tmp_path / name, **on_gpu))
        weights[name] = all_weights(tmp_path / name / "run")

    assert len(weights["first"]) == 2
    assert weights["first"] == weights["second"]


def all_weights(run: Path) -> list[bytes]:
    """Return the weights of Steps 1 and 3, ordered by stage and fingerprint."""
    return [path.read_bytes() for path in sorted(run.glob(f"*/*/{WEIGHTS}"))]
