"""Train the arms LR and A+LR with many values of tau, and plot accuracy and non-AVE F1 over tau.

    python benchmarks/threshold_curves.py --config synthetic --run-dir DIR \
        --out benchmarks/results/threshold_curves --seeds 3

A single tau shows an arm at one trade-off between accuracy and non-AVE F1; the curve shows all of
them, beside the base model and its video-level prediction repeated. Steps 1 and 2 are computed once
for each seed and arm, and Step 3 once for each tau; what DIR has already, from this command or from
jobs/reproduce.py with the same settings, is not computed again. Everything runs in --processes
processes, without Ray.

Writes NAME.json (all figures by arm, seed and tau, on validation and test, and the tau that the
default rule chooses), NAME.csv and NAME.svg (test split; mean and standard deviation over seeds).
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from distributed_avel.arms import ARMS, arm_label
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, load_values, validate
from distributed_avel.method.pseudo_labels import threshold_rule
from distributed_avel.pipeline import Pipeline
from distributed_avel.provenance import provenance
from distributed_avel.search.space import with_values
from distributed_avel.stages.stage import Execution

THRESHOLDS: Mapping[str, Sequence[float]] = {
    "LR": (0.02, 0.05, 0.5),
    "A+LR": (0.95, 0.99, 0.9995),
}
"""By arm: with the auxiliary loss, window probabilities are nearer to 1."""

SHOWN = {"accuracy": "accuracy, percent", "non_ave_f1": "non-AVE F1, percent"}


def main(argv: list[str]) -> int:
    """Compute what is missing, then write the figures and the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--out", type=Path, required=True, help="path without the ending")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--thresholds", type=float, nargs="+", help="for both arms")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(argv)

    values = {**load_values(args.config), "run_dir": args.run_dir}
    config = validate(values, str(args.config))
    thresholds = dict.fromkeys(THRESHOLDS, args.thresholds) if args.thresholds else THRESHOLDS
    found = measure(config, range(args.seeds), thresholds, args.processes)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_csv(found["points"], args.out.with_suffix(".csv"))
    plot(found, args.out.with_suffix(".svg"))
    return 0


def measure(
    config: RunConfig,
    seeds: Sequence[int],
    thresholds: Mapping[str, Sequence[float]],
    num_processes: int,
) -> dict[str, Any]:
    """Metrics of the references and of every (arm, seed, tau), on validation and test."""
    videos = made(config).videos  # data and features first: all processes share them
    by_arm: Mapping[str, Sequence[float]] = {"base": (), **thresholds}
    work = [(config, arm, seed, taus) for seed in seeds for arm, taus in by_arm.items()]
    if num_processes == 1:
        points = [point for arguments in work for point in arm_points(*arguments)]
    else:
        with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
            found = pool.map(arm_points, *zip(*work, strict=True))
            points = [point for of_arm in found for point in of_arm]
    return {
        "dataset": videos.name,
        "synthetic": videos.synthetic,
        "g": config.train.loss,
        "default_rule": threshold_rule("validation"),
        "seeds": list(seeds),
        "points": points,
        "settings": config.model_dump(mode="json", include={"data", "model", "train", "refine"}),
        "date": datetime.now(UTC).date().isoformat(),
        "provenance": provenance(),
    }


def made(config: RunConfig) -> Pipeline:
    """A pipeline in this process, with its features."""
    pipeline = Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))
    pipeline.features.ensure()
    return pipeline


def arm_points(
    config: RunConfig, arm: str, seed: int, thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Metrics of an arm with a seed at every tau, or of the references."""
    start = made(with_values(config, {"seed": seed, "arms": [arm]}, "curves"))
    plan = ARMS[arm]
    if not plan.scored:
        label = arm_label(config.model.name, "base")
        return [point(start, name, None) for name in ("GT-repeat", f"{label}-repeat", label)]
    chosen = start.refine(plan.auxiliary, plan.scored).ensure().manifest.value()
    assert isinstance(chosen, float), "one tau; parsing has one for each modality"
    found = []
    for threshold in [*thresholds, chosen]:
        fixed = made(with_values(start.config, {"refine.threshold": threshold}, "curves"))
        measured = point(fixed, arm_label(config.model.name, arm), threshold)
        found.append({**measured, "chosen_by_default_rule": threshold == chosen})
    return found


def point(pipeline: Pipeline, name: str, threshold: float | None) -> dict[str, Any]:
    """Metrics of the only arm of a pipeline, or of a naive strategy, on test and validation.

    Validation figures are those of the training, which knows no naive strategies.
    """
    config = pipeline.config
    trained = pipeline.arm(config.arms[0]).ensure()
    is_arm = name == arm_label(config.model.name, config.arms[0])
    return {
        "arm": name,
        "seed": config.seed,
        "threshold": threshold,
        "test": pipeline.evaluate().ensure().metrics()[name],
        "validation": trained.validation_metrics() if is_arm else None,
    }


def write_csv(points: Sequence[dict[str, Any]], path: Path) -> None:
    """A line for each arm, seed and tau."""
    metrics = list(points[0]["test"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["arm", "seed", "tau", "tau is the default rule's"]
            + [f"{split} {metric}" for split in ("test", "validation") for metric in metrics]
        )
        for row in points:
            splits = [row["test"], row["validation"] or {}]
            writer.writerow(
                [row["arm"], row["seed"], row["threshold"], row.get("chosen_by_default_rule", "")]
                + [values.get(metric) for values in splits for metric in metrics]
            )


def plot(found: dict[str, Any], path: Path) -> None:
    """Accuracy and non-AVE F1 of the test split over tau, a panel each."""
    points = found["points"]
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(11, 4.2), layout="constrained")
    arms = list(dict.fromkeys(row["arm"] for row in points))
    for panel, (metric, name) in zip(panels, SHOWN.items(), strict=True):
        for number, arm in enumerate(arms):
            rows = [row for row in points if row["arm"] == arm]
            color = f"C{number}"
            if rows[0]["threshold"] is None:
                mean = fmean(row["test"][metric] or 0.0 for row in rows)
                panel.axhline(mean, color=color, linestyle="--", label=arm)
                continue
            curve = [row for row in rows if not row["chosen_by_default_rule"]]
            taus = sorted({row["threshold"] for row in curve})
            values = [
                [row["test"][metric] or 0.0 for row in curve if row["threshold"] == tau]
                for tau in taus
            ]
            spread = [stdev(value) if len(value) > 1 else 0.0 for value in values]
            means = list(map(fmean, values))
            panel.errorbar(taus, means, spread, color=color, marker="o", capsize=3, label=arm)
            chosen = [row for row in rows if row["chosen_by_default_rule"]]
            panel.plot(
                [row["threshold"] for row in chosen],
                [row["test"][metric] or 0.0 for row in chosen],
                linestyle="none",
                marker="x",
                color=color,
                label=f"{arm}, tau of the default rule, each seed",
            )
        panel.set_xscale("logit")
        panel.set_xlabel("tau, logit scale")
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    data = f"{found['dataset']} (synthetic data)" if found["synthetic"] else found["dataset"]
    figure.suptitle(f"{data}, test split, g {found['g']}, {len(found['seeds'])} seeds, mean ± sd")
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
