"""tau, chosen on the validation split, with the curve that it was chosen by."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distributed_avel.artifacts import Location
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.refine.pseudo_labels import (
    ThresholdCurve,
    threshold_curve,
    threshold_grid,
    window_truth,
)
from distributed_avel.runtime.refine import read_window_scores
from distributed_avel.schema import THRESHOLDS
from distributed_avel.tasks import Task

THRESHOLDS_FILE = "thresholds.parquet"


def choose_threshold(
    task: Task,
    videos: VideoSet,
    validation: Sequence[Video],
    mask_WT: NDArray[np.bool_],
    out: Location,
) -> dict[str, Any]:
    """Compare window pseudo-labels with segment labels over a grid of tau (Sec. 5.3).

    Parsing has one tau for both modalities.

    Args:
        out: Folder of Step 2; the curve is written into it.

    Returns:
        For the manifest: "threshold", or None and the reason as "no_threshold". Step 2 itself
        does not need tau, so a split that cannot tell is no failure here.
    """
    with_event = [v for v in validation if v.labels]
    if not with_event:
        return {"threshold": None, "no_threshold": "no validation video with an event is usable"}
    scores_VWK = read_window_scores(out, [v.video_id for v in with_event])
    truth_VTK = task.truth(videos, with_event)
    truth_VWK = window_truth(truth_VTK, mask_WT, background=task.background)
    labels_VK = task.targets(videos, with_event)
    try:
        curve = threshold_curve(
            scores_VWK, labels_VK, truth_VWK, threshold_grid(), background=task.background
        )
    except DatasetError as error:
        return {"threshold": None, "no_threshold": str(error)}
    (out / THRESHOLDS_FILE).write_table(_to_table(curve))
    return {"threshold": curve.best()}


def read_threshold_curve(out: Location) -> ThresholdCurve | None:
    """The curve that `choose_threshold` wrote, if it could."""
    location = out / THRESHOLDS_FILE
    if not location.exists():
        return None
    table = location.read_table()
    return ThresholdCurve(
        thresholds_G=table["threshold"].to_numpy(),
        sensitivity_G=table["sensitivity"].to_numpy(),
        specificity_G=table["specificity"].to_numpy(),
        num_present=table["num_present"][0].as_py(),
        num_absent=table["num_absent"][0].as_py(),
    )


def _to_table(curve: ThresholdCurve) -> pa.Table:
    count = len(curve.thresholds_G)
    columns = {
        "threshold": curve.thresholds_G,
        "sensitivity": curve.sensitivity_G,
        "specificity": curve.specificity_G,
        "num_present": np.full(count, curve.num_present),
        "num_absent": np.full(count, curve.num_absent),
    }
    return pa.table(columns, schema=THRESHOLDS)
