"""Interrupted runs continue from the last checkpoint."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from distributed_avel.storage import Location
from tests.ray.small_runs import SMALL_RUN, checkpoints
from tests.ray.stores import store_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

JOB = Path(__file__).parents[2] / "jobs" / "pipeline.py"
NUM_EPOCHS = 500


@pytest.fixture(params=[1, 2], ids=["a task", "Ray Train"])
def num_workers(request) -> int:
    """Number of training workers: one is a Ray task, several are Ray Train workers."""
    return request.param


@pytest.fixture
def command(tmp_path, num_workers) -> list[str]:
    """A pipeline whose Step 1 takes long enough to be interrupted."""
    options = {
        "--run-dir": tmp_path / "run",
        "--tracking.uri": store_in(tmp_path),
        **SMALL_RUN,
        "--train.base-epochs": NUM_EPOCHS,
        "--train.report-every": 25,
        "--train.num-workers": num_workers,
    }
    return [sys.executable, str(JOB), *(str(part) for pair in options.items() for part in pair)]


def wait_for(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.mark.parametrize("num_workers", [1], indirect=True)
def test_a_killed_driver_resumes_from_the_last_checkpoint(command, tmp_path):
    run = tmp_path / "run"
    with (tmp_path / "first.log").open("w") as log:
        driver = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)
    try:
        wait_for(lambda: checkpoints(run), 240, "a checkpoint")
    finally:
        driver.kill()
        driver.wait()
    assert not list(run.glob("base/*/DONE"))
    features = next(run.glob("extract/*/index.parquet")).stat().st_mtime_ns

    second = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert second.returncode == 0, second.stderr
    assert "data " in second.stderr
    assert second.stderr.count("cache hit") == 2  # data and extract
    assert "interrupted before" in second.stderr
    assert next(run.glob("extract/*/index.parquet")).stat().st_mtime_ns == features
    curves = Location.at(next(run.glob("base/*/curves.parquet"))).read_table()
    losses = [row for row in curves.to_pylist() if row["metric"] == "train/mil"]
    assert [row["epoch"] for row in losses] == list(range(NUM_EPOCHS))  # each epoch once
    first_epoch = int(second.stderr.split("base: ")[2].split("/")[0])
    assert first_epoch > 25  # it did not start again
    assert np.isfinite([row["value"] for row in losses]).all()


@pytest.mark.parametrize(
    ("number", "num_workers"),
    [
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),  # test_jobs stops a job, too
        (signal.SIGINT, 2),  # Ray Train has its own SIGINT handler
    ],
    indirect=["num_workers"],
)
def test_a_terminated_job_ends_cleanly(command, tmp_path, number):
    driver = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's `&` ignores SIGINT
    )
    wait_for(lambda: checkpoints(tmp_path / "run"), 240, "a checkpoint")

    driver.send_signal(number)
    _, said = driver.communicate(timeout=120)

    assert driver.returncode == 130, said
    assert "the same command continues from here" in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(driver.pid, 0)


def test_a_killed_training_worker_repeats_epochs_since_the_last_checkpoint(
    command, tmp_path, num_workers
):
    run = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)
    wait_for(lambda: checkpoints(run), 240, "a checkpoint")

    victims = [
        process
        for process in psutil.Process(driver.pid).children(recursive=True)
        if process.cmdline()[0].startswith(("ray::_run_in_task", "ray::RayTrainWorker"))
    ]
    assert len(victims) == num_workers
    victims[0].kill()

    assert driver.wait(timeout=240) == 0, (tmp_path / "log").read_text()
    curves = Location.at(next(run.glob("base/*/curves.parquet"))).read_table()
    epochs = [row["epoch"] for row in curves.to_pylist() if row["metric"] == "train/mil"]
    assert epochs == list(range(NUM_EPOCHS))
