"""Secrets in URIs are in no file and no output of a run."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray.small_runs import SMALL_RUN

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HUSH = "hush" + secrets.token_hex(6)

TINY = {**SMALL_RUN, "--train.base-epochs": 1}


@pytest.fixture
def short_folder():
    """A folder for Ray's files with a short path, because socket paths must be short."""
    folder = Path("/tmp") / f"avel-{secrets.token_hex(4)}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(tmp_path: Path, code_or_job: list[str], **environment: str):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, *code_or_job],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def files_with(word: str, *folders: Path) -> list[str]:
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and word.encode() in path.read_bytes()
    ]


def test_secrets_in_uris_appear_in_no_file_or_output(tmp_path, short_folder):
    """SQLite ignores unknown options, so the URI of a local store can contain a secret."""
    job = [
        str(ROOT / "jobs" / "pipeline.py"),
        *(str(part) for pair in TINY.items() for part in pair),
    ]
    database = f"sqlite:///file:{tmp_path}/mlflow.db?uri=true"
    uri = f"{database}&password={HUSH}"
    settings = tmp_path / "run.yaml"
    settings.write_text(f"tracking: {{uri: '{uri}'}}\n")

    first = run(tmp_path, [*job, "--config", str(settings)], RAY_TMPDIR=str(short_folder))
    settings.unlink()

    assert first.returncode == 0, first.stderr
    assert HUSH not in first.stdout + first.stderr
    assert f"MLflow: {database}&password=***" in first.stderr
    redacted = {Path(path).name for path in files_with("password=***", tmp_path)}
    assert {"config.json", "mlflow.db"} <= redacted  # the page does not show where runs are logged
    assert files_with(HUSH, tmp_path, short_folder) == []

    secret_place = f"s3://AKIAX:{HUSH}@bucket/run"
    refusals = [
        [*job, "--run-dir", secret_place],
        [
            *job,
            f"run_dir={secret_place}",
            "--extract.weights",
            "vgg19",
            f"https://host/a?sig={HUSH}",
        ],
        [
            *job,
            "--cluster.address",
            "127.0.0.1:1",
            "--tracking.uri",
            f"http://user:{HUSH}@127.0.0.1:1",
        ],
    ]
    for arguments in refusals:
        refused = run(tmp_path, arguments, MLFLOW_TRACKING_URI=uri)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: ")
        assert HUSH not in refused.stdout + refused.stderr
    bug = (
        "from distributed_avel.cli import run_job\n"
        "def job(config):\n"
        "    raise KeyError(config.tracking.uri.whole)\n"
        f"raise SystemExit(run_job(job, ['--tracking.uri', '{uri}'], ''))\n"
    )
    failed = run(tmp_path, ["-c", bug])
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    assert "password=***" in failed.stderr
    assert HUSH not in failed.stderr
    assert files_with(HUSH, tmp_path) == []
