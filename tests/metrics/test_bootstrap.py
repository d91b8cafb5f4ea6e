"""Bootstrap intervals over videos."""

import numpy as np
import pytest
import scipy.stats

from distributed_avel.metrics.bootstrap import interval, video_weights
from distributed_avel.metrics.segment import segment_metrics, weighted_segment_metrics


def test_a_resample_has_the_metrics_of_the_videos_that_it_repeats():
    rng = np.random.default_rng(0)
    truth_VT, prediction_VT = rng.integers(0, 4, size=(2, 30, 5))
    weights_BV = video_weights(30, num_resamples=20)

    weighted = weighted_segment_metrics(truth_VT, prediction_VT, 3, weights_BV)

    for row, weights_V in enumerate(weights_BV):
        drawn = np.repeat(np.arange(30), weights_V.astype(int))
        expected = segment_metrics(truth_VT[drawn], prediction_VT[drawn], 3)
        for name, values_B in weighted.items():
            assert values_B[row] == pytest.approx(expected[name])


def test_the_interval_is_that_of_scipy():
    correct_V = np.random.default_rng(0).random(200) ** 2
    weights_BV = video_weights(200, num_resamples=4000)
    mine = interval(weights_BV @ correct_V / weights_BV.sum(axis=1))
    other = scipy.stats.bootstrap(
        (correct_V,), np.mean, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert mine is not None
    assert mine.value == pytest.approx(correct_V.mean())
    assert (mine.low, mine.high) == pytest.approx((other.low, other.high), abs=0.004)


def test_weights_are_the_same_in_every_call_and_keep_the_number_of_videos():
    weights_BV = video_weights(7, num_resamples=50)
    np.testing.assert_array_equal(weights_BV, video_weights(7, num_resamples=50))
    assert (weights_BV[0] == 1).all()
    assert (weights_BV.sum(axis=1) == 7).all()


def test_undefined_resamples_are_left_out_and_an_undefined_metric_has_no_interval():
    assert interval(np.array([np.nan, 1.0, 2.0])) is None
    defined = interval(np.array([1.0, np.nan, 3.0, 3.0]))
    assert defined is not None
    assert (defined.low, defined.high) == (3.0, 3.0)
