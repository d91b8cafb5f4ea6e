"""Models on a hub: the client of huggingface_hub against a server on loopback."""

import json

import pytest

from distributed_avel import load_model
from distributed_avel.errors import ConfigError, StorageError
from distributed_avel.predict import TrainedModel
from distributed_avel.predict.model_folder import MODEL_CONFIG
from tests.predict.folders import random_features, write_folder
from tests.predict.hub_server import running_hub

SHAPES = {"audio_shape": (10, 12), "visual_shape": (10, 4, 8)}


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model", has_extractor=False, **SHAPES)


@pytest.fixture
def hub():
    with running_hub() as server:
        yield server


def probabilities(model: TrainedModel):
    return model.probabilities(*random_features(7)).tolist()


def test_a_local_folder_is_loaded_without_a_hub(folder):
    assert probabilities(TrainedModel.from_pretrained(folder)) == probabilities(load_model(folder))


def test_a_model_comes_back_from_a_hub(folder, hub, tmp_path):
    model = load_model(folder)

    address = model.push_to_hub("me/mine", private=True, token="t", endpoint=hub.url)

    assert address.startswith(f"{hub.url}/me/mine/commit/")
    assert hub.private["me/mine"]
    assert set(hub.files["me/mine"]) == {file.name for file in folder.iterdir()}
    options = {"endpoint": hub.url, "cache_dir": tmp_path / "cache"}
    loaded = TrainedModel.from_pretrained("me/mine", **options)
    assert probabilities(loaded) == probabilities(model)
    hub.files.clear()
    again = TrainedModel.from_pretrained("me/mine", local_files_only=True, **options)
    assert probabilities(again) == probabilities(model)


def test_files_in_other_formats_of_a_replaced_model_are_removed_from_the_hub(folder, hub):
    hub.files["me/mine"] = {"encode.onnx": b"old", "formats.json": b"{}", "notes.md": b"mine"}
    (folder / "score.onnx").write_bytes(b"new")

    load_model(folder).push_to_hub("me/mine", token="t", endpoint=hub.url)

    assert set(hub.files["me/mine"]) == {file.name for file in folder.iterdir()} | {"notes.md"}


def test_only_the_files_of_a_model_are_downloaded_and_none_is_run(folder, hub, tmp_path):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    planted = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04."}
    hub.files["you/theirs"] = {**files, **planted, "example.py": b"raise SystemExit"}

    TrainedModel.from_pretrained("you/theirs", endpoint=hub.url, cache_dir=tmp_path / "cache")

    asked = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert asked == {"config.json", "model.safetensors", "metrics.json", "README.md"}


def test_a_downloaded_model_cannot_name_urls_to_fetch(hub, tmp_path):
    folder = write_folder(tmp_path / "model")
    config = json.loads((folder / MODEL_CONFIG).read_text())
    config["extract"]["weights"] = {"vgg19": "http://127.0.0.1:9/vgg19.pth"}
    (folder / MODEL_CONFIG).write_text(json.dumps(config))
    hub.files["you/theirs"] = {file.name: file.read_bytes() for file in folder.iterdir()}

    with pytest.raises(ConfigError, match="weights from a URL are not fetched"):
        TrainedModel.from_pretrained("you/theirs", endpoint=hub.url, cache_dir=tmp_path / "cache")


def test_a_saved_model_is_a_copy_of_the_folder(folder, tmp_path):
    (folder / "notes.txt").write_text("not of the model")

    load_model(folder).save_pretrained(tmp_path / "copy")

    names = {file.name for file in folder.iterdir()} - {"notes.txt"}
    assert {file.name for file in (tmp_path / "copy").iterdir()} == names
    assert probabilities(load_model(tmp_path / "copy")) == probabilities(load_model(folder))


@pytest.mark.parametrize("name", ["no/such", "not a name", "/no/such/folder"])
def test_a_name_that_the_hub_does_not_have_is_refused_in_one_line(hub, tmp_path, name):
    with pytest.raises(StorageError) as refused:
        TrainedModel.from_pretrained(name, endpoint=hub.url, cache_dir=tmp_path)

    assert str(refused.value).startswith(f"{name}: cannot be read on the hub (")
    assert "\n" not in str(refused.value)


def test_a_hub_that_does_not_answer_is_named(folder, tmp_path):
    options = {"endpoint": "http://127.0.0.1:9", "token": "t"}

    with pytest.raises(StorageError, match="me/mine: cannot be written on the hub"):
        load_model(folder).push_to_hub("me/mine", **options)
    with pytest.raises(StorageError, match="me/mine: cannot be read on the hub"):
        TrainedModel.from_pretrained("me/mine", cache_dir=tmp_path, **options)
