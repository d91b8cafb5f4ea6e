"""What jobs refuse before anything starts."""

import pytest

from distributed_avel.config import TuneConfig, validate
from distributed_avel.errors import ConfigError
from distributed_avel.run import check_names
from distributed_avel.sweep.phases import run_sweep


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"arms": ["base", "MA"]},
            "arms: arm MA needs an audio-visual parsing model such as han; ave is",
        ),
        ({"model": {"name": "han", "pooling": "max"}}, "model.pooling: han pools by an attention"),
        (
            {"model": {"name": "han"}, "arms": ["MA"], "refine": {"labels": "soft"}},
            "refine.labels: MA removes a label",
        ),
        ({"model": {"name": "hen"}}, "model.name: no base model 'hen'"),
    ],
)
def test_settings_that_a_model_has_no_use_for_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        check_names(validate(values, "test"))


@pytest.mark.parametrize("values", [{}, {"model": {"name": "han"}, "arms": ["base", "LR", "MA"]}])
def test_settings_that_fit_are_taken(values):
    check_names(validate(values, "test"))


def test_no_sweep_chooses_between_models_with_other_metrics():
    values = {"sweep": {"vary": ["model.name=ave,han"]}}

    with pytest.raises(ConfigError, match="han and ave have other metrics"):
        run_sweep(validate(values, "test", TuneConfig))
