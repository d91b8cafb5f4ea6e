"""How much a sweep saves by computing once what its trials share.

    python benchmarks/sweep.py            4 pairs of window and stride x 5 tau, the paper's epochs
    python benchmarks/sweep.py --quick    2 x 2, few epochs, seconds; its ratio means little

Naive: every trial computes Steps 1, 2 and 3 for itself. Shared: trials find what another one has
computed, as those of `jobs/tune.py` do. Both run trial by trial in this process, in turn, on the
same generated features (synthetic), and are timed in seconds of the processor, so that the ratio
holds on a machine that others use too. It fails if a trial's weights differ.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, validate
from distributed_avel.pipeline import Pipeline
from distributed_avel.search.space import describe, with_values
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import WEIGHTS

AIM = 3.0
PAIRS = [(5, 5), (4, 3), (4, 2), (3, 1)]  # (N, s): T1 = 2, 3, 4 and 8
THRESHOLDS = [0.2, 0.5, 0.8, 0.95, 0.99]


@dataclass(frozen=True)
class Size:
    """What is swept over, and how long is trained."""

    pairs: list[tuple[int, int]]
    thresholds: list[float]
    base_epochs: int
    retrain_epochs: int
    num_train: int


PAPER = Size(PAIRS, THRESHOLDS, base_epochs=200, retrain_epochs=100, num_train=112)
QUICK = Size(PAIRS[:2], THRESHOLDS[:2], base_epochs=4, retrain_epochs=2, num_train=56)


def main(argv: list[str]) -> int:
    """Time both sweeps and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, for a test")
    size = QUICK if parser.parse_args(argv).quick else PAPER
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        naive_s, shared_s, same = sweep_twice(size, Path(directory))
    num_pairs, num_trials = len(size.pairs), len(size.pairs) * len(size.thresholds)
    print(
        f"{num_pairs} pairs x {len(size.thresholds)} tau, Step 1 {size.base_epochs} and Step 3 "
        f"{size.retrain_epochs} epochs, {size.num_train} training videos (synthetic)\n"
        f"naive   {num_trials} x (Step 1 + Step 2 + Step 3)            {naive_s:8.1f} CPU s\n"
        f"shared  {num_pairs} x (Step 1 + Step 2) + {num_trials} x Step 3        "
        f"{shared_s:8.1f} CPU s\n"
        f"ratio   {naive_s / shared_s:.2f} (aim {AIM:g} at the paper's epochs)"
    )
    if not same:
        print("the weights of a trial differ between the two", file=sys.stderr)
    return 0 if same else 1


def sweep_twice(size: Size, root: Path) -> tuple[float, float, bool]:
    """Seconds of the naive and of the shared sweep, and whether all weights are the same."""
    naive_s = shared_s = 0.0
    same = True
    for pair in size.pairs:
        for threshold in size.thresholds:
            own, shared = root / f"{pair}-{threshold}", root / "shared"
            naive_weights, seconds = run_trial(size, pair, threshold, own)
            naive_s += seconds
            shared_weights, seconds = run_trial(size, pair, threshold, shared)
            shared_s += seconds
            same = same and naive_weights == shared_weights
    return naive_s, shared_s, same


def run_trial(
    size: Size, pair: tuple[int, int], threshold: float, run_dir: Path
) -> tuple[bytes, float]:
    """Weights of Step 3 at a point, and the seconds that Steps 1 to 3 took."""
    point = {"refine.window": pair[0], "refine.stride": pair[1], "refine.threshold": threshold}
    config = with_values(settings(size, run_dir), point)
    pipeline = Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))
    pipeline.usable("train")  # data and features are no part of it
    started_s = time.process_time()
    stage = pipeline.retrain(auxiliary=True).ensure()
    seconds = time.process_time() - started_s
    print(f"{describe(point)}: {seconds:.2f} CPU s", file=sys.stderr)
    return (stage.location / WEIGHTS).read_bytes(), seconds


def settings(size: Size, run_dir: Path) -> RunConfig:
    """The run that all trials start from."""
    values = {
        "run_dir": str(run_dir),
        "data": {
            "dataset": "synthetic_easy",
            "synthetic": {
                "num_train": size.num_train,
                "num_event_free": 8,
                "num_val": 28,
                "num_test": 28,
            },
        },
        "train": {
            "base_epochs": size.base_epochs,
            "retrain_epochs": size.retrain_epochs,
            "report_every": 50,
            "cpus_per_worker": 1,
        },
    }
    return validate(values, "benchmark")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
