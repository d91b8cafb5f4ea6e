"""The benchmarks run, and what they time gives the same results."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.multiprocess
def test_the_sharing_benchmark_runs_and_finds_the_same_results():
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
    assert sum(line.startswith("Step 2") for line in lines) == 4  # and partners at hand or not


@pytest.mark.multiprocess
def test_the_sweep_benchmark_runs_and_finds_the_same_weights():
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
