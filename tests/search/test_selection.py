from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.errors import ConfigError
from distributed_avel.metrics.segment import SEGMENT_METRICS
from distributed_avel.search.selection import (
    StageUse,
    Trial,
    check_criterion,
    choose,
    count_stages,
    criterion,
    pareto_front,
    rank,
)

BOTH = ("accuracy", "non_ave_f1")


def trial(tau: float, accuracy: float, non_ave_f1: float, seed: int = 0) -> Trial:
    metrics = {"accuracy": accuracy, "non_ave_f1": non_ave_f1, "ave_f1": 99.0}
    return Trial(point={"refine.threshold": tau}, seed=seed, metrics=metrics)


def test_the_criterion_is_the_mean_of_its_metrics():
    assert criterion({"accuracy": 80.0, "non_ave_f1": 50.0, "ave_f1": 1.0}, BOTH) == 65.0
    assert criterion({"accuracy": 80.0, "non_ave_f1": 50.0}, ("accuracy",)) == 80.0


def test_an_unknown_metric_is_refused_with_the_list_of_metrics():
    check_criterion(BOTH, SEGMENT_METRICS)
    with pytest.raises(ConfigError, match=r"test_accuracy: no such metric; there are accuracy, "):
        check_criterion(("accuracy", "test_accuracy"), SEGMENT_METRICS)


def test_the_rank_does_not_depend_on_the_order_of_completion():
    trials = [trial(0.1, 80, 50), trial(0.2, 70, 60), trial(0.3, 60, 80), trial(0.4, 60, 60)]
    ranks = {
        tuple(c.point["refine.threshold"] for c in rank(p, BOTH)) for p in permutations(trials)
    }

    assert ranks == {(0.3, 0.1, 0.2, 0.4)}  # 0.1 and 0.2 are equal: the settings decide


def test_failed_and_stopped_trials_are_not_ranked():
    failed = Trial(point={"refine.threshold": 0.9}, seed=0, error="out of memory")
    stopped = Trial(point={"refine.threshold": 0.8}, seed=0)

    assert [c.point for c in rank([failed, trial(0.1, 1, 1), stopped], BOTH)] == [
        {"refine.threshold": 0.1}
    ]
    assert choose([failed, stopped], BOTH, 3) == []


def test_a_trial_with_an_undefined_criterion_is_not_chosen():
    undefined = Trial(
        point={"refine.threshold": 0.9}, seed=0, metrics={"accuracy": 100.0, "non_ave_f1": None}
    )
    assert criterion(undefined.metrics, BOTH) is None
    for trials in ([undefined, trial(0.1, 0, 0)], [trial(0.1, 0, 0), undefined]):
        assert [c.point["refine.threshold"] for c in choose(trials, BOTH, 3)] == [0.1]
    assert choose([undefined], BOTH, 3) == []


def test_a_point_with_one_seed_does_not_win_against_one_with_three():
    lucky = trial(0.9, 100, 100)
    steady = [trial(0.1, 80, 80 + seed, seed) for seed in range(3)]

    best = choose([lucky, *steady], BOTH, num_seeds=3)

    assert [c.point["refine.threshold"] for c in best] == [0.1]
    assert best[0].values == (80.0, 80.5, 81.0)
    assert (best[0].mean, best[0].sd) == (80.5, 0.5)


def test_a_failed_seed_does_not_prevent_a_choice():
    failed = Trial(point={"refine.threshold": 0.1}, seed=2, error="killed")
    trials = [trial(0.1, 80, 80, 0), trial(0.1, 80, 90, 1), failed, trial(0.2, 99, 99, 0)]

    assert choose(trials, BOTH, num_seeds=3)[0].point == {"refine.threshold": 0.1}


@given(
    st.lists(
        st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)),
        min_size=1,
        max_size=12,
    )
)
def test_the_front_contains_the_non_dominated_points(values):
    front = {values[i] for i in pareto_front(values)}

    by_hand = {
        a for a in values if not any(b[0] >= a[0] and b[1] >= a[1] and b != a for b in values)
    }
    assert front == by_hand


def test_shared_stages_and_their_time_count_once():
    trials = [
        Trial(
            point={"refine.window": n, "refine.threshold": tau},
            seed=0,
            metrics={},
            stages=(
                StageUse("base", f"b{n}", 100.0),
                StageUse("refine", f"f{n}", 10.0),
                StageUse("retrain", f"r{n}{tau}", 50.0),
            ),
        )
        for n in range(4)
        for tau in range(5)
    ]

    counts = {c.name: c for c in count_stages(trials)}

    assert {name: (c.used, c.different) for name, c in counts.items()} == {
        "base": (20, 4),
        "refine": (20, 4),
        "retrain": (20, 20),
    }
    assert sum(c.seconds for c in counts.values()) == 4 * 110 + 20 * 50
    assert sum(c.naive_seconds for c in counts.values()) == 20 * 160
