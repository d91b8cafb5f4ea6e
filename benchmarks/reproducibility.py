"""Compare weights and window probabilities of runs that differ in how the work is distributed.

    python benchmarks/reproducibility.py [--model ave] [--out benchmarks/results/NAME.json]

Runs arm A+LR on the demo (synthetic videos) once for reference, once more with the same settings,
and once for each way to distribute the work: threads, training workers, actors, sizes of units.
For each it prints the largest absolute difference of the weights after Step 1, of the window
probabilities of Step 2 and of the weights after Step 3; 0 means equal, bit for bit.
"""

import argparse
import json
import platform
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from safetensors.numpy import load_file

from distributed_avel.cluster.session import ray_session
from distributed_avel.config import ClusterConfig, validate
from distributed_avel.run import run_pipeline

NUM_CPUS = 4
"""Logical CPUs of Ray, as on a machine with two cores."""

VARIANTS: dict[str, dict[str, dict[str, int]]] = {
    "the same command again": {},
    "refine.num_actors 2": {"refine": {"num_actors": 2}},
    "refine.unit_size 5": {"refine": {"unit_size": 5}},
    "train.cpus_per_worker 2": {"train": {"cpus_per_worker": 2}},
    "train.num_workers 2": {"train": {"num_workers": 2}},
    "train.num_workers 2, again": {"train": {"num_workers": 2}},
}


def main() -> None:
    """Print the differences of each variant from the reference, and write them."""
    parser = argparse.ArgumentParser(description="Compare runs that distribute work differently.")
    parser.add_argument("--model", default="ave")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    differences = {}
    with tempfile.TemporaryDirectory() as folder, ray_session(ClusterConfig(num_cpus=NUM_CPUS)):
        reference = outcome(Path(folder) / "reference", args.model, {})
        for number, (name, changes) in enumerate(VARIANTS.items()):
            changed = outcome(Path(folder) / str(number), args.model, changes)
            differences[name] = {
                what: float(np.abs(changed[what] - reference[what]).max()) for what in reference
            }
            print(f"{name}: {differences[name]}")
    if args.out:
        facts = {
            "model": args.model,
            "largest_absolute_difference": differences,
            "torch": torch.__version__,
            "ray": ray.__version__,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads by default",
            "date": date.today().isoformat(),
        }
        args.out.write_text(json.dumps(facts, indent=2) + "\n")


def outcome(
    run_dir: Path, model: str, changes: dict[str, dict[str, int]]
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Run the pipeline, and return the numbers that Steps 1 to 3 stored, as flat arrays."""
    sections = {"train": {"cpus_per_worker": 1}, "refine": {"threshold": 0.5, "num_actors": 1}}
    for section, settings in changes.items():
        sections[section] |= settings
    values = {
        "run_dir": str(run_dir),
        "arms": ["A+LR"],
        "model": {"name": model},
        "data": {"demo": {"num_train": 60, "num_event_free": 10, "num_val": 10, "num_test": 10}},
        "tracking": {"enabled": False},
        **sections,
    }
    run_pipeline(validate(values, "benchmark"))
    return {
        "weights after Step 1": weights(run_dir / "base"),
        "window probabilities": probabilities(run_dir / "refine"),
        "weights after Step 3": weights(run_dir / "retrain"),
    }


def weights(stage: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All weights of the only model of a stage."""
    (file,) = stage.glob("*/model.safetensors")
    tensors = load_file(file)
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)]).astype(np.float64)


def probabilities(stage: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities of all windows, in the order of the videos."""
    (folder,) = stage.iterdir()
    table = pq.read_table(folder / "scores").sort_by("video_id")
    return table["scores"].combine_chunks().to_numpy_ndarray().astype(np.float64).ravel()


if __name__ == "__main__":
    main()
