"""Invalid combinations of settings are refused before a job starts."""

import pytest

from distributed_avel.config import ReproduceConfig, TuneConfig, validate
from distributed_avel.errors import ConfigError
from distributed_avel.run import check_names
from distributed_avel.studies.sweep import run_sweep
from distributed_avel.studies.tables import run_reproduce


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"arms": ["base", "MA"]},
            "arms: arm MA needs an audio-visual parsing model such as han; ave is",
        ),
        (
            {"model": {"name": "han", "pooling": "max"}},
            "model.pooling: han pools with its own attention",
        ),
        (
            {"model": {"name": "han"}, "arms": ["MA"], "refine": {"labels": "soft"}},
            "refine.labels: arm MA removes a label",
        ),
        ({"model": {"name": "hen"}}, "model.name: no base model 'hen'"),
        (
            {"extract": {"options": {"gain": 1}}},
            r"^extract\.options\.gain: extractor descriptors has no options; leave it out$",
        ),
        (
            {"model": {"name": "psp", "options": {"treshold": 0.1}}},
            r"^model\.options\.treshold: base model psp has no such option; perhaps threshold; "
            "there are: attention_size, head_size, threshold$",
        ),
        (
            {"model": {"name": "cman", "options": {"threshold": 0.1}}},
            r"^model\.options\.threshold: base model cman has no options; leave it out$",
        ),
        (
            {"model": {"name": "psp", "options": {"threshold": -1, "head_size": "wide"}}},
            r"(?s)^model\.options\.head_size: Input should be a valid integer.*\n"
            r"model\.options\.threshold: Input should be greater than or equal to 0$",
        ),
    ],
)
def test_settings_that_do_not_apply_to_a_model_are_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        check_names(validate(values, "test"))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model": {"name": "han"}, "arms": ["base", "LR", "MA"]},
        {"model": {"name": "psp", "options": {"threshold": 0.1, "attention_size": None}}},
    ],
)
def test_settings_that_apply_are_accepted(values):
    check_names(validate(values, "test"))


def test_wrong_names_and_options_are_reported_together():
    values = {
        "data": {"dataset": "no"},
        "extract": {"options": {"b": 2}},
        "model": {"name": "psp", "options": {"a": 1}},
    }

    told = (
        r"(?s)no data set 'no'.*\nextract\.options\.b: extractor .*\nmodel\.options\.a: base model"
    )
    with pytest.raises(ConfigError, match=told):
        check_names(validate(values, "test"))


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        (
            ["model.options.treshold=0.1"],
            "sweep.vary: model.options.treshold: base model psp has no",
        ),
        (["model.options.threshold=0.1,x"], "sweep.vary: model.options.threshold: Input should be"),
        (["model.options=0.1"], "sweep.vary: model.options: name one option, as in"),
        (
            ["model.name=psp,ave", "model.options.threshold=0.1,0.2"],
            "sweep.vary: model.options.threshold: base model ave has no such option",
        ),
    ],
)
def test_a_sweep_refuses_options_that_its_models_lack(vary, told):
    values = {"model": {"name": "psp"}, "sweep": {"vary": vary}}

    with pytest.raises(ConfigError, match=told):
        run_sweep(validate(values, "test", TuneConfig))


def test_reproduce_refuses_a_model_option_for_all_models():
    values = {"model": {"name": "psp", "options": {"threshold": 0.1}}}

    with pytest.raises(ConfigError, match=r"--by-model psp:model\.options\.threshold=0\.1"):
        run_reproduce(validate(values, "test", ReproduceConfig))


def test_a_sweep_refuses_models_with_different_metrics():
    values = {"sweep": {"vary": ["model.name=ave,han"]}}

    with pytest.raises(ConfigError, match="han and ave have different metrics"):
        run_sweep(validate(values, "test", TuneConfig))
