"""Metrics of the localization task."""

import numpy as np
import pytest

from distributed_avel.tasks import Localization, Parsing

TASK = Localization(pooling="max", loss="soft_margin")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("task", [TASK, Parsing()], ids=["localization", "parsing"])
def test_non_finite_probabilities_are_refused(task, value):
    truth_VTK = np.tile(np.eye(4, dtype=bool)[1], (3, 10, 1))
    prob_VTK = truth_VTK.astype(np.float32)
    task.judge(truth_VTK, prob_VTK)
    prob_VTK[2, 9, 3] = value
    with pytest.raises(FloatingPointError, match="not a finite number"):
        task.judge(truth_VTK, prob_VTK)
