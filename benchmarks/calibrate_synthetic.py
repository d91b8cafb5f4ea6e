"""Choose the instance deviation of `synthetic` by bisection on the validation split.

    python benchmarks/calibrate_synthetic.py --run-dir DIR --out FILE.json
    python benchmarks/calibrate_synthetic.py --run-dir DIR --out FILE.json --at 1.8 1.9 2.0

Trains the base model alone (Step 1 without the auxiliary loss, `--config synthetic`) with several
seeds for each deviation. Its mean segment accuracy on the validation split falls as the
deviation grows; the bisection ends when it is near the middle of 67 to 70 %, the accuracy of base
models on AVE (the paper's Tables 1 and 2: AVE 67.1 to PSP 70.0). No test video is read and no
refinement arm is trained. Trainings that DIR has already are reused.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, validate
from distributed_avel.config.loading import load_values
from distributed_avel.datasets import dataset_names
from distributed_avel.datasets.synthetic import CALIBRATED, Revision, register_revision
from distributed_avel.pipeline import Pipeline
from distributed_avel.provenance import provenance
from distributed_avel.search.space import with_values
from distributed_avel.stages.stage import Execution

CONFIG = "synthetic"
LOW, HIGH = 67.0, 70.0
"""Accuracy of base models on AVE, in percent."""

TOLERANCE = 0.5
"""The bisection ends this near to the middle of them."""


def main(argv: list[str]) -> int:
    """Bisect, or measure given deviations; print and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--between", type=float, nargs=2, default=(0.8, 3.0))
    parser.add_argument("--at", type=float, nargs="+", help="measure these, without bisection")
    args = parser.parse_args(argv)

    steps = []

    def measure(deviation: float) -> float:
        by_seed = [base_validation(deviation, seed, args.run_dir) for seed in range(args.seeds)]
        accuracy = fmean(metrics["accuracy"] or 0.0 for metrics in by_seed)
        steps.append({"deviation": deviation, "mean_accuracy": accuracy, "by_seed": by_seed})
        each = ", ".join(f"{metrics['accuracy']:.2f}" for metrics in by_seed)
        print(f"deviation {deviation:.4g}: validation accuracy {accuracy:.2f} ({each})", flush=True)
        return accuracy

    if args.at:
        for deviation in args.at:
            measure(deviation)
    else:
        low, high = args.between
        middle = (low + high) / 2
        while abs(measure(middle) - (LOW + HIGH) / 2) > TOLERANCE:
            if steps[-1]["mean_accuracy"] > (LOW + HIGH) / 2:
                low = middle
            else:
                high = middle
            middle = round((low + high) / 2, 4)
    found: dict[str, Any] = {
        "split": "validation",
        "aim": [LOW, HIGH],
        "loss": calibration_config(args.run_dir).train.loss,
        "steps": steps,
        "date": datetime.now(UTC).date().isoformat(),
        "provenance": provenance(),
    }
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def calibration_config(run_dir: Path, seed: int = 0, dataset: str = "synthetic") -> RunConfig:
    """The settings of the built-in configuration `synthetic`, for the base model alone."""
    point = {
        "run_dir": str(run_dir),
        "seed": seed,
        "data.dataset": dataset,
        "arms": ["base"],
    }
    return with_values(validate(load_values(CONFIG), str(CONFIG)), point, "calibration")


def base_validation(deviation: float, seed: int, run_dir: Path) -> dict[str, float | None]:
    """Metrics of the base model on the validation split, trained in this process."""
    dataset = "synthetic"
    if deviation != CALIBRATED.instance_deviation:
        dataset = f"synthetic_at_{deviation:g}"
        if dataset not in dataset_names():
            number = CALIBRATED.number
            register_revision(dataset, Revision(number=number, instance_deviation=deviation))
    config = calibration_config(run_dir, seed, dataset)
    pipeline = Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))
    return pipeline.base(auxiliary=False).ensure().validation_metrics()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
