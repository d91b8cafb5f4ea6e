import numpy as np
import pytest

from distributed_avel.method.pseudo_labels import ThresholdCurve
from distributed_avel.search.screen import screened_range

EVERYTHING = (0.001, 0.999)


def curve(thresholds, youden) -> ThresholdCurve:
    return ThresholdCurve(
        thresholds_G=np.array(thresholds),
        sensitivity_G=np.ones(len(youden)),
        specificity_G=np.array(youden, dtype=float),
        num_present=1,
        num_absent=1,
    )


def test_only_thresholds_near_the_best_one_are_worth_a_trial():
    found = screened_range(
        [curve([0.1, 0.3, 0.5, 0.7, 0.9], [0.0, 0.3, 0.6, 0.4, 0.1])], 0.5, EVERYTHING
    )

    assert found == (0.3, 0.7)


def test_the_range_covers_every_pair_of_window_and_stride():
    low = curve([0.01, 0.5, 0.99], [0.8, 0.1, 0.0])
    high = curve([0.01, 0.5, 0.99], [0.0, 0.1, 0.8])

    assert screened_range([low], 0.5, EVERYTHING) == (0.01, 0.01)
    assert screened_range([low, high], 0.5, EVERYTHING) == (0.01, 0.99)


@pytest.mark.parametrize("curves", [[], [curve([0.1, 0.5], [0.0, 0.04])]])
def test_uninformative_curves_do_not_narrow_the_range(curves):
    assert screened_range(curves, 0.5, EVERYTHING) == EVERYTHING


def test_a_kept_share_of_zero_keeps_the_whole_curve():
    assert screened_range([curve([0.1, 0.5], [0.0, 0.9])], 0.0, EVERYTHING) == (0.1, 0.5)
