import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.config import RunConfig, SweepConfig, validate
from distributed_avel.errors import ConfigError
from distributed_avel.method.windows import window_mask
from distributed_avel.search.space import (
    Choice,
    Range,
    Space,
    chosen_windows,
    describe,
    parse_dimension,
    parse_model_settings,
    spread_thresholds,
    valid_windows,
    with_values,
)

CONFIG = RunConfig()
WINDOWS = tuple(chosen_windows(SweepConfig(windows=("4:2", "5:5")), 10))


def space(**changes) -> Space:
    values = {"windows": WINDOWS, "thresholds": (0.1, 0.9), "threshold_range": (0.01, 0.99)}
    return Space(**{**values, **changes})


class FirstChoice:
    """Suggests values like an Optuna trial, and records them as Ray Tune does."""

    def __init__(self) -> None:
        self.values = {}

    def suggest_categorical(self, name, choices):
        self.values[name] = choices[-1]
        return choices[-1]

    def suggest_float(self, name, low, high):
        self.values[name] = low
        return low


@given(num_segments=st.integers(2, 40))
def test_valid_pairs_are_those_accepted_by_window_mask(num_segments):
    accepted = set()
    for window in range(1, num_segments + 1):
        for stride in range(1, num_segments + 1):
            try:
                window_mask(num_segments, window, stride)
            except ValueError:
                continue
            if window + stride <= num_segments:  # a larger stride makes one window at most
                accepted.add((window, stride))

    found = valid_windows(num_segments)

    assert {(w.window, w.stride) for w in found} == accepted
    for w in found:
        assert w.num_windows == (num_segments - w.window) // w.stride + 1


def test_valid_pairs_and_their_costs_for_ten_segments():
    found = {str(w): w.num_windows for w in valid_windows(10)}

    assert found == {
        **{"2:8": 2, "3:7": 2, "4:6": 2, "5:5": 2, "4:3": 3, "2:4": 3, "4:2": 4},
        **{"2:2": 5, "5:1": 6, "4:1": 7, "3:1": 8, "2:1": 9},
    }


def test_pairs_can_be_limited_by_cost_and_by_even_coverage():
    assert max(w.num_windows for w in valid_windows(10, max_windows=4)) == 4
    even = valid_windows(10, max_unevenness=0.0)
    assert [str(w) for w in even] == ["5:5", "2:2"]
    assert all(
        window_mask(10, w.window, w.stride).any(axis=0).all()
        for w in valid_windows(10, max_unevenness=0.99)
    )


def test_an_invalid_pair_is_refused_with_the_list_of_pairs():
    with pytest.raises(ConfigError, match=r"4:4, x: not a valid N:s .* 4:2 \(T1 4\)"):
        chosen_windows(SweepConfig(windows=("4:2", "4:4", "x")), 10)
    with pytest.raises(ConfigError, match="exclude all windows"):
        chosen_windows(SweepConfig(max_windows=1), 10)


def test_dimensions_are_checked_against_the_configuration():
    assert parse_dimension("train.learning_rate=0.001,1e-2", CONFIG) == Choice(
        "train.learning_rate", (0.001, 0.01)
    )
    assert parse_dimension("model.hidden_size=16..64", CONFIG) == Range(
        "model.hidden_size", 16.0, 64.0, True
    )
    assert parse_dimension("train.loss=soft_margin", CONFIG).values == ("soft_margin",)


def test_options_of_the_base_model_are_dimensions():
    config = validate({"model": {"name": "psp", "options": {"head_size": 16}}}, "test")

    choice = parse_dimension("model.options.threshold=0.05,1", config)
    whole = parse_dimension("model.options.head_size=16..64", config)

    assert choice == Choice("model.options.threshold", (0.05, 1.0))
    assert all(isinstance(value, float) for value in choice.values)
    assert whole == Range("model.options.head_size", 16.0, 64.0, True)
    run = with_values(config, {choice.key: 0.05})
    assert run.model.options == {"head_size": 16, "threshold": 0.05}
    assert config.model.options == {"head_size": 16}


def test_options_of_another_model_are_refused():
    config = validate({"model": {"name": "psp", "options": {"threshold": 0.1}}}, "test")

    with pytest.raises(ConfigError, match=r"model\.options\.threshold: base model ave has no such"):
        with_values(config, {"model.name": "ave"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.learning_rat=0.1", "perhaps learning_rate"),
        ("train.learning_rate=fast", "valid number"),
        ("train.learning_rate=-1,2", "greater than 0"),
        ("train.loss=hinge", "soft_margin"),
        ("refine.window=4", "use sweep.windows"),
        ("data.root=x", "share data and features"),
        ("seed=1,2", "share data and features"),
        ("train.loss", "expected KEY=VALUE"),
        ("train.learning_rate=0.1..0.01", "0 < LOW < HIGH"),
        ("model.name=a..b", "0 < LOW < HIGH"),
    ],
)
def test_an_invalid_dimension_is_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_dimension(text, CONFIG)


