"""Video-level metrics: mAP and F1 of whole videos."""

import numpy as np
import pytest

from distributed_avel.metrics.video import VIDEO_METRICS, video_metrics


def average_precision(labels_V, prob_V) -> float:
    """Mean, over the videos with the event, of the precision at their rank; no ties."""
    order = np.argsort(-prob_V)
    hits = labels_V[order]
    return float(np.mean([hits[: rank + 1].mean() for rank in np.flatnonzero(hits)]))


def test_map_and_f1_agree_with_loops():
    rng = np.random.default_rng(0)
    labels_VC = rng.random((40, 5)) < 0.3
    labels_VC[:, 4] = False  # a class that does not occur is not averaged
    prob_VC = rng.random((40, 5)).astype(np.float32)
    predicted_VC = prob_VC > 0.6

    metrics = video_metrics(labels_VC, prob_VC, predicted_VC)

    mean = np.mean([average_precision(labels_VC[:, c], prob_VC[:, c]) for c in range(4)])
    pairs = list(zip(labels_VC.ravel(), predicted_VC.ravel(), strict=True))
    correct = sum(label and predicted for label, predicted in pairs)
    f1 = 2 * correct / sum(int(label) + int(predicted) for label, predicted in pairs)
    assert metrics == pytest.approx({"video_map": 100 * mean, "video_f1": 100 * f1})


def test_a_perfect_prediction_scores_100_and_metrics_without_labels_are_undefined():
    labels_VC = np.eye(3, dtype=bool)
    nothing_VC = np.zeros((3, 3), dtype=bool)

    assert video_metrics(labels_VC, labels_VC, labels_VC) == dict.fromkeys(VIDEO_METRICS, 100.0)
    assert video_metrics(nothing_VC, nothing_VC, nothing_VC) == dict.fromkeys(VIDEO_METRICS)
    assert video_metrics(nothing_VC, labels_VC, labels_VC) == {"video_map": None, "video_f1": 0.0}


def test_f1_of_a_single_class_does_not_count_negatives():
    labels_V1 = np.array([[True], [False], [False], [False]])
    nothing_V1 = np.zeros((4, 1), dtype=bool)

    assert video_metrics(labels_V1, nothing_V1, nothing_V1)["video_f1"] == 0.0
    assert video_metrics(labels_V1, labels_V1, ~nothing_V1)["video_f1"] == 100 * 2 / 5
