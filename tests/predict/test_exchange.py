"""Models as ONNX and torch.export compute what `avel predict` computes."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from distributed_avel import load_model
from distributed_avel.cli import USER_ERROR
from distributed_avel.commands import main
from distributed_avel.errors import ArtifactError
from distributed_avel.models import BaseModel, model_names
from distributed_avel.predict.exchange import OPSET, TOLERANCE, exported
from distributed_avel.predict.model_folder import FUNCTIONS, Format
from tests.predict.folders import T, feature_model, random_features, write_folder

SHAPES = {"audio_shape": (T, 12), "visual_shape": (T, 4, 8)}

UNROLLED = {
    "onnx": {"cman"},
    "torch-export": {"ave", "avfb", "avin", "avsdn", "cman", "psp"},
}
"""Models whose functions across segments accept T segments only."""


def written(folder: Path, model: str, *formats: str) -> Path:
    write_folder(folder, model=model, has_extractor=False, **SHAPES)
    assert main(["export", str(folder), "--to", str(folder), "--format", *formats]) == 0
    return folder


def run_onnx(file: Path, *arrays: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]
    (output,) = session.run(None, dict(zip(names, arrays, strict=True)))
    return np.asarray(output)


def run_torch(file: Path, *arrays: np.ndarray) -> np.ndarray:
    program = torch.export.load(file).module()
    return program(*map(torch.from_numpy, arrays)).detach().numpy()


RUN = {"onnx": (".onnx", run_onnx), "torch-export": (".pt2", run_torch)}


def check_predictions(folder: Path, format: Format, lengths: list[int]) -> None:
    """Compare `encode` and `probabilities` with the probabilities of the model."""
    suffix, run = RUN[format]
    model = load_model(folder)
    for length in lengths:
        audio_MD, visual_MRD = random_features(length)
        codes = run(folder / f"encode{suffix}", audio_MD[None], visual_MRD[None].astype(np.float32))
        prob_MK = run(folder / f"probabilities{suffix}", codes)[0]
        expected_MK = model.probabilities(audio_MD, visual_MRD)
        assert prob_MK.reshape(expected_MK.shape) == pytest.approx(expected_MK, abs=TOLERANCE)


def test_onnx_files_predict_videos_of_any_length_up_to_t(tmp_path):
    folder = written(tmp_path / "model", "ave", "onnx")

    check_predictions(folder, "onnx", [T, 1, 7])
    description = json.loads((folder / "formats.json").read_text())
    assert [file["file"] for file in description["files"]] == [f"{n}.onnx" for n in FUNCTIONS]
    assert description["model_sha256"] == load_model(folder).settings.sha256
    for file in description["files"]:
        assert file["max_difference"] <= TOLERANCE
        model = onnx.load(folder / file["file"])
        onnx.checker.check_model(model, full_check=True)
        assert {opset.domain: opset.version for opset in model.opset_import}[""] == OPSET
        assert not {node.domain for node in model.graph.node} - {""}
        assert file["any_number_of_segments"]
    first, score = description["files"][:2]
    assert first["inputs"] == {
        "audio": ["videos", "segments", 12],
        "visual": ["videos", "segments", 4, 8],
    }
    assert score["inputs"] == {"codes": ["videos", "segments", "width"]}
    load_model(folder)  # other files of the folder do not matter


def test_an_unknown_format_is_refused_before_a_file_is_written(model_folder, tmp_path, capsys):
    to = tmp_path / "out"
    assert main(["export", str(model_folder), "--to", str(to), "--format", "tflite"]) == USER_ERROR

    error = capsys.readouterr().err
    assert "--format: no format 'tflite'; there are: onnx, torch-export" in error
    assert not to.exists()


class _Other:
    """Returns other codes at each call."""

    def __init__(self, model: BaseModel) -> None:
        self._encode, self._calls = model.encode, 0

    def __call__(self, *features: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        return self._encode(*features) + 1e-3 * self._calls


def test_functions_that_differ_from_the_model_are_refused(tmp_path, monkeypatch):
    model = feature_model(tmp_path / "model", "ave")
    monkeypatch.setattr(model.model, "encode", _Other(model.model))

    with pytest.raises(ArtifactError, match=r"`encode` of this model .* differs from the model by"):
        list(exported(model.model, model.task, "torch-export", *SHAPES.values()))


@pytest.mark.slow
@pytest.mark.parametrize("format", RUN)
@pytest.mark.parametrize("name", model_names())
def test_every_model_is_exported_within_the_tolerance(tmp_path, name, format):
    folder = written(tmp_path / "model", name, format)

    any_length = name not in UNROLLED[format]
    check_predictions(folder, format, [T, 1, 7] if any_length else [T])
    files = json.loads((folder / "formats.json").read_text())["files"]
    assert [file["any_number_of_segments"] for file in files] == [True, any_length, any_length]
    assert max(file["max_difference"] for file in files) <= TOLERANCE
