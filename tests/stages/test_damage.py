"""The same command gives the same results if any file of a finished stage is damaged.

The damaged file is named, and only its stage is computed again.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distributed_avel.cluster.tracking import untracked
from distributed_avel.cluster.training_workers import SingleWorker
from distributed_avel.config import RunConfig, validate
from distributed_avel.errors import ArtifactError
from distributed_avel.pipeline import STAGES, Pipeline
from distributed_avel.publish import publish
from distributed_avel.stages.stage import Execution

pytestmark = pytest.mark.timeout(900)


THRESHOLDS = {"calibrate": "spliced"}
"""Rule for tau of the runs that have a stage; "screened" has all the others."""


def settings(root: Path, stage: str = "") -> RunConfig:
    sizes = {"num_train": 24, "num_event_free": 4, "num_val": 12, "num_test": 8}
    return validate(
        {
            "run_dir": str(root),
            "arms": ["A+LR"],
            "data": {"dataset": "synthetic", "synthetic": sizes},
            "model": {"hidden_size": 8 if stage in THRESHOLDS else 2},
            "train": {
                "base_epochs": 20 if stage in THRESHOLDS else 2,
                "retrain_epochs": 2,
                "cpus_per_worker": 1,
            },
            "refine": {
                "threshold": THRESHOLDS.get(stage, "screened"),
                "num_candidates": 2,
                "unit_size": 20,
            },
            "report": {"num_timelines": 1},
        },
        "test",
    )


def run(root: Path, may_run: tuple[str, ...] = STAGES, stage: str = "") -> None:
    """Run all stages in this process, with a rule for tau that needs `stage`."""
    config = settings(root, stage)
    publish(Pipeline(config, untracked(), may_run, execution=Execution(in_process=True)))


def contents(root: Path) -> dict[str, bytes]:
    """Return every file of a run; of manifests, only what does not depend on the time."""
    found = {}
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if file.name == "manifest.json":
            manifest = json.loads(content)
            for name in ("seconds", "provenance", "sha256"):
                del manifest[name]
            content = json.dumps(manifest).encode()
        found[str(file.relative_to(root))] = content
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp("damage") / "run"
    run(root)
    return root


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(byte ^ 1 for byte in content[middle : middle + 1])
        + content[middle + 1 :]
    )


FAULTS: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda content: None,
    "truncated": lambda content: content[: len(content) // 2],
    "one bit flipped": flip,
    "emptied": lambda content: b"",
    "a byte more": lambda content: content + b"0",
    "garbage": lambda content: np.random.default_rng(0).bytes(len(content)),
}


def damage(file: Path, fault: str) -> bool:
    """Damage a file; return True if its content has changed."""
    before = file.read_bytes()
    after = FAULTS[fault](before)
    if after is None:
        file.unlink()
    else:
        file.write_bytes(after)
    return after != before


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_file_is_named_and_its_stage_is_recomputed(
    finished, tmp_path, capsys, stage, fault
):
    """Damages every file of the stage, one at a time."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    if stage in THRESHOLDS:
        run(root, stage=stage)
        capsys.readouterr()
    run(root, stage=stage)
    reused = capsys.readouterr().err.splitlines()
    used = {line.removesuffix(": cache hit").replace(" ", "/") for line in reused}
    before = contents(root)
    files = [path for path in before if "/".join(path.split("/")[:2]) in used]
    files = [path for path in files if path.startswith(f"{stage}/")]
    assert len(files) >= 3
    for file in files:
        capsys.readouterr()
        if not damage(root / file, fault):
            continue

        run(root, stage=stage)

        said = capsys.readouterr().err
        folder, _, name = file.removeprefix(f"{stage}/").partition("/")
        named = [line for line in said.splitlines() if name in line and folder in line]
        assert named, f"{file}, {fault}: {said}"
        assert contents(root) == before, f"{file}, {fault}"


def test_a_job_of_one_stage_names_the_damaged_file_of_another_stage(finished, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    weights = next(root.glob("base/*/model.safetensors"))
    damage(weights, "one bit flipped")

    with pytest.raises(ArtifactError) as caught:
        run(root, may_run=("retrain",))

    assert "model.safetensors is damaged" in str(caught.value)
    assert "avel train-base" in str(caught.value)
    assert weights.exists()


def test_a_result_without_its_marker_is_kept(finished, tmp_path, capsys):
    """As after a kill between writing the manifest and the marker."""
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    (marker,) = root.glob("base/*/DONE")
    weights = marker.with_name("model.safetensors")
    marker.unlink()
    written = weights.stat().st_mtime_ns

    run(root)

    assert marker.exists()
    assert weights.stat().st_mtime_ns == written
    assert "DONE is missing; all other files are intact" in capsys.readouterr().err


def test_an_interrupted_training_with_a_damaged_checkpoint_starts_again(
    finished, tmp_path, capsys, monkeypatch
):
    root = tmp_path / "run"
    shutil.copytree(finished, root)
    before = contents(root)["base/" + next(root.glob("base/*")).name + "/model.safetensors"]
    (folder,) = root.glob("base/*")
    shutil.rmtree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(
            SingleWorker, "remove_checkpoint", interrupt
        )  # after the last epoch, before the end
        with pytest.raises(KeyboardInterrupt):
            run(root)
    damage(folder / "state.pt", "one bit flipped")
    (folder / "model.safetensors").write_bytes(b"half of it")

    run(root)

    assert (folder / "model.safetensors").read_bytes() == before
    assert "state.pt: the checkpoint is damaged; training starts again" in capsys.readouterr().err
    assert not (folder / "state.pt").exists()


def interrupt(worker: SingleWorker) -> None:
    raise KeyboardInterrupt