def test_a_grid_has_every_combination_once():
    loss = Choice("train.loss", ("soft_margin", "cross_entropy"))
    whole = space(dimensions=(loss,))
    points = whole.grid()

    assert len(points) == len({repr(p) for p in points}) == 2 * 2 * 2
    assert len(whole.shared(all_dimensions=True)) == 2 * 2
    assert len(whole.shared(all_dimensions=False)) == 2
    for point in points:
        run = with_values(CONFIG, point)
        assert run.refine.threshold == point["refine.threshold"]
        assert run.train.loss == point["train.loss"]


def test_a_grid_refuses_a_range():
    with pytest.raises(ConfigError, match=r"train\.learning_rate: a grid needs values"):
        space(dimensions=(Range("train.learning_rate", 1e-4, 1e-2, False),)).grid()


def test_random_points_are_in_the_space_and_independent_of_their_number():
    dimensions = (
        Range("train.learning_rate", 1e-4, 1e-2, False),
        Choice("train.loss", ("soft_margin",)),
    )
    whole = space(dimensions=dimensions)
    points = whole.sample(50, seed=3)

    assert points[:10] == whole.sample(10, seed=3)
    assert points[:10] != whole.sample(10, seed=4)
    assert {(p["refine.window"], p["refine.stride"]) for p in points} == {(4, 2), (5, 5)}
    assert all(0.01 <= p["refine.threshold"] <= 0.99 for p in points)
    assert all(1e-4 <= p["train.learning_rate"] <= 1e-2 for p in points)
    logs = [math.log(p["train.learning_rate"]) for p in points]
    middle = math.log(1e-3)
    assert 10 < sum(value < middle for value in logs) < 40  # half of them, on a log scale


def test_optuna_suggestions_are_points_of_the_space():
    whole = space(dimensions=(Range("model.hidden_size", 16, 64, True),))
    trial = FirstChoice()
    whole.suggest(trial)

    assert whole.suggested(trial.values) == {
        "refine.window": 5,
        "refine.stride": 5,
        "model.hidden_size": 16,
        "refine.threshold": 0.01,
    }


def test_points_are_converted_to_equivalent_optuna_parameters():
    dimensions = (
        Range("train.learning_rate", 1e-4, 1e-2, False),
        Range("model.hidden_size", 16, 64, True),
        Choice("train.loss", ("soft_margin", "cross_entropy")),
    )
    whole = space(dimensions=dimensions)

    for point in whole.sample(50, seed=0):
        values = whole.asked(point)
        assert whole.suggested(values) == pytest.approx(point)
        assert math.log(1e-4) <= values["train.learning_rate"] <= math.log(1e-2)


def test_thresholds_are_uniform_on_the_logit_scale():
    assert spread_thresholds(0.1, 0.9, 3) == (0.1, 0.5, 0.9)
    assert spread_thresholds(0.1, 0.9, 1) == (0.5,)
    ends = spread_thresholds(0.000911, 0.999089, 5)
    assert (ends[0], ends[-1]) == (0.000911, 0.999089)
    assert spread_thresholds(0.3, 0.3, 5) == (0.3,)


def test_a_model_of_the_tables_may_have_its_own_settings():
    texts = [
        "psp:train.batch_size=128",
        "psp:train.learning_rate=0.001",
        "psp:model.options.threshold=0.1",
        "ave:model.hidden_size=8",
    ]

    assert parse_model_settings(texts, CONFIG) == {
        "psp": {
            "train.batch_size": 128,
            "train.learning_rate": 0.001,
            "model.options.threshold": 0.1,
        },
        "ave": {"model.hidden_size": 8},
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("psp", "expected MODEL:KEY=VALUE"),
        ("psp:model.name=ave", "expected MODEL:KEY=VALUE"),
        ("psp:refine.threshold=0.5", "expected MODEL:KEY=VALUE"),
        ("psp:train.num_workers=2", "may differ between models"),
        ("pps:train.batch_size=128", "no base model 'pps'"),
        ("psp:train.batchsize=128", "no such key; perhaps batch_size"),
        ("psp:train.batch_size=-1", "by_model, psp"),
        (
            "ave:model.options.threshold=0.1",
            "by_model, ave: model.options.threshold: base model ave",
        ),
    ],
)
def test_invalid_settings_of_a_model_are_refused(text, told):
    with pytest.raises(ConfigError, match=told):
        parse_model_settings([text], CONFIG)


def test_a_point_is_described_in_a_few_words():
    point = {"refine.window": 4, "refine.stride": 2, "refine.threshold": 0.951234, "seed": 1}
    assert describe(point) == "N 4, s 2, tau 0.9512, seed 1"
