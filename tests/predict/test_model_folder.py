"""Model folders: damage, missing files and other versions are errors, and no code is run."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from media.clips import clip

from distributed_avel import load_model
from distributed_avel.config import ExtractConfig
from distributed_avel.errors import ArtifactError, AvelError, ConfigError, WeightsError
from distributed_avel.features.base import extractor_class
from distributed_avel.predict.model_folder import (
    MODEL_CONFIG,
    MODEL_WEIGHTS,
    read_model_folder,
)
from distributed_avel.storage import Location
from distributed_avel.train.checkpoint import weights_to_bytes
from tests.predict.folders import CLASSES, T, feature_model, random_features, write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model")


def changed(folder, **values):
    """Change values of config.json, given by "key" or "section.key"."""
    content = json.loads((folder / MODEL_CONFIG).read_text())
    for key, value in values.items():
        *sections, name = key.split("__")
        section = content
        for part in sections:
            section = section[part]
        section[name] = value
    (folder / MODEL_CONFIG).write_text(json.dumps(content))
    return folder


def refusal(folder, kind: type[AvelError] = ArtifactError) -> str:
    with pytest.raises(kind) as refused:
        load_model(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_model_folder_survives_a_round_trip(folder):
    settings, weights = read_model_folder(Location.at(folder))

    assert settings.classes == CLASSES
    assert (settings.num_segments, settings.segment_s) == (T, 1.0)
    assert settings.extract == ExtractConfig()
    model = load_model(folder)
    assert weights_to_bytes(model.model) == weights
    assert model.classes == CLASSES
    assert not model.model.training
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == 50
    card = (folder / "README.md").read_text()
    assert "| accuracy | 50.0 |" in card
    assert "| non_ave_precision | undefined |" in card
    assert "synthetic" in card


def test_a_flipped_bit_of_the_weights_is_detected(folder):
    content = bytearray((folder / MODEL_WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / MODEL_WEIGHTS).write_bytes(content)

    assert refusal(folder).endswith("model.safetensors: damaged: its sha256 is another; copy it "
                                    "again")  # fmt: skip


@pytest.mark.parametrize("name", [MODEL_CONFIG, MODEL_WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()

    message = refusal(folder)

    assert f"not a model folder: no {name}; name the folder `model` of a finished run" in message


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[1]", b"null"])
def test_a_config_that_is_not_a_json_object_is_damaged(folder, content):
    (folder / MODEL_CONFIG).write_bytes(content)

    assert "config.json: damaged: no" in refusal(folder)


@pytest.mark.parametrize("version", [2, "1", None, 1.5])
def test_another_format_is_refused_with_the_version_that_wrote_it(folder, version):
    changed(folder, format=version, version="9.9", of_the_future=1)

    message = refusal(folder)

    assert (
        f"config.json: format {version!r}, written by distributed_avel 9.9; this version" in message
    )
    assert "reads format 1; install the version that wrote it" in message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"unknown": 1}, "unknown: no such key"),
        ({"model__nmae": "ave"}, "model.nmae"),
        ({"classes": []}, "classes"),
        ({"num_segments": 0}, "num_segments"),
        ({"segment_s": -1}, "segment_s"),
        ({"audio_shape": []}, "audio_shape"),
        ({"visual_shape": [10, 49]}, "visual_shape"),
        ({"extract": 3}, "extract"),
    ],
)
def test_an_invalid_value_is_named_by_its_key(folder, values, says):
    message = refusal(changed(folder, **values))

    assert message.startswith(str(folder / MODEL_CONFIG))
    assert says in message
    assert "copy the folder again" in message


@pytest.mark.parametrize(
    "values", [{"model__hidden_size": 16}, {"classes": ["one"]}, {"audio_shape": [10, 64]}]
)
def test_weights_of_another_model_are_refused_in_one_line(folder, values):
    message = refusal(changed(folder, **values))

    assert "model.safetensors: not weights of this model" in message
    assert "config.json was changed or belongs to another model: copy the whole folder" in message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model__name": "mine"}, "model.name: no base model 'mine'; there are: ave,"),
        ({"extract__extractor": "mine"}, "extract.extractor: no extractor 'mine'; there are: "),
        ({"model__options": {"x": 1}}, "model.options"),
    ],
)
def test_an_unknown_name_is_refused_with_the_remedy(folder, values, says):
    message = refusal(changed(folder, **values), ConfigError)

    assert message.startswith(str(folder / MODEL_CONFIG))
    assert says in message
    assert "name its module with --plugins" in message


@pytest.mark.parametrize("key", ["model__name", "extract__extractor", "dataset", "arm", "version"])
def test_a_config_never_imports_or_runs_code(tmp_path, monkeypatch, key):
    folder = write_folder(tmp_path / "model")
    (tmp_path / "planted.py").write_text("raise SystemExit('code of a model folder was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value in ("planted", "planted:Model", "../planted.py", "__import__('planted')"):
        changed(folder, **{key: value})
        with suppress(ConfigError):
            load_model(folder)
    assert "planted" not in sys.modules


def test_pickled_weights_are_refused(folder):
    import hashlib
    import io

    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    (folder / MODEL_WEIGHTS).write_bytes(buffer.getvalue())
    changed(folder, sha256=hashlib.sha256(buffer.getvalue()).hexdigest())

    assert "not weights of this model" in refusal(folder)


def test_a_model_trained_on_given_features_predicts_features_only(tmp_path):
    model = feature_model(tmp_path / "model", "ave")

    assert model.probabilities(*random_features(5)).shape == (5, len(CLASSES) + 1)
    with pytest.raises(ConfigError, match="trained on features that demo brings, so there is no"):
        model.predict("a.mp4")


# Weights of the extractor ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vggish(tmp_path_factory):
    """A folder with small weights of both networks of `vgg19+vggish`."""
    from distributed_avel.features.networks import Vgg19Pool5, VggishNetwork

    root = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(Vgg19Pool5("torchvision").state_dict(), root / "vgg19.pth")
        torch.save(VggishNetwork().state_dict(), root / "vggish.pth")
    return root


@pytest.fixture(scope="module")
def trained(vggish, tmp_path_factory):
    """A model folder of `vgg19+vggish` whose weights were in a folder that no longer exists."""
    before = tmp_path_factory.mktemp("before")
    networks = extractor_class("vgg19+vggish").networks(ExtractConfig())
    files = dict(zip(sorted(networks), ("vgg19.pth", "vggish.pth"), strict=True))
    for name in files.values():
        (before / name).write_bytes((vggish / name).read_bytes())
    extract = ExtractConfig(
        extractor="vgg19+vggish",
        weights={network: str(before / name) for network, name in files.items()},
    )
    folder = write_folder(
        tmp_path_factory.mktemp("trained") / "model",
        extract=extract,
        visual_shape=(T, 49, 512),
    )
    for name in files.values():
        (before / name).unlink()
    return folder, {network: str(vggish / name) for network, name in files.items()}


def test_missing_weights_are_named_with_the_option_to_locate_them(trained):
    folder, _ = trained

    message = refusal(folder, WeightsError)

    assert "there is no such file" in message
    assert "--weights and --weights-dir of avel predict" in message


def test_weights_in_another_folder_are_found(trained, tmp_path):
    folder, files = trained

    found = load_model(folder, weights=files).predict(written(tmp_path, clip(1.0)))

    assert found.num_segments == 1


def test_weights_with_another_hash_are_refused(trained, tmp_path):
    folder, files = trained
    network = sorted(files)[1]
    other = tmp_path / "other.pth"
    content = bytearray(Path(files[network]).read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)

    with pytest.raises(ArtifactError) as refused:
        load_model(folder, weights={**files, network: str(other)})

    assert f"the extractor is not that of the training: weights.{network} was sha256" in str(
        refused.value
    )
    assert "\n" not in str(refused.value)


def test_urls_in_a_model_folder_are_not_downloaded(folder):
    config = json.loads((folder / "config.json").read_text())
    config["extract"]["weights"] = {"vgg19": "http://127.0.0.1:9/vgg19.pth"}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ConfigError, match=r"vgg19: weights from a URL .*--weights vgg19=FILE"):
        load_model(folder)


def test_downloaded_weights_are_looked_up_in_the_given_folder(tmp_path):
    extract = ExtractConfig(weights_dir="/gone")
    folder = write_folder(tmp_path / "model", extract=extract)

    assert load_model(folder).settings.extract.weights_dir is None  # a folder may be anybody's
    model = load_model(folder, weights_dir=tmp_path / "here")

    assert model.settings.extract.weights_dir == str(tmp_path / "here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(folder):
    with pytest.raises(ConfigError, match=r"no GPU that PyTorch can use; leave out --gpu"):
        load_model(folder, use_gpu=True)


def written(folder, content):
    (folder / "v.mp4").write_bytes(content)
    return folder / "v.mp4"


@pytest.mark.parametrize("hop_s", [1e-7, 1e-320, 1 / 17])
def test_a_hop_that_is_too_short_is_refused(model_folder, hop_s):
    with pytest.raises(ConfigError, match=r"^hop .* s: too short, .*; use 0\.0625 or more$"):
        load_model(model_folder, hop_s=hop_s)

    load_model(model_folder, hop_s=1 / 16)


def test_frames_sampled_by_count_have_no_hop(tmp_path):
    folder = write_folder(tmp_path / "model", extract=ExtractConfig(sampling="published"))

    with pytest.raises(ConfigError, match=r"^hop 0\.5 s: .* extract\.sampling published"):
        load_model(folder, hop_s=0.5)

    load_model(folder, hop_s=1.0)
