"""The benchmarks run, and the variants that they compare give equal results."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks import threshold_curves

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.multiprocess
def test_the_sharing_benchmark_runs_with_equal_results():
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "sharing.py", "--quick", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert sum(line.startswith("Step 1") for line in lines) == 2  # T1 = 4 and 8
    assert (
        sum(line.startswith("Step 2") for line in lines) == 4
    )  # also with and without cached codes


@pytest.mark.multiprocess
def test_the_sweep_benchmark_runs_with_equal_weights():
    run = subprocess.run(
        [sys.executable, BENCHMARKS / "sweep.py", "--quick"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert run.returncode == 0, run.stderr
    ratio = next(line for line in run.stdout.splitlines() if line.startswith("ratio"))
    assert float(ratio.split()[1]) > 1.2


def test_curves_over_tau_include_the_chosen_tau_and_the_baselines(tmp_path):
    settings = {
        "data": {
            "dataset": "synthetic_easy",
            "synthetic": {"num_train": 28, "num_event_free": 2, "num_val": 28, "num_test": 8},
        },
        "model": {"hidden_size": 4},
        "train": {"base_epochs": 1, "retrain_epochs": 1, "cpus_per_worker": 1},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    options = ["--config", tmp_path / "small.yaml", "--run-dir", tmp_path / "run"]
    options += ["--out", tmp_path / "curves", "--seeds", 1, "--processes", 1]

    threshold_curves.main([*map(str, options), "--thresholds", "0.05", "0.5"])

    points = json.loads((tmp_path / "curves.json").read_text())["points"]
    by_arm: dict[str, list[float | None]] = {}
    for point in points:
        by_arm.setdefault(point["arm"], []).append(point["threshold"])
    assert list(by_arm) == ["GT-repeat", "AVE-repeat", "AVE", "AVE+LR", "AVE+A+LR"]
    assert by_arm["AVE+LR"][:2] == by_arm["AVE+A+LR"][:2] == [0.05, 0.5]
    assert by_arm["AVE"] == by_arm["AVE-repeat"] == [None]
    chosen = [point["threshold"] for point in points if point.get("chosen_by_default_rule")]
    assert chosen == [by_arm["AVE+LR"][2], by_arm["AVE+A+LR"][2]]
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test accuracy"]) for row in rows] == [
        pytest.approx(point["test"]["accuracy"]) for point in points
    ]
    assert "AVE+A+LR" in (tmp_path / "curves.svg").read_text()
