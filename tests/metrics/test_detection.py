"""Event-level metrics against a loop that follows their definition, and worked examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.metrics.detection import (
    DETECTION_METRICS,
    MEAN_TIOUS,
    average_precision,
    detection_metrics,
    events_of,
)


def example(seed, num_videos=6, num_segments=8, num_classes=3):
    """Ground truth, predictions (one class per segment), and probabilities."""
    rng = np.random.default_rng(seed)
    shape = (num_videos, num_segments)
    one_hot = np.eye(num_classes + 1, dtype=bool)[:, :num_classes]
    truth_VTC = one_hot[
        np.repeat(rng.integers(0, num_classes + 1, shape), 2, axis=1)[:, :num_segments]
    ]
    predicted_VT = rng.integers(0, num_classes + 1, shape)
    mostly_right_VT = rng.random(shape) < 0.6
    predicted_VTC = np.where(mostly_right_VT[..., None], truth_VTC, one_hot[predicted_VT])
    return truth_VTC, predicted_VTC, rng.random(predicted_VTC.shape)


def runs(present_T):
    found, start = [], None
    for t, present in enumerate([*present_T, False]):
        if present and start is None:
            start = t
        elif not present and start is not None:
            found.append((start, t))
            start = None
    return found


def iou(a, b):
    both = len({*range(*a)} & {*range(*b)})
    return both / len({*range(*a)} | {*range(*b)})


def loop_map(truth_VTC, predicted_VTC, prob_VTC, tiou):
    """mAP as ActivityNet defines it, one class, one event and one recall at a time."""
    precisions = []
    for c in range(truth_VTC.shape[2]):
        true = {v: runs(truth_VTC[v, :, c]) for v in range(len(truth_VTC))}
        num_true = sum(map(len, true.values()))
        if not num_true:
            continue
        events = [
            (prob_VTC[v, a:b, c].mean(), v, (a, b))
            for v in range(len(truth_VTC))
            for a, b in runs(predicted_VTC[v, :, c])
        ]
        points, hits = [], 0
        for rank, (_, v, event) in enumerate(sorted(events, key=lambda e: -e[0]), start=1):
            best = max(true[v], key=lambda other: iou(event, other), default=None)
            if best is not None and iou(event, best) >= tiou - 1e-9:
                true[v].remove(best)
                hits += 1
            points.append((hits / num_true, hits / rank))
        area = 0.0
        for hit in range(1, hits + 1):
            area += max(p for recall, p in points if recall >= hit / num_true - 1e-12) / num_true
        precisions.append(area)
    return 100 * np.mean(precisions)


@pytest.mark.parametrize("seed", range(8))
def test_map_is_that_of_a_loop(seed):
    sample = example(seed)
    metrics = detection_metrics(*sample)
    assert [*metrics] == [*DETECTION_METRICS]
    for tiou in (0.3, 0.5, 0.7):
        assert metrics[f"map_{round(100 * tiou)}"][0] == pytest.approx(loop_map(*sample, tiou))
    mean = np.mean([loop_map(*sample, tiou) for tiou in MEAN_TIOUS])
    assert metrics["map_mean"][0] == pytest.approx(mean)


@pytest.mark.parametrize("seed", range(4))
def test_event_f1_is_that_of_a_loop(seed):
    truth_VTC, predicted_VTC, prob_VTC = example(seed)
    correct = num_true = num_predicted = detected = 0
    for v in range(len(truth_VTC)):
        for c in range(truth_VTC.shape[2]):
            true, made = runs(truth_VTC[v, :, c]), runs(predicted_VTC[v, :, c])
            num_true, num_predicted = num_true + len(true), num_predicted + len(made)
            correct += sum(any(iou(a, b) >= 0.5 for b in true) for a in made)
            detected += sum(any(iou(a, b) >= 0.5 for a in made) for b in true)
    expected = 200 * correct / (2 * correct + num_predicted - correct + num_true - detected)
    found = detection_metrics(truth_VTC, predicted_VTC, prob_VTC)["event_f1"]
    assert found == pytest.approx([expected])


@given(seed=st.integers(0, 1000))
def test_a_resample_has_the_metrics_of_the_videos_that_it_repeats(seed):
    sample = example(seed)
    drawn = np.random.default_rng(seed).integers(0, 6, size=6)
    weights_BV = np.bincount(drawn, minlength=6)[None].astype(float)

    weighted = detection_metrics(*sample, weights_BV)
    repeated = detection_metrics(*(array[drawn] for array in sample))

    assert weighted["event_f1"] == pytest.approx(repeated["event_f1"], nan_ok=True)
    for name in DETECTION_METRICS[1:]:
        # Copies of an event have equal confidence, and its copies follow it in both orders.
        assert weighted[name] == pytest.approx(repeated[name], nan_ok=True, abs=1e-9)


def test_a_perfect_prediction_has_100_and_a_constant_shift_loses_at_high_tiou():
    truth_VTC = np.zeros((1, 10, 1), dtype=bool)
    truth_VTC[0, 2:6, 0] = True
    perfect = detection_metrics(truth_VTC, truth_VTC, truth_VTC.astype(float))
    assert {name: values[0] for name, values in perfect.items()} == dict.fromkeys(
        DETECTION_METRICS, 100.0
    )
    shifted_VTC = np.roll(truth_VTC, 1, axis=1)  # IoU 3 / 5
    shifted = detection_metrics(truth_VTC, shifted_VTC, shifted_VTC.astype(float))
    assert [shifted[f"map_{t}"][0] for t in (30, 50, 70)] == [100, 100, 0]
    assert shifted["map_mean"][0] == pytest.approx(600 / 9)
    assert shifted["event_f1"][0] == 100


def test_an_unsure_false_positive_costs_nothing_and_a_sure_one_half():
    correct_N, ones_BN = np.array([True, False]), np.ones((1, 2))
    assert average_precision(correct_N, ones_BN, np.ones(1)) == [1.0]
    assert average_precision(correct_N[::-1], ones_BN, np.ones(1)) == [0.5]


def test_metrics_without_any_event_are_undefined():
    nothing_VTC = np.zeros((2, 4, 3), dtype=bool)
    metrics = detection_metrics(nothing_VTC, nothing_VTC, nothing_VTC.astype(float))
    assert all(np.isnan(values).all() for values in metrics.values())


def test_events_have_the_mean_probability_of_their_segments():
    present_VTC = np.array([[[True], [True], [False], [True]]])
    events = events_of(present_VTC, np.array([[[0.5], [1.0], [0.9], [0.25]]]))
    assert events.start_N.tolist() == [0, 3]
    assert events.end_N.tolist() == [2, 4]
    assert events.confidence_N.tolist() == [0.75, 0.25]
