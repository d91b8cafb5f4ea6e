"""Settings: defaults, sources, and validation."""

from itertools import product
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from distributed_avel.config import RunConfig, TuneConfig, load_values, validate
from distributed_avel.errors import ConfigError
from distributed_avel.method.windows import window_mask

DEFAULTS = Path(__file__).parent / "data" / "default_config.yaml"
CONFIGS = Path(__file__).parent.parent / "distributed_avel" / "configs"


def refused(values: dict) -> str:
    with pytest.raises(ConfigError) as error:
        validate(values, "some.yaml")
    return str(error.value)


def test_the_defaults_match_the_recorded_file():
    """A default changes the results of users; update the recorded file when you change one."""
    written = yaml.safe_load(DEFAULTS.read_text())

    assert TuneConfig().model_dump(mode="json") == written


def test_the_recorded_defaults_load_as_the_defaults():
    assert validate(load_values(DEFAULTS), "defaults", TuneConfig) == TuneConfig()


@pytest.mark.parametrize("name", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_in_the_package_is_valid(name):
    values = load_values(name)

    assert validate(values, name.name, TuneConfig if "sweep" in values else RunConfig)


def test_a_configuration_is_immutable():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().seed = 1


def test_every_setting_has_a_description():
    def undocumented(section, prefix=""):
        for name, info in section.model_fields.items():
            if hasattr(info.annotation, "model_fields"):
                yield from undocumented(info.annotation, f"{prefix}{name}.")
            elif not info.description:
                yield prefix + name

    assert list(undocumented(TuneConfig)) == []


def test_all_problems_are_reported_together_with_their_keys():
    message = refused(
        {
            "sed": 3,
            "arms": "all",
            "data": {"dataset": 5},
            "model": {"pooling": "median"},
            "train": {"batch_size": 0, "learning_rate": "fast", "loss": "mse"},
            "refine": {"threshold": 1.5, "windw": 4},
        }
    )

    assert message.splitlines() == [
        "some.yaml: 9 problem(s)",
        "  arms: Input should be a valid tuple",
        "  data.dataset: Input should be a valid string",
        "  model.pooling: Input should be 'model', 'max', 'mean' or 'lse'",
        "  train.batch_size: Input should be greater than 0",
        "  train.learning_rate: Input should be a valid number, unable to parse string as a number",
        "  train.loss: Input should be 'soft_margin' or 'cross_entropy'",
        "  refine.threshold: Input should be less than 1, or: "
        "Input should be 'validation', 'screened' or 'spliced'",
        "  refine.windw: no such key; perhaps window",
        "  sed: no such key; perhaps seed",
    ]


def test_windows_that_do_not_fit_are_reported_with_other_problems():
    message = refused({"refine": {"window": 6}, "train": {"loss": "mse"}})

    assert "refine: window must be in 2..5 for 10 segments, got 6" in message
    assert "train.loss" in message


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, "test", None])
def test_a_threshold_is_a_probability_or_chosen_on_the_validation_split(threshold):
    assert "refine.threshold" in refused({"refine": {"threshold": threshold}})


def test_a_window_and_stride_are_refused_exactly_if_no_window_fits():
    for num_segments, window, stride in product(range(1, 13), range(1, 9), range(1, 9)):
        values = {
            "data": {"num_segments": num_segments},
            "refine": {"window": window, "stride": stride},
        }
        try:
            window_mask(num_segments, window, stride)
        except ValueError:
            message = refused(values)
            assert any(
                said in message
                for said in ("window must be", "stride must divide", "too short for windows")
            )
        else:
            assert validate(values, "some.yaml").refine.window == window


def test_a_window_too_long_for_the_number_of_segments_is_refused():
    assert "window must be in 2..2 for 5 segments" in refused({"data": {"num_segments": 5}})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- a\n- b\n", "expected `key: value` lines, got list"),
        (b"just a text", "expected `key: value` lines, got str"),
        (b"data: {dataset: [", "not YAML"),
        (b"\xff\xfe\x00\xd8", "not YAML"),
        (b"seed: 1\nseed: 2\n", "duplicate key 'seed'"),
        (b"data: {root: /a, root: /b}\n", "duplicate key 'root'"),
        (b"data: {root: ''}\n", "data.root: is empty"),
        (b"data: 3\n", "data: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_named_in_the_error(tmp_path, content, told):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as error:
        validate(load_values(path), str(path))

    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_an_unreadable_configuration_file_is_named_in_the_error(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"{path}: the configuration file cannot be read"):
            load_values(path)


def test_an_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")

    assert validate(load_values(tmp_path / "empty.yaml"), "empty.yaml") == RunConfig()


def test_the_default_run_dir_contains_the_name_of_the_data_set():
    assert RunConfig().resolved_run_dir == "runs/demo"
    assert validate({"data": {"dataset": "ave"}}, "").resolved_run_dir == "runs/ave"
    assert validate({"run_dir": "s3://bucket/x"}, "").resolved_run_dir == "s3://bucket/x"


@pytest.mark.parametrize("name", ["ave", "ave_features"])
def test_the_configurations_of_ave_have_the_papers_settings(name):
    """Sec. 5.1."""
    config = validate(load_values(CONFIGS / f"{name}.yaml"), "test")

    train, refine = config.train, config.refine
    assert (train.loss, refine.threshold, refine.window, refine.stride) == (
        "soft_margin",
        0.05,
        4,
        2,
    )
    assert (train.learning_rate, train.batch_size) == (0.001, 64)
    assert (train.base_epochs, train.retrain_epochs, config.model.hidden_size) == (200, 100, 128)
