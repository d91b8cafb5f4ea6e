"""VGGish, compared with outputs of the published implementation, and audio segments."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import ConfigError
from distributed_avel.features.vggish import Vggish, log_mel_patches
from distributed_avel.features.weights import find_weights
from distributed_avel.media.audio import segments_of_audio
from distributed_avel.timeline import Timeline
from tests.features.seeded_weights import parity_wave, save, vggish_state
from tests.models.reference_weights import reference

SECONDS = Timeline(num_segments=10, segment_s=1.0)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(vggish_state(), tmp_path_factory.mktemp("weights") / "vggish.pth")


def vggish_stream(weights_file: Path, timeline: Timeline = SECONDS, **settings) -> Vggish:
    vggish = Vggish(timeline, ExtractConfig(**settings), frames_per_segment=16)
    vggish.load({"vggish": find_weights("vggish", str(weights_file))})
    return vggish


@pytest.fixture(scope="module")
def vggish(weights_file: Path) -> Vggish:
    return vggish_stream(weights_file)


def parity_patches() -> np.ndarray:
    return log_mel_patches(segments_of_audio(parity_wave(), SECONDS, 16_000))


def test_log_mel_patches_equal_the_published_ones():
    expected = reference("vggish").outputs["log_mel"]

    np.testing.assert_allclose(parity_patches()[:, 0], expected, atol=1e-4)


def test_embeddings_equal_the_published_ones(vggish):
    expected = reference("vggish").outputs["embedding"]

    (embedding,) = vggish.embed([parity_patches()])

    assert embedding.shape == vggish.shape == (10, 128)
    assert embedding.min() == 0.0  # after the last ReLU
    np.testing.assert_allclose(embedding, expected, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close_but_not_equal(weights_file, precision):
    patches = parity_patches()[:2]
    timeline = Timeline(num_segments=2, segment_s=1.0)
    exact = reference("vggish").outputs["embedding"][:2]

    (rough,) = vggish_stream(weights_file, timeline, precision=precision).embed([patches])

    error = np.abs(rough - exact).max()
    assert 1e-6 < error < 0.05 * np.abs(exact).max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_embeddings_on_a_gpu_equal_the_published_ones(weights_file, precision, tolerance):
    expected = reference("vggish").outputs["embedding"]
    vggish = vggish_stream(weights_file, precision=precision)

    (embedding,) = vggish.embed([parity_patches()])

    assert vggish._run is not None
    assert vggish._run.device.type == "cuda"
    np.testing.assert_allclose(embedding, expected, atol=tolerance * np.abs(expected).max())


def test_silence_has_finite_and_equal_features_in_each_segment(vggish):
    silent = log_mel_patches(np.zeros((10, 16_000), dtype=np.float32))

    (embedding,) = vggish.embed([silent])

    assert np.isfinite(embedding).all()
    np.testing.assert_allclose(embedding, np.broadcast_to(embedding[0], (10, 128)), atol=1e-5)


def test_a_long_segment_has_the_mean_embedding_of_its_patches(weights_file):
    two_second_segments = Timeline(num_segments=5, segment_s=2.0)
    patches = log_mel_patches(segments_of_audio(parity_wave(), two_second_segments, 16_000))
    long, short = vggish_stream(weights_file, two_second_segments), vggish_stream(weights_file)

    (means,) = long.embed([patches])
    (parts,) = short.embed([patches.reshape(10, 1, 96, 64)])

    assert patches.shape == (5, 2, 96, 64)
    np.testing.assert_allclose(means, parts.reshape(5, 2, 128).mean(axis=1), atol=1e-5)


def test_a_segment_shorter_than_a_patch_is_refused():
    with pytest.raises(
        ConfigError, match=r"data.segment_s: .* too short for VGGish, which needs 0.975 s"
    ):
        Vggish(Timeline(num_segments=10, segment_s=0.5), ExtractConfig(), frames_per_segment=16)
