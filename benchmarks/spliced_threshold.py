"""Compare tau chosen without times (`spliced`) with tau chosen with them, over seeds.

    python benchmarks/spliced_threshold.py --config synthetic --run-dir DIR \
        --out benchmarks/results/synthetic_spliced_threshold.json --seeds 3 4 5

For the arms LR and A+LR, Step 3 is trained with the tau of `validation`, which needs the times of
validation videos, with that of `spliced`, with 0.05 (the paper's), and with soft labels; the base
model and LR_dummy (no label removed) are the references. The file has the metrics on the test
split, tau, and the share of the training labels that tau removes. `whole_segments` is the tau of a
rule that was tried and rejected, with copies of which both modalities are replaced; its Step 3 is
not trained. The rule `spliced` was developed on seeds 0 to 2. Everything runs in this process,
without Ray; what DIR has already is not computed again.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from distributed_avel.arms import ARMS, arm_label
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, load_values, validate
from distributed_avel.method.pseudo_labels import (
    most_separating,
    removed_shares,
    separation_curve,
    threshold_grid,
)
from distributed_avel.method.windows import score_synthetic
from distributed_avel.pipeline import Pipeline
from distributed_avel.provenance import provenance
from distributed_avel.search.space import with_values
from distributed_avel.stages.stage import Execution
from distributed_avel.train.predict import segment_codes

RULES: Mapping[str, Mapping[str, Any]] = {
    "validation": {"refine.threshold": "validation"},
    "spliced": {"refine.threshold": "spliced"},
    "0.05": {"refine.threshold": 0.05},
    "soft": {"refine.labels": "soft"},
}
SHOWN = ("accuracy", "non_ave_f1", "ave_f1")


def main(argv: list[str]) -> int:
    """Compute what is missing, write the file and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--arms", nargs="+", default=["LR", "A+LR"])
    args = parser.parse_args(argv)
    config = validate({**load_values(args.config), "run_dir": args.run_dir}, str(args.config))
    rows = [row for seed in args.seeds for row in of_seed(config, seed, args.arms)]
    videos = made(config, {}).videos
    found = {
        "dataset": videos.name,
        "synthetic": videos.synthetic,
        "g": config.train.loss,
        "seeds": args.seeds,
        "rows": rows,
        "date": datetime.now(UTC).date().isoformat(),
        "provenance": provenance(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(rows)))
    return 0


def made(config: RunConfig, values: Mapping[str, Any]) -> Pipeline:
    """Return a pipeline in this process, with its features."""
    config = with_values(config, dict(values), "spliced_threshold") if values else config
    pipeline = Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))
    pipeline.features.ensure()
    return pipeline


def of_seed(config: RunConfig, seed: int, arms: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metrics of each arm and rule with one seed."""
    rows = []
    for arm in ("base", "LR_dummy"):
        rows.append(measured(made(config, {"seed": seed, "arms": [arm]}), arm, "", None))
    for arm in arms:
        start = made(config, {"seed": seed, "arms": [arm]})
        rejected = whole_segments(start, auxiliary=ARMS[arm].auxiliary)
        rows.append({"arm": arm, "seed": seed, "rule": "whole_segments", **rejected})
        for rule, values in RULES.items():
            pipeline = made(config, {"seed": seed, "arms": [arm], **values})
            tau = pipeline.arm(arm).ensure().manifest.threshold
            rows.append(measured(pipeline, arm, rule, tau))
    return rows


def measured(pipeline: Pipeline, arm: str, rule: str, tau: float | None) -> dict[str, Any]:
    """Return the metrics of the only arm of a pipeline on the test split, in percent."""
    metrics = pipeline.evaluate().ensure().metrics()[arm_label(pipeline.config.model.name, arm)]
    plan = ARMS[arm]
    removed = None
    if tau is not None:
        training = pipeline.usable("train")
        prob_VWK = pipeline.refine(plan.auxiliary).scores(training)
        targets_VK = pipeline.task.targets(pipeline.videos, training)
        removed = float(removed_shares(prob_VWK, targets_VK, np.array([tau]))[0])
    row = {"arm": arm, "seed": pipeline.config.seed, "rule": rule, "tau": tau, "removed": removed}
    return {**row, "test": metrics}


@torch.no_grad()
def whole_segments(pipeline: Pipeline, *, auxiliary: bool) -> dict[str, float]:
    """Return tau, and its removed share, if copies have neither modality of their video."""
    refined = pipeline.refine(auxiliary).ensure()
    task, training = pipeline.task, pipeline.usable("train")
    targets_VK = task.targets(pipeline.videos, training)
    event_free, with_event = np.flatnonzero(targets_VK[:, -1]), np.flatnonzero(~targets_VK[:, -1])
    model = pipeline.base(auxiliary).trained()()
    features = pipeline.features.store.read([training[i].video_id for i in event_free])
    codes_VTD = segment_codes(model, *features, device=torch.device("cpu"))
    rng = np.random.default_rng(0)
    donors, partners = rng.integers(len(event_free), size=(2, len(with_event)))
    mask_WT = torch.from_numpy(refined.mask)
    prob_VWK = np.concatenate(
        [
            task.video_prob(
                model, score_synthetic(model, codes_VTD[donor], codes_VTD[partner], mask_WT)
            ).numpy()
            for donor, partner in zip(
                np.array_split(donors, 16), np.array_split(partners, 16), strict=True
            )
        ]
    )
    own_VWK = refined.scores([training[i] for i in with_event])
    curve = separation_curve(own_VWK, prob_VWK[None], targets_VK[with_event], threshold_grid())
    tau, _ = most_separating(curve)
    all_VWK = refined.scores(training)
    removed = float(removed_shares(all_VWK, targets_VK, np.array([tau]))[0])
    return {"tau": tau, "removed": removed}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format mean and standard deviation over the seeds as a Markdown table."""
    lines = ["| arm | tau | removed | " + " | ".join(SHOWN) + " |", "| --- | --- |" + " ---: |" * 4]
    for arm, rule in dict.fromkeys((row["arm"], row["rule"]) for row in rows):
        of_rule = [row for row in rows if (row["arm"], row["rule"]) == (arm, rule)]
        removed = [100 * row["removed"] for row in of_rule if row["removed"] is not None]
        cells = [spread([row["test"][m] or 0.0 for row in of_rule if "test" in row]) for m in SHOWN]
        lines.append(f"| {arm} | {rule} | {spread(removed)} | {' | '.join(cells)} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Format mean and sample standard deviation; empty without values."""
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
