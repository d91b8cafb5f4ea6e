"""tau, chosen on the validation split, with the curve that it was chosen by."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distributed_avel.artifacts import Location, Stage
from distributed_avel.config import RunConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.refine.pseudo_labels import (
    Threshold,
    ThresholdCurve,
    removed_shares,
    threshold_curve,
    threshold_for_share,
    threshold_grid,
    window_truth,
)
from distributed_avel.runtime.refine import read_window_scores
from distributed_avel.runtime.train import kept_validation
from distributed_avel.schema import THRESHOLDS
from distributed_avel.search.screen import screened_thresholds
from distributed_avel.search.selection import Trial, choose, criterion
from distributed_avel.search.space import THRESHOLD
from distributed_avel.tasks import Task

THRESHOLDS_FILE = "thresholds.parquet"


def choose_threshold(
    task: Task,
    videos: VideoSet,
    training: Sequence[Video],
    validation: Sequence[Video],
    mask_WT: NDArray[np.bool_],
    out: Location,
) -> dict[str, Any]:
    """Choose tau so that the pseudo-labels of training windows have the right prevalence.

    The segment labels of the validation split say which share of the window labels is wrong; tau
    removes this share from the windows of the training videos. The window pseudo-labels of the
    validation split are compared with its segment labels over a grid of tau besides (Sec. 5.3).

    Args:
        out: Folder of Step 2; the curve is written into it.

    Returns:
        For the manifest: "threshold", and for each part of the columns the share of labels that
        was to be removed and the one that tau removes, as "removed_share"; or "threshold" None
        and the reason as "no_threshold". Step 2 itself does not need tau, so a split that cannot
        tell is no failure here.
    """
    with_event = [v for v in validation if v.labels]
    if not with_event:
        return {"threshold": None, "no_threshold": "no validation video with an event is usable"}
    scores_VWK = read_window_scores(out, [v.video_id for v in with_event])
    truth_VTK = task.truth(videos, with_event)
    truth_VWK = window_truth(truth_VTK, mask_WT, background=task.background)
    targets_VK = task.targets(videos, with_event)
    training_VWK = read_window_scores(out, [v.video_id for v in training])
    training_VK = task.targets(videos, training)
    size = targets_VK.shape[-1] // len(task.parts)
    curves, best, shares = {}, {}, {}
    for number, part in enumerate(task.parts):
        columns = slice(number * size, (number + 1) * size)
        try:
            curves[part] = threshold_curve(
                scores_VWK[..., columns],
                targets_VK[:, columns],
                truth_VWK[..., columns],
                threshold_grid(),
                background=task.background,
            )
        except DatasetError as error:
            return {"threshold": None, "no_threshold": f"{part}: {error}"}
        requested = curves[part].absent_share
        part_VWK, part_VK = training_VWK[..., columns], training_VK[:, columns]
        best[part] = threshold_for_share(
            part_VWK, part_VK, requested, threshold_grid(), background=task.background
        )
        tau_G = np.array([best[part]])
        removed_G = removed_shares(part_VWK, part_VK, tau_G, background=task.background)
        shares[part] = {"requested": requested, "achieved": float(removed_G[0])}
    (out / THRESHOLDS_FILE).write_table(_to_table(curves))
    threshold = best if len(best) > 1 else next(iter(best.values()))
    return {"threshold": threshold, "removed_share": shares}


def chosen_threshold(manifest: Mapping[str, Any]) -> Threshold:
    """The tau that `choose_threshold` chose.

    Raises:
        DatasetError: It could not choose; the message says why.
    """
    if manifest["threshold"] is None:
        raise DatasetError(f"{manifest['no_threshold']}; or set refine.threshold to a number")
    return manifest["threshold"]


def best_by_step_3(
    refined: Stage, config: RunConfig, task: Task, retrain: Callable[[float], Location]
) -> dict[str, Any]:
    """Choose tau as the paper does (Sec. 5.3): by the best Step 3 on the validation split.

    Args:
        refined: Step 2. The windows that it scored of validation videos say which values of tau
            are worth a Step 3.
        retrain: Trains Step 3 with a tau, or finds that it did, and returns its folder.

    Returns:
        For the manifest: "threshold", and as "candidates" each tau with its figures.

    Raises:
        DatasetError: The validation split cannot tell one tau from another.
    """
    chosen_threshold(refined.manifest())  # says why there is no curve, if there is none
    curves = list(read_threshold_curves(refined.location).values())
    refine, names = config.refine, task.criterion
    trials = []
    for tau in screened_thresholds(curves, refine.screen_keep, refine.num_candidates):
        metrics = kept_validation(retrain(tau), task, config.train.keep)
        trials.append(Trial(point={THRESHOLD: tau}, seed=config.seed, metrics=metrics))
    best = choose(trials, names, num_seeds=1)
    if not best:
        raise DatasetError(
            f"the mean of {' and '.join(names)} is undefined on the validation split for every "
            "tau; annotate validation videos with and without events, or set refine.threshold to "
            "a number"
        )
    return {
        "threshold": best[0].point[THRESHOLD],
        "criterion": list(names),
        "candidates": [
            {
                "threshold": trial.point[THRESHOLD],
                "criterion": criterion(trial.metrics or {}, names),
                "metrics": dict(trial.metrics or {}),
            }
            for trial in trials
        ],
    }


def threshold_metrics(threshold: Threshold) -> dict[str, float]:
    """tau under the names of metrics."""
    if isinstance(threshold, Mapping):
        return {f"threshold_{part}": value for part, value in threshold.items()}
    return {"threshold": threshold}


def share_metrics(shares: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the manifest's "removed_share" under the names of metrics."""
    return {
        f"removed_share_{kind}" + (f"_{part}" if len(shares) > 1 else ""): value
        for part, share in shares.items()
        for kind, value in share.items()
    }


def read_threshold_curves(out: Location) -> dict[str, ThresholdCurve]:
    """The curves that `choose_threshold` wrote, by the part of the columns, if it could."""
    location = out / THRESHOLDS_FILE
    if not location.exists():
        return {}
    whole = location.read_table()
    curves = {}
    for part in dict.fromkeys(whole["part"].to_pylist()):
        table = whole.filter(pc.field("part") == part)
        curves[part] = ThresholdCurve(
            thresholds_G=table["threshold"].to_numpy(),
            sensitivity_G=table["sensitivity"].to_numpy(),
            specificity_G=table["specificity"].to_numpy(),
            num_present=table["num_present"][0].as_py(),
            num_absent=table["num_absent"][0].as_py(),
        )
    return curves


def _to_table(curves: Mapping[str, ThresholdCurve]) -> pa.Table:
    tables = []
    for part, curve in curves.items():
        count = len(curve.thresholds_G)
        columns = {
            "part": [part] * count,
            "threshold": curve.thresholds_G,
            "sensitivity": curve.sensitivity_G,
            "specificity": curve.specificity_G,
            "num_present": np.full(count, curve.num_present),
            "num_absent": np.full(count, curve.num_absent),
        }
        tables.append(pa.table(columns, schema=THRESHOLDS))
    return pa.concat_tables(tables)
