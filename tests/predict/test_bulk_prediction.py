"""Units of files: the same predictions as one by one, kept when a command is repeated."""

from argparse import Namespace
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from media.clips import clip

from distributed_avel import bulk_prediction, load_model
from distributed_avel.bulk_prediction import PredictionWorker, predict_units
from distributed_avel.commands import main
from distributed_avel.errors import MediaError, StorageError
from distributed_avel.predict import TrainedModel
from distributed_avel.predict.files import Request, read_request
from distributed_avel.predict.prediction import Prediction
from tests.predict.folders import write_folder

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Three good files and two that cannot be used; only to be read."""
    folder = tmp_path_factory.mktemp("videos")
    contents = {"a.mp4": clip(2.0), "b.mp4": clip(3.0, sound_s=1.0), "c.mp4": clip(23.0, fps=4.0)}
    for name, content in {**contents, "empty.mp4": b"", "words.mp4": b"words " * 99}.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def model(model_folder):
    """One model for all tests, so that its decoding process starts once."""
    return load_model(model_folder)


def request(model: TrainedModel, videos: Path, out: Path) -> Request:
    """A request whose workers use this model."""
    options = Namespace(
        model="shared", sources=[str(videos)], out=str(out), format=None, processes="1",
        hop=None, gpu=False, weights=[], weights_dir=None, plugins=[],
    )  # fmt: skip

    class SharedModel(Request):
        def load_model(self) -> TrainedModel:
            return model

    request = read_request(options)
    return SharedModel(**{field.name: getattr(request, field.name) for field in fields(request)})


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr(bulk_prediction, "_UNIT_SIZE", 2)


@pytest.mark.usefixtures("small_units")
def test_units_give_the_same_predictions_and_are_kept(model, videos, tmp_path, monkeypatch):
    asked = request(model, videos, tmp_path)

    results = predict_units(asked, model, None)

    expected = [result for _, result in model.predict_all(f.address for f in asked.files)]
    assert [type(result) for result in results] == [type(result) for result in expected]
    for result, other in zip(results, expected, strict=True):
        if isinstance(result, Prediction):
            np.testing.assert_array_equal(result.probabilities, other.probabilities)
            assert (result.video, result.note, result.events) == (
                other.video, other.note, other.events,
            )  # fmt: skip
        else:
            assert str(result) == str(other)

    def refuse(self, rows):
        raise AssertionError("a finished unit is predicted again")

    monkeypatch.setattr(PredictionWorker, "__call__", refuse)
    again = predict_units(asked, model, None)
    assert [str(result) for result in again] == [str(result) for result in results]


@pytest.mark.usefixtures("small_units")
def test_another_model_and_changed_files_are_predicted_anew(model, videos, tmp_path):
    path = tmp_path / "in" / "v.mp4"
    path.parent.mkdir()
    path.write_bytes((videos / "a.mp4").read_bytes())
    out = tmp_path / "out"
    asked = request(model, path.parent, out)
    (first,) = predict_units(asked, model, None)

    path.write_bytes(clip(4.0))
    (changed,) = predict_units(asked, model, None)
    other = load_model(write_folder(tmp_path / "other", seed=1))
    (of_other,) = predict_units(request(other, path.parent, out), other, None)

    assert (first.num_segments, changed.num_segments, of_other.num_segments) == (2, 4, 4)
    assert (changed.probabilities != of_other.probabilities).any()


@pytest.mark.usefixtures("small_units")
def test_an_unreadable_file_does_not_cost_the_others_of_its_unit(
    model, videos, tmp_path, monkeypatch
):
    asked = request(model, videos / "[ab].mp4", tmp_path)
    monkeypatch.setattr(PredictionWorker.__init__, "__kwdefaults__", {"retry_s": (0.0,)})
    predict_all = TrainedModel.predict_all

    def b_is_unreadable(self, addresses, num_processes):
        for address in addresses:
            if Path(address).name == "b.mp4":
                yield address, StorageError(f"{address}: cannot be read (the disk sleeps)")
            else:
                yield from predict_all(self, [address], num_processes)

    with monkeypatch.context() as patch:
        patch.setattr(TrainedModel, "predict_all", b_is_unreadable)
        first, failed = predict_units(asked, model, None)
    again, found = predict_units(asked, model, None)

    assert str(failed).endswith("cannot be read (the disk sleeps); the same command tries it again")
    assert isinstance(found, Prediction)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


def test_a_file_of_an_unknown_storage_fails_alone(model, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(PredictionWorker.__init__, "__kwdefaults__", {"retry_s": (0.0,)})
    listed = tmp_path / "list.csv"
    listed.write_text(f"path\n{videos / 'a.mp4'}\n{'n' * 300}.mp4\n")
    asked = request(model, listed, tmp_path / "out")

    results = predict_units(asked, model, None)

    assert sorted(isinstance(result, Prediction) for result in results) == [False, True]


def test_a_file_that_cannot_be_read_for_now_is_tried_again_by_the_next_call(
    model, videos, tmp_path, monkeypatch
):
    asked = request(model, videos / "a.mp4", tmp_path)
    monkeypatch.setattr(PredictionWorker.__init__, "__kwdefaults__", {"retry_s": (0.0,)})
    calls = []

    def unreadable(self, addresses, num_processes):
        for address in addresses:
            calls.append(address)
            yield address, StorageError(f"{address}: cannot be read (the disk sleeps)")

    with monkeypatch.context() as patch:
        patch.setattr("distributed_avel.predict.model.TrainedModel.predict_all", unreadable)
        (failed,) = predict_units(asked, model, None)
    (found,) = predict_units(asked, model, None)

    assert len(calls) == 2
    assert str(failed).endswith("cannot be read (the disk sleeps); the same command tries it again")
    assert isinstance(failed, StorageError)
    assert found.num_segments == 2


def test_a_file_that_is_gone_is_a_failure(model, videos, tmp_path):
    path = tmp_path / "in" / "v.mp4"
    path.parent.mkdir()
    path.write_bytes((videos / "a.mp4").read_bytes())
    asked = request(model, path, tmp_path / "out")
    path.unlink()

    (failed,) = predict_units(asked, model, None)

    assert isinstance(failed, MediaError)
    assert "no such file" in str(failed)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--actors", "2"], "--actors: files are predicted on Ray, which keeps finished ones"),
        (["--actors", "some", "--out", "o"], "--actors: 'some' is not a number of actors"),
    ],
)
def test_a_wrong_option_is_refused_before_ray_starts(
    model_folder, videos, tmp_path, monkeypatch, capsys, arguments, says
):
    monkeypatch.chdir(tmp_path)

    status = main(["predict", str(model_folder), str(videos), *arguments])

    assert status == 2
    assert capsys.readouterr().err.startswith(f"error: {says}")
