"""Exported model folders: the arm that was asked for, its metrics, and refusals with a remedy."""

import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
from media.clips import clip

from distributed_avel import load_model
from distributed_avel.cli import USER_ERROR
from distributed_avel.commands import main
from distributed_avel.predict.run_models import RUN_MODELS
from tests.predict.folders import random_features, write_folder
from tests.predict.runs import small_run


def exported(*words) -> int:
    return main(["export", *map(str, words)])


def refusal(capsys, *words) -> str:
    capsys.readouterr()  # of a run in the test
    assert exported(*words) == USER_ERROR
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(("arm", "stage"), [("base", "base"), ("LR", "retrain")])
def test_the_model_of_each_arm_can_be_exported(run_dir, tmp_path, arm, stage):
    assert exported(run_dir, "--to", tmp_path / "m", "--arm", arm) == 0

    (weights,) = run_dir.glob(f"{stage}/*/model.safetensors")
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == weights.read_bytes()
    settings = load_model(tmp_path / "m").settings
    assert settings.arm == {"base": "AVE", "LR": "AVE+LR"}[arm]
    assert settings.tau == {"base": None, "LR": 0.3}[arm]
    results = json.loads((run_dir / "results.json").read_text())["arms"]
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text())
    assert metrics == results[settings.arm]


def test_the_default_is_the_model_folder_of_the_run(run_dir, tmp_path):
    assert exported(run_dir, "--to", tmp_path / "m") == 0

    for name in ("config.json", "model.safetensors", "metrics.json", "README.md", "example.py"):
        assert (tmp_path / "m" / name).read_bytes() == (run_dir / "model" / name).read_bytes()


def test_a_model_folder_is_exported_again_and_replaced(model_folder, tmp_path):
    for _ in range(2):
        assert exported(model_folder, "--to", tmp_path) == 0

    assert (tmp_path / "config.json").read_bytes() == (model_folder / "config.json").read_bytes()


def test_files_in_other_formats_of_a_replaced_model_are_removed(model_folder, tmp_path):
    folder = tmp_path / "m"
    assert exported(model_folder, "--to", folder) == 0
    for name in ("encode.onnx", "probabilities.pt2", "formats.json"):
        (folder / name).write_bytes(b"of another model")

    assert exported(model_folder, "--to", folder) == 0

    names = {file.name for file in model_folder.iterdir()}
    assert {file.name for file in folder.iterdir()} == names
    (folder / "encode.onnx").write_bytes(b"of another model")
    load_model(model_folder).save_pretrained(folder)
    assert {file.name for file in folder.iterdir()} == names
    (folder / "encode.onnx").write_bytes(b"of this model")
    load_model(folder).save_pretrained(folder)
    assert (folder / "encode.onnx").read_bytes() == b"of this model"


def test_the_settings_contain_what_the_model_depends_on(run_dir):
    settings = load_model(run_dir / "model").settings

    assert (settings.task, settings.seed, settings.decision_threshold) == ("localization", 0, None)
    assert settings.num_videos == {"train": 28, "val": 12, "test": 12}
    assert {"torch", "numpy"} <= settings.packages.keys()


def test_the_card_names_data_metrics_of_all_arms_and_limits(run_dir):
    card = (run_dir / "model" / "README.md").read_text()

    assert card.startswith("---\nlibrary_name: distributed_avel\ntags:\n")
    assert "`synthetic`: 28 train, 12 val, 12 test videos." in card
    assert "**synthetic**" in card
    assert "| metric | GT-repeat | AVE | AVE-repeat | AVE+LR |" in card
    assert "tau: 0.3" in card
    assert "## Limits" in card


def test_the_card_has_the_spread_over_runs_with_other_seeds(run_dir, tmp_path):
    others = [small_run(tmp_path / f"seed{seed}", seed=seed) for seed in (1, 2)]

    assert exported(run_dir, "--to", tmp_path / "m", "--seeds", *others) == 0

    files = [run / "model" / "metrics.json" for run in (run_dir, *others)]
    values = [json.loads(file.read_text())["accuracy"] for file in files]
    card = (tmp_path / "m" / "README.md").read_text()
    assert f"| accuracy | {np.mean(values):.1f} ± {np.std(values, ddof=1):.1f} | 3 |" in card


def test_runs_that_differ_in_more_than_the_seed_are_refused(run_dir, tmp_path, capsys):
    other = small_run(tmp_path / "other", seed=1, train={"base_epochs": 1, "retrain_epochs": 1})

    message = refusal(capsys, run_dir, "--to", tmp_path / "m", "--seeds", other)
    assert f"--seeds: {other} differs in more than the seed: train;" in message
    message = refusal(capsys, run_dir, "--to", tmp_path / "m", "--seeds", run_dir)
    assert "has the same seed, 0" in message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a run and a folder: avel export RUN --to DIR"),
        (["RUN"], "name a run and a folder"),
        (["RUN", "--too", "x"], "no option --too"),
        (["/nowhere", "--to", "OUT"], "/nowhere: no models.json; name the directory of a finished"),
        (["RUN", "--to", "OUT", "--arm", "PL"], "has no model of 'PL'; it has: base, LR"),
        (["RUN/model", "--to", "OUT", "--arm", "LR"], "name the run directory to choose an arm"),
        (["RUN", "--to", "RUN"], "has other files, such as base; name a new folder"),
    ],
)
def test_an_invalid_option_is_refused_in_one_line(run_dir, tmp_path, capsys, words, says):
    places = {"RUN": run_dir, "RUN/model": run_dir / "model", "OUT": tmp_path / "out"}

    assert says in refusal(capsys, *(places.get(word, word) for word in words))
    assert not (tmp_path / "out").exists()


def test_damaged_weights_and_lists_are_refused(tmp_path, capsys):
    run = small_run(tmp_path / "run", arms=["base"])
    (weights,) = run.glob("base/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "damaged: its sha256 is another" in refusal(capsys, run, "--to", tmp_path / "m")
    models = json.loads((run / RUN_MODELS).read_text())
    models["arms"]["base"]["weights"] = "../../x"
    (run / RUN_MODELS).write_text(json.dumps(models))
    assert "is outside" in refusal(capsys, run, "--to", tmp_path / "m")
    (run / RUN_MODELS).write_text("{")
    assert "models.json: damaged: not JSON" in refusal(capsys, run, "--to", tmp_path / "m")


@pytest.mark.slow
def test_the_example_predicts_a_file(model_folder, tmp_path):
    (tmp_path / "v.mp4").write_bytes(clip(3.0))

    run = subprocess.run(
        [sys.executable, model_folder / "example.py", tmp_path / "v.mp4"],
        capture_output=True,
        text=True,
        check=True,
    )

    lines = run.stdout.splitlines()
    events = load_model(model_folder).predict(tmp_path / "v.mp4").events
    assert [line.split()[0] for line in lines if "%" in line] == [
        f"{event.start_s:.1f}" for event in events
    ]


def test_the_example_of_a_model_without_extractor_predicts_features(tmp_path, monkeypatch, capsys):
    shapes = {"audio_shape": (10, 12), "visual_shape": (10, 4, 8)}
    folder = write_folder(tmp_path / "model", has_extractor=False, **shapes)
    audio_MD, visual_MRD = random_features(7)
    np.savez(tmp_path / "f.npz", audio=audio_MD, visual=visual_MRD)

    monkeypatch.setattr(sys, "argv", ["example.py", str(tmp_path / "f.npz")])
    runpy.run_path(str(folder / "example.py"), run_name="__main__")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[3].split()[0] == "3"
