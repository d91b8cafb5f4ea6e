"""Bootstrap intervals over videos: how much a metric depends on which videos the split has.

Videos, not segments, are drawn with replacement, because segments of one video are not independent.
Every metric here is computed from sums over videos, so a resample is a weight per video: how often
it is drawn. All arms and metrics share the resamples, which makes differences between arms paired.
`scipy.stats.bootstrap` would compute each metric from resampled arrays, one at a time.

Shape suffixes used in this file:
    B = 1 + resamples; row 0 is the sample itself    V = videos
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distributed_avel.randomness import derive

NUM_RESAMPLES = 1000
LEVEL = 0.95
"""Share of the resamples that an interval covers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric with its bootstrap interval.

    Args:
        value: The metric of the sample.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def video_weights(num_videos: int, num_resamples: int = NUM_RESAMPLES) -> NDArray[np.float64]:
    """Draw resamples with a fixed seed, shape (B, V): how often each contains each video.

    Row 0 is the sample itself, with a weight of 1 for each video.
    """
    rng = np.random.default_rng(derive(0, "bootstrap"))
    uniform_V = np.full(num_videos, 1 / num_videos)
    drawn_BV = rng.multinomial(num_videos, uniform_V, size=num_resamples)
    return np.concatenate([np.ones((1, num_videos)), drawn_BV.astype(np.float64)])


def interval(values_B: NDArray[np.floating]) -> Interval | None:
    """Return the percentile interval of a metric, or None if it is undefined for the sample.

    Args:
        values_B: The metric of the sample, then of each resample; NaN where it is undefined.
    """
    if np.isnan(values_B[0]):
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.nanpercentile(values_B[1:], [tail, 100 - tail])
    return Interval(float(values_B[0]), float(low), float(high))
