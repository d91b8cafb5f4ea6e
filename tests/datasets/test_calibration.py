"""`synthetic` is as hard for the base model as AVE is, told from the validation split alone."""

from statistics import fmean

import pytest

from benchmarks.calibrate_synthetic import HIGH, LOW, base_validation
from distributed_avel.datasets.synthetic import CALIBRATED, EASY


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_base_model_is_as_accurate_on_validation_as_base_models_are_on_ave(tmp_path):
    deviation = CALIBRATED.instance_deviation
    by_seed = [base_validation(deviation, seed, tmp_path) for seed in range(3)]

    accuracies = [metrics["accuracy"] or 0.0 for metrics in by_seed]
    assert LOW <= fmean(accuracies) <= HIGH, accuracies
    # The easy revision is far from it, so the range tells one from the other.
    assert (base_validation(EASY.instance_deviation, 0, tmp_path)["accuracy"] or 0.0) > HIGH + 5
