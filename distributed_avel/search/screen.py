"""Pre-select thresholds tau on the validation split, before Step 3 is trained (Sec. 5.3).

Window pseudo-labels of Step 2 are available without further training, so every tau can be
evaluated at almost no cost. The candidates cover (0, 1) on the logit scale, because the best tau
was 0.01 for one arm and 0.95 for another.

Shape suffixes used in this file:
    G = thresholds
"""

from collections.abc import Sequence

import numpy as np

from distributed_avel.method.pseudo_labels import ThresholdCurve, threshold_grid
from distributed_avel.search.space import spread_thresholds

USELESS = 0.05
"""Minimum of the best Youden index of a curve; a lower curve carries no information on tau."""


def screened_range(
    curves: Sequence[ThresholdCurve], keep: float, everything: tuple[float, float]
) -> tuple[float, float]:
    """Return the smallest and the largest tau that pass the pre-selection for any curve.

    A tau passes if its Youden index (sensitivity + specificity - 1) is at least `keep` times the
    best Youden index of the curve.

    Args:
        curves: One curve per combination of window and stride.
        keep: Fraction in 0..1.
        everything: Range for a curve without information, and if there are no curves.
    """
    ranges = [_range(curve, keep, everything) for curve in curves] or [everything]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def screened_thresholds(
    curves: Sequence[ThresholdCurve], keep: float, count: int
) -> tuple[float, ...]:
    """Return `count` values of tau in the pre-selected range, evenly spaced on the logit scale.

    Args:
        curves: See `screened_range`.
        keep: See `screened_range`.
        count: Number of values.
    """
    return spread_thresholds(*screened_range(curves, keep, whole_range()), count)


def whole_range() -> tuple[float, float]:
    """Return the smallest and the largest tau of `threshold_grid`."""
    grid_G = threshold_grid()
    return float(grid_G[0]), float(grid_G[-1])


def _range(
    curve: ThresholdCurve, keep: float, everything: tuple[float, float]
) -> tuple[float, float]:
    youden_G = curve.sensitivity_G + curve.specificity_G - 1.0
    if youden_G.max() < USELESS:
        return everything
    passing = np.flatnonzero(youden_G >= keep * youden_G.max())
    return float(curve.thresholds_G[passing[0]]), float(curve.thresholds_G[passing[-1]])
