"""The network extractors, from a real mp4 file to features."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import ConfigError, WeightsError
from distributed_avel.features.base import Extractor, extractor_class
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.features.networks import Vgg19Pool5
from distributed_avel.features.published import AveExtractor, LlpExtractor
from distributed_avel.features.resnet_r2plus1d import centre_crop
from distributed_avel.features.vgg19 import mean_over_samples
from distributed_avel.features.weights import PUBLIC
from distributed_avel.media.write import write_mp4
from distributed_avel.timeline import Timeline
from tests.features.seeded_weights import save
from tests.media.clips import clip, tones

TIMELINE = Timeline(num_segments=2, segment_s=1.0)
AVE, LLP = "vgg19+vggish", "resnet152+r2plus1d_18+vggish"
RANDOM = {
    AVE: {"vgg19": "random", "vggish": "random"},
    LLP: {"resnet152": "random", "r2plus1d_18": "random", "vggish": "random"},
}

# Relative to the largest feature. Another batch size sums in another order: 1e-5 in fp32. Visual
# features are stored as float16, which adds half a unit in the last place, 5e-4.
AUDIO_TOLERANCE, VISUAL_TOLERANCE = 1e-5, 6e-4


def extractor(name: str, **settings) -> Extractor:
    values = {"weights": RANDOM[name], "frames_per_segment": 1 if name == AVE else 4, **settings}
    return extractor_class(name)(TIMELINE, ExtractConfig(extractor=name, **values))


def coloured(seed: int) -> bytes:
    """Make a video of two seconds of coloured blocks, in landscape format."""
    blocks = np.random.default_rng(seed).integers(0, 256, (16, 6, 8, 3))
    frames = np.kron(blocks, np.ones((1, 16, 16, 1))).astype(np.uint8)
    return write_mp4(frames, 8, tones(2, 16_000) * (1 + seed) / 4, 16_000)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    wide = other.astype(np.float64)
    return float(np.abs(one - wide).max() / np.abs(wide).max())


def test_extractors_are_registered_under_the_names_of_the_published_features():
    assert extractor_class(AVE) is AveExtractor
    assert extractor_class(LLP) is LlpExtractor


@pytest.mark.parametrize(
    ("name", "visual_shape"), [(AVE, (2, 49, 512)), (LLP, (2, 1, 2560))], ids=["ave", "llp"]
)
def test_features_of_a_file_do_not_depend_on_the_batch(name, visual_shape):
    ours = extractor(name, frames_per_batch=5)
    ours.load()
    prepared = [pickle.loads(pickle.dumps(ours.prepare(coloured(seed)))) for seed in (0, 1)]

    together = ours.embed(prepared)
    (alone,) = ours.embed(prepared[1:])

    assert ours.shapes.audio == (2, 128)
    assert ours.shapes.visual == visual_shape
    for features in together:
        assert features.audio_TD.shape == (2, 128)
        assert features.audio_TD.dtype == np.float32
        assert features.visual_TRD.shape == visual_shape
        assert features.visual_TRD.dtype == np.float16
        assert np.isfinite(features.audio_TD).all()
        assert np.isfinite(features.visual_TRD).all()
    np.testing.assert_array_equal(together[1].audio_TD, alone.audio_TD)
    np.testing.assert_array_equal(together[1].visual_TRD, alone.visual_TRD)
    assert difference(together[0].visual_TRD, alone.visual_TRD) > 0.01  # other pictures


def test_frames_are_scaled_without_a_crop_for_vgg19():
    audio, sampled = extractor(AVE).prepare(coloured(0))

    assert audio.shape == (2, 1, 96, 64)
    assert sampled.frames_FHW3.shape == (2, 224, 224, 3)
    corners = sampled.frames_FHW3[0, [0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    first = np.random.default_rng(0).integers(0, 256, (16, 6, 8, 3))[0]
    assert np.abs(corners - first[[0, 0, -1, -1], [0, -1, 0, -1]]).mean() < 40


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 96), (64, 64)])
def test_llp_frames_are_cropped_and_clips_are_not(height, width):
    media = clip(2.0, height=height, width=width)

    _, video = extractor(LLP, frames_per_segment=None).prepare(media)

    assert video.frames_FHW3.shape == (16, 224, 224, 3)
    assert video.small_FHW3.shape == (16, 112, 112, 3)
    assert video.index_TS.tolist() == [list(range(8)), list(range(8, 16))]


def test_centre_crop_returns_the_centre():
    frames = np.zeros((1, 256, 340, 3), dtype=np.uint8)
    frames[:, 16:240, 58:282] = 1

    assert centre_crop(frames).all()
    assert centre_crop(frames).shape == (1, 224, 224, 3)


def test_a_frame_sampled_twice_counts_twice():
    features = np.array([[0.0], [3.0], [7.0]], dtype=np.float32)

    means = mean_over_samples(features, np.array([[0, 0, 1], [2, 2, 2]]))

    assert means.tolist() == [[1.0], [7.0]]


def test_frames_per_segment_defaults_to_the_published_number():
    assert extractor(AVE, frames_per_segment=None).frames_per_segment == 16
    assert extractor(LLP, frames_per_segment=None).frames_per_segment == 8
    assert extractor(LLP, frames_per_segment=3).frames_per_segment == 3


def test_random_weights_are_shown_and_recorded():
    ours = extractor(AVE)

    assert ours.weights_note == ("random weights (vgg19, vggish): these features are meaningless")
    assert ours.provenance()["weights.vgg19"] == "random, seed 0"
    assert extractor(AVE, weights={}).weights_note is None


def test_provenance_is_known_without_loading_weights(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"a")
    (tmp_path / "b.pth").write_bytes(b"b")

    def known(file="a.pth", **settings):
        weights = {"vgg19": str(tmp_path / file), "vggish": str(tmp_path / "a.pth")}
        return extractor(AVE, weights=weights, **settings).provenance()

    same = known()
    assert known(frames_per_batch=3) == same
    assert same["weights.vgg19"].startswith("sha256 ca978112ca1bbdca")
    assert known("b.pth") != same
    assert known(preprocessing="torchvision") != same
    assert known(precision="bf16") != same
    assert known(frames_per_segment=2) != same


@pytest.mark.parametrize(
    ("preprocessing", "source"),
    [("keras_caffe", "vgg19_caffe"), ("torchvision", "vgg19_torchvision")],
)
def test_each_preprocessing_has_its_own_published_weights(preprocessing, source):
    networks = AveExtractor.networks(ExtractConfig(preprocessing=preprocessing))

    assert networks == {"vgg19": source, "vggish": "vggish"}
    assert set(networks.values()) <= PUBLIC.keys()


def test_weights_for_an_unknown_network_are_refused():
    with pytest.raises(ConfigError, match="no network 'vgg'; it has: vgg19, vggish"):
        extractor(AVE, weights={"vgg": "random"})
    with pytest.raises(ConfigError, match="no network 'vgg19'; it has: none"):
        Descriptors(TIMELINE, ExtractConfig(weights={"vgg19": "random"}))


@pytest.mark.parametrize("step", ["provenance", "load"])
def test_missing_weights_are_refused_before_any_video(tmp_path, step):
    ours = extractor(AVE, weights={"vgg19": str(tmp_path / "none.pth"), "vggish": "random"})

    with pytest.raises(WeightsError, match=r"extract.weights.vgg19: .*none.pth: there is no such"):
        getattr(ours, step)()


def test_features_beyond_float16_are_refused_with_the_remedy(tmp_path):
    state = Vgg19Pool5("keras_caffe").state_dict()
    state["features.34.bias"] += 1e6
    weights = {"vgg19": str(save(state, tmp_path / "large.pth")), "vggish": "random"}
    ours = extractor(AVE, weights=weights)

    with pytest.raises(WeightsError, match=r"exceed the range of float16.*; use bf16 or fp32"):
        ours.embed([ours.prepare(coloured(0))])


def test_decoding_processes_never_import_torch():
    code = (
        "import sys\n"
        "import distributed_avel.features\n"
        "from distributed_avel.config import ExtractConfig\n"
        "from distributed_avel.features.base import extractor_class\n"
        "from distributed_avel.timeline import Timeline\n"
        "media = sys.stdin.buffer.read()\n"
        "for name in ('vgg19+vggish', 'resnet152+r2plus1d_18+vggish'):\n"
        "    config = ExtractConfig(extractor=name, frames_per_segment=1)\n"
        "    timeline = Timeline(num_segments=2, segment_s=1.0)\n"
        "    extractor_class(name)(timeline, config).prepare(media)\n"
        "print('torch' in sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], input=coloured(0), capture_output=True, check=True
    )

    assert done.stdout.decode().strip() == "False"
