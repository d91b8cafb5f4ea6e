"""`synthetic` is as difficult for the base model as AVE, measured on the validation split."""

from statistics import fmean

import pytest

from benchmarks.calibrate_synthetic import HIGH, LOW, base_validation
from distributed_avel.datasets.synthetic import CALIBRATED, EASY


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_base_model_accuracy_on_validation_is_in_the_range_of_ave(tmp_path):
    deviation = CALIBRATED.instance_deviation
    by_seed = [base_validation(deviation, seed, tmp_path) for seed in range(3)]

    accuracies = [metrics["accuracy"] or 0.0 for metrics in by_seed]
    assert LOW <= fmean(accuracies) <= HIGH, accuracies
    # The easy revision is far outside the range, so the test can fail.
    assert (base_validation(EASY.instance_deviation, 0, tmp_path)["accuracy"] or 0.0) > HIGH + 5
