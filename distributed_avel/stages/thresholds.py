"""Choose tau on the validation split, and store the curves behind the choice.

Shape suffixes used in this file:
    V = videos    T = segments    W = windows    K = columns of labels    G = thresholds
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.method.pseudo_labels import (
    RemovedShare,
    Threshold,
    ThresholdCurve,
    removed_shares,
    threshold_curve,
    threshold_for_share,
    threshold_grid,
    window_truth,
)
from distributed_avel.method.windows import WindowsOf, equal_lengths, valid_windows
from distributed_avel.schema import THRESHOLDS
from distributed_avel.storage import Location
from distributed_avel.tasks import Task

THRESHOLDS_FILE = "thresholds.parquet"

ReadScores = Callable[[Sequence[Video]], NDArray[np.float32]]
"""Callback that returns Z-hat of videos, shape (V, W, K)."""

LengthsOf = Callable[[Sequence[Video]], NDArray[np.int64] | None]
"""Callback that returns the number of segments of videos, shape (V,); None: all have T."""


@dataclass(frozen=True, slots=True)
class ChosenThreshold:
    """Result of the choice of tau.

    Args:
        threshold: tau, or one tau for each of `Task.parts`; None if it could not be chosen.
        no_threshold: Reason why it could not be chosen.
        removed_share: Shares of the labels of training windows, by part.
    """

    threshold: float | dict[str, float] | None = None
    no_threshold: str | None = None
    removed_share: dict[str, RemovedShare] = field(default_factory=dict)

    def value(self) -> Threshold:
        """Return tau.

        Raises:
            DatasetError: It could not be chosen; the message has the reason and the remedy.
        """
        if self.threshold is None:
            raise DatasetError(f"{self.no_threshold}, or set refine.threshold to a number")
        return self.threshold


def choose_threshold(
    task: Task,
    videos: VideoSet,
    training: Sequence[Video],
    validation: Sequence[Video],
    scores_of: ReadScores,
    lengths_of: LengthsOf,
    windows_of: WindowsOf,
    out: Location,
) -> ChosenThreshold:
    """Choose tau so that the pseudo-labels of training windows have the right prevalence.

    The segment labels of the validation split give the share of window labels that is wrong; tau
    removes this share from the windows of the training videos. The window pseudo-labels of the
    validation split are also compared with its segment labels over a grid of tau (Sec. 5.3).

    Step 2 itself does not need tau, so it is not an error if the validation split does not suffice.

    Args:
        task: Task of the model.
        videos: Data set.
        training: Training videos.
        validation: Validation videos.
        scores_of: Returns Z-hat of videos.
        lengths_of: Returns the lengths of videos.
        windows_of: The scored windows.
        out: Folder of Step 2, to which the curves are written.
    """
    with_event = [v for v in validation if v.labels]
    if not with_event:
        return ChosenThreshold(
            no_threshold="no validation video with an event is usable; add some, set "
            "refine.threshold to spliced"
        )
    with_event = [v for v in with_event if task.has_times(v)]
    if not with_event:
        return ChosenThreshold(
            no_threshold="no validation video has the times of its events; annotate some, set "
            "refine.threshold to spliced"
        )
    scores_VWK = scores_of(with_event)
    truth_VTK = task.truth(videos, with_event)
    targets_VK = task.targets(videos, with_event)
    training_VWK = scores_of(training)
    training_VK = task.targets(videos, training)
    lengths_V, training_lengths_V = lengths_of(with_event), lengths_of(training)
    if lengths_V is None or training_lengths_V is None:
        mask_WT = windows_of(truth_VTK.shape[1])
        truth_VWK = window_truth(truth_VTK, mask_WT, background=task.background)
    else:
        # Treat each window as a video of one window, and leave out those that videos do not have.
        valid_VW = valid_windows(lengths_V, windows_of, truth_VTK.shape[1])
        truth_VWK = np.zeros(scores_VWK.shape, dtype=bool)
        for length, rows in equal_lengths(lengths_V):
            truth_VTK_of_length, mask_WT = truth_VTK[rows, :length], windows_of(length)
            truth_VWK[rows, : len(mask_WT)] = window_truth(
                truth_VTK_of_length, mask_WT, background=task.background
            )
        truth_VWK = truth_VWK[valid_VW][:, None]
        scores_VWK, targets_VK = single_windows(scores_VWK, targets_VK, valid_VW)
        training_valid_VW = valid_windows(training_lengths_V, windows_of, truth_VTK.shape[1])
        training_VWK, training_VK = single_windows(training_VWK, training_VK, training_valid_VW)
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
            return ChosenThreshold(no_threshold=f"{part}: {error}")
        requested = curves[part].absent_share
        part_VWK, part_VK = training_VWK[..., columns], training_VK[:, columns]
        best[part] = threshold_for_share(
            part_VWK, part_VK, requested, threshold_grid(), background=task.background
        )
        tau_G = np.array([best[part]])
        removed_G = removed_shares(part_VWK, part_VK, tau_G, background=task.background)
        shares[part] = RemovedShare(requested, achieved=float(removed_G[0]))
    write_threshold_curves(curves, out)
    threshold = best if len(best) > 1 else next(iter(best.values()))
    return ChosenThreshold(threshold=threshold, removed_share=shares)


def single_windows(
    scores_VWK: NDArray[np.float32], targets_VK: NDArray[np.bool_], valid_VW: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the windows as videos of one window: scores (P, 1, K) and targets (P, K)."""
    repeated_VWK = np.broadcast_to(targets_VK[:, None], scores_VWK.shape)
    return scores_VWK[valid_VW][:, None], repeated_VWK[valid_VW]


def threshold_metrics(threshold: Threshold) -> dict[str, float]:
    """Return tau as metrics for MLflow."""
    if isinstance(threshold, Mapping):
        return {f"threshold_{part}": value for part, value in threshold.items()}
    return {"threshold": threshold}


def share_metrics(shares: Mapping[str, RemovedShare]) -> dict[str, float]:
    """Return `ChosenThreshold.removed_share` as metrics for MLflow."""
    return {
        f"removed_share_{kind}" + (f"_{part}" if len(shares) > 1 else ""): value
        for part, share in shares.items()
        for kind, value in asdict(share).items()
    }


def write_threshold_curves(curves: Mapping[str, ThresholdCurve], out: Location) -> None:
    """Write the curves behind the choice of tau, by part."""
    (out / THRESHOLDS_FILE).write_table(_to_table(curves))


def read_threshold_curves(out: Location) -> dict[str, ThresholdCurve]:
    """Read the curves of `write_threshold_curves`; empty if tau was not chosen."""
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
