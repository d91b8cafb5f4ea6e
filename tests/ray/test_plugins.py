"""Plug-in models, extractors and data sets work in every process of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.media.clips import clip

ROOT = Path(__file__).parents[2]

OWN_MODEL = """
from avel_example.linear import Linear
from distributed_avel.models import register_model

@register_model("own")
class Own(Linear):
    class Config(Linear.Config):
        scale: float = 1.0

    def __init__(self, *, scale, **rest):
        super().__init__(**rest)
        self.scale = scale

    def score(self, codes_BTD):
        return self.scale * super().score(codes_BTD)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the example package, installed by pip."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    source = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(ROOT / "examples" / "plugin"), str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)],
        check=True,
    )
    return folder


def avel(installed: Path, folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run `avel` in a folder, with the example package installed."""
    path = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-P", "-m", "distributed_avel", *map(str, options)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_an_installed_plug_in_and_a_local_module_work_in_a_whole_run(installed, tmp_path):
    for split in ("train", "val", "test"):
        for number, name in enumerate(("bright", "dark", "nothing")):
            file = tmp_path / "videos" / split / name / "1.mp4"
            file.parent.mkdir(parents=True)
            file.write_bytes(clip(seconds=10 + number))
    (tmp_path / "own.py").write_text(OWN_MODEL)

    run = avel(
        installed,
        tmp_path,
        "run",
        *("--data.dataset", "subfolders", "--data.root", tmp_path / "videos"),
        *("--extract.extractor", "colour", "--plugins", "own", "--model.name", "own"),
        *("--model.options.scale", 3, "--model.options.dropout=0.5"),
        *("--extract.options.contrast", "true"),
        *("--train.base-epochs", 1, "--arms", "base", "--tracking.no-enabled"),
    )

    assert run.returncode == 0, run.stderr
    (manifest,) = (tmp_path / "runs" / "subfolders" / "base").glob("*/manifest.json")
    settings = json.loads(manifest.read_text())["depends"]["settings"]
    assert settings["model"]["options"] == {"dropout": 0.5, "scale": 3.0}
    (manifest,) = (tmp_path / "runs" / "subfolders" / "extract").glob("*/manifest.json")
    extracted = json.loads(manifest.read_text())
    assert extracted["depends"]["settings"]["options"] == {"contrast": True}
    assert extracted["visual_shape"] == [10, 1, 6]
    results = json.loads((tmp_path / "runs" / "subfolders" / "results.json").read_text())
    assert results["num_test_videos"] == 3
    assert "OWN" in results["arms"]


def test_an_unknown_option_of_a_plug_in_model_is_refused(installed, tmp_path):
    run = avel(installed, tmp_path, "run", "--model.name", "linear", "--model.options.dropuot", 0.1)

    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        "error: model.options.dropuot: base model linear has no such option; perhaps dropout; "
        "there are: dropout"
    ]
    assert list(tmp_path.iterdir()) == []


def test_names_of_installed_plug_ins_are_registered(installed, tmp_path):
    (tmp_path / "list_names.py").write_text("""
from distributed_avel import datasets, models
from distributed_avel.features.base import extractor_class, extractor_names
print(models.model_class("linear").__module__, extractor_class("colour").__module__)
print("linear" in models.model_names(), "psp" in models.model_names())
print("colour" in extractor_names(), "subfolders" in datasets.dataset_names())
print(datasets.needs_root("subfolders"), datasets.feature_source("subfolders"))
""")
    run = subprocess.run(
        [sys.executable, str(tmp_path / "list_names.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == [
        "avel_example.linear avel_example.colour",
        "True True",
        "True True",
        "True None",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(installed, tmp_path, content, says):
    (tmp_path / "broken.py").write_text(content)

    run = avel(installed, tmp_path, "run", "--plugins", "broken")

    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: plugins: broken: cannot be imported (")
    assert says in line
