"""Which tau are worth a Step 3, told from the validation split alone (Sec. 5.3).

Window pseudo-labels need no training after Step 2, so every tau can be looked at for nothing.
The whole of (0, 1) is looked at, on the logit scale: the best tau was 0.01 for one arm and 0.95
for another.
"""

from collections.abc import Sequence

import numpy as np

from distributed_avel.refine.pseudo_labels import ThresholdCurve, threshold_grid
from distributed_avel.search.space import spread_thresholds

USELESS = 0.05
"""A curve whose best Youden index is lower tells no tau from another."""


def screened_range(
    curves: Sequence[ThresholdCurve], keep: float, everything: tuple[float, float]
) -> tuple[float, float]:
    """From the smallest to the largest tau that is worth trying for any of the curves.

    A tau is worth it where Youden's index, sensitivity + specificity - 1, reaches a part `keep`
    of the best one of its curve.

    Args:
        curves: One for each pair of window and stride.
        everything: What a curve allows that tells nothing, and what no curve at all allows.
    """
    ranges = [_range(curve, keep, everything) for curve in curves] or [everything]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def screened_thresholds(
    curves: Sequence[ThresholdCurve], keep: float, count: int
) -> tuple[float, ...]:
    """`count` values of tau that are worth a Step 3, evenly spaced on the logit scale.

    Args:
        curves: See `screened_range`.
        keep: See `screened_range`.
    """
    return spread_thresholds(*screened_range(curves, keep, whole_range()), count)


def whole_range() -> tuple[float, float]:
    """The smallest and the largest tau that are looked at."""
    grid_G = threshold_grid()
    return float(grid_G[0]), float(grid_G[-1])


def _range(
    curve: ThresholdCurve, keep: float, everything: tuple[float, float]
) -> tuple[float, float]:
    youden_G = curve.sensitivity_G + curve.specificity_G - 1.0
    if youden_G.max() < USELESS:
        return everything
    worth = np.flatnonzero(youden_G >= keep * youden_G.max())
    return float(curve.thresholds_G[worth[0]]), float(curve.thresholds_G[worth[-1]])
