"""Segment metrics, compared with scikit-learn, a plain loop and the paper, and properties."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from distributed_avel.metrics.naive import repeat
from distributed_avel.metrics.segment import (
    SEGMENT_METRICS,
    confusion_matrix,
    metrics_of,
    one_label_per_segment,
    per_class_f1,
    segment_metrics,
)

AVE_SPANS = Path(__file__).parents[1] / "data" / "ave_test_spans.csv"

seeds = st.integers(0, 10_000)


def random_segments(seed, *, num_classes=4, videos=7, segments=5):
    """Draw ground truth and predictions that agree in about half of the segments."""
    rng = np.random.default_rng(seed)
    present = rng.integers(0, num_classes + 1, size=3)
    truth_VT = rng.choice(present, size=(videos, segments))
    guess_VT = rng.integers(0, num_classes + 1, size=(videos, segments))
    return truth_VT, np.where(rng.random((videos, segments)) < 0.5, truth_VT, guess_VT)


def dull_metrics(truth_VT, prediction_VT, num_classes):
    pairs = list(zip(truth_VT.ravel().tolist(), prediction_VT.ravel().tolist(), strict=True))

    def f1(recall, precision):
        if recall is None and precision is None:
            return None
        recall, precision = recall or 0.0, precision or 0.0
        return 2 * recall * precision / (recall + precision) if recall + precision else 0.0

    def share(of, among):
        among = [pair for pair in pairs if among(*pair)]
        return sum(of(*pair) for pair in among) / len(among) if among else None

    def right(truth, prediction):
        return truth == prediction

    non_recall = share(right, lambda truth, prediction: truth == num_classes)
    non_precision = share(right, lambda truth, prediction: prediction == num_classes)
    recall = share(right, lambda truth, prediction: truth != num_classes)
    precision = share(right, lambda truth, prediction: prediction != num_classes)
    weighted = 0.0
    for k in range(num_classes + 1):
        support = sum(truth == k for truth, _ in pairs)
        recall_k = share(right, lambda truth, prediction, k=k: truth == k)
        precision_k = share(right, lambda truth, prediction, k=k: prediction == k)
        weighted += support * (f1(recall_k, precision_k) or 0.0) / len(pairs)
    values = {
        "accuracy": share(right, lambda truth, prediction: True),
        "weighted_f1": weighted,
        "non_ave_f1": f1(non_recall, non_precision),
        "non_ave_recall": non_recall,
        "non_ave_precision": non_precision,
        "ave_f1": f1(recall, precision),
        "ave_recall": recall,
        "ave_precision": precision,
    }
    return {name: None if value is None else 100 * value for name, value in values.items()}


@given(seed=seeds)
def test_segment_metrics_equal_a_plain_loop(seed):
    truth_VT, prediction_VT = random_segments(seed)

    metrics = segment_metrics(truth_VT, prediction_VT, num_classes=4)

    assert tuple(metrics) == SEGMENT_METRICS
    assert metrics == pytest.approx(dull_metrics(truth_VT, prediction_VT, 4))


@given(seed=seeds)
def test_segment_metrics_equal_scikit_learn(seed):
    truth_VT, prediction_VT = random_segments(seed)
    flat = (truth_VT.ravel(), prediction_VT.ravel())
    events, every = list(range(4)), list(range(5))

    metrics = segment_metrics(truth_VT, prediction_VT, num_classes=4)

    def scores(labels, average):
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            *flat,
            labels=labels,
            average=average,
            zero_division=np.nan,  # pyright: ignore[reportArgumentType]
        )
        return 100 * f1, 100 * recall, 100 * precision

    def ours(*names):  # NaN in place of None, as scikit-learn returns for 0/0
        return [np.nan if metrics[name] is None else metrics[name] for name in names]

    assert metrics["accuracy"] == pytest.approx(100 * sklearn_metrics.accuracy_score(*flat))
    assert metrics["weighted_f1"] == pytest.approx(scores(every, "weighted")[0])
    ave = ours("ave_f1", "ave_recall", "ave_precision")
    assert ave == pytest.approx(scores(events, "micro"), nan_ok=True)
    non_ave = ours("non_ave_f1", "non_ave_recall", "non_ave_precision")
    assert non_ave == pytest.approx(scores([4], "micro"), nan_ok=True)

    confusion_KK = confusion_matrix(truth_VT, prediction_VT, 4)
    assert (confusion_KK == sklearn_metrics.confusion_matrix(*flat, labels=every)).all()
    assert per_class_f1(confusion_KK) == pytest.approx(scores(every, None)[0], nan_ok=True)


@given(seed=seeds, parts=st.integers(1, 4))
def test_confusion_matrices_of_shards_add_up_to_the_total(seed, parts):
    truth_VT, prediction_VT = random_segments(seed)
    shards = [
        confusion_matrix(truth_VT[part::parts], prediction_VT[part::parts], 4)
        for part in range(parts)
    ]

    whole = metrics_of(np.sum(shards, axis=0))

    assert whole == segment_metrics(truth_VT, prediction_VT, 4)


@given(seed=seeds)
def test_metrics_are_invariant_to_permutation_of_events(seed):
    truth_VT, prediction_VT = random_segments(seed)
    renamed_K = np.append(np.random.default_rng(seed).permutation(4), 4)

    renamed = segment_metrics(renamed_K[truth_VT], renamed_K[prediction_VT], 4)

    assert renamed == pytest.approx(segment_metrics(truth_VT, prediction_VT, 4))


@given(seed=seeds)
def test_the_ground_truth_scores_100_for_classes_that_occur(seed):
    truth_VT, _ = random_segments(seed)
    metrics = segment_metrics(truth_VT, truth_VT, 4)
    assert metrics["accuracy"] == metrics["weighted_f1"] == pytest.approx(100)
    assert metrics["ave_f1"] == (100 if (truth_VT < 4).any() else None)
    assert metrics["non_ave_f1"] == (100 if (truth_VT == 4).any() else None)


def test_a_wrong_event_lowers_ave_recall_and_precision_but_not_non_ave():
    truth = np.array([[0, 0, 1, 2, 2]])  # 2 is background
    prediction = np.array([[0, 1, 1, 1, 2]])
    metrics = segment_metrics(truth, prediction, num_classes=2)
    assert metrics["accuracy"] == pytest.approx(60)
    assert metrics["ave_recall"] == pytest.approx(100 * 2 / 3)  # of three event segments
    assert metrics["ave_precision"] == pytest.approx(50)  # of four called an event
    assert metrics["non_ave_recall"] == pytest.approx(50)
    assert metrics["non_ave_precision"] == pytest.approx(100)


def test_a_ratio_with_zero_denominator_is_undefined():
    """Worked example: only events in the ground truth and only background predicted, or no data."""
    background = np.full((1, 3), 2)
    metrics = segment_metrics(np.zeros((1, 3), int), background, num_classes=2)
    undefined = {name for name, value in metrics.items() if value is None}
    assert undefined == {"non_ave_recall", "ave_precision"}
    assert {value for value in metrics.values() if value is not None} == {0.0}
    empty = segment_metrics(np.zeros((0, 3), int), np.zeros((0, 3), int), num_classes=2)
    assert set(empty.values()) == {None}
    right = segment_metrics(np.zeros((1, 3), int), np.zeros((1, 3), int), num_classes=2)
    assert [right[f"non_ave_{name}"] for name in ("f1", "recall", "precision")] == [None] * 3


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([[0, 1]], [[0]], r"ground truth has shape \(1, 2\), but prediction has \(1, 1\)"),
        ([[0, 3]], [[0, 0]], r"truth must be in 0..2 \(background\), got 0..3"),
        ([[0, 1]], [[-1, 0]], "prediction must be in 0..2"),
        ([[0.0, 1.0]], [[0, 1]], "truth must contain class indices, got float64"),
    ],
)
def test_a_value_outside_the_classes_is_refused(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        segment_metrics(np.array(truth), np.array(prediction), num_classes=2)


def test_with_several_events_any_of_them_is_correct():
    #                        class 0      1      2  background
    labels_VTK = np.array([[[True, False, True, False],
                            [True, False, True, False],
                            [False, False, False, True]]])  # fmt: skip
    assert one_label_per_segment(labels_VTK, np.array([[2, 1, 0]])).tolist() == [[2, 0, 3]]


@given(seed=seeds)
def test_with_one_label_per_segment_the_truth_does_not_depend_on_the_prediction(seed):
    truth_VT, prediction_VT = random_segments(seed)
    one_hot_VTK = np.eye(5, dtype=bool)[truth_VT]
    assert (one_label_per_segment(one_hot_VTK, prediction_VT) == truth_VT).all()


def test_a_segment_without_any_label_is_refused():
    with pytest.raises(ValueError, match="background"):
        one_label_per_segment(np.zeros((1, 1, 3), dtype=bool), np.array([[0]]))


def ave_test_split():
    """Return AVE's test ground truth (402, 10) and each video's label; 28 is background."""
    with AVE_SPANS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["category"] for row in rows})
    assert len(classes) == 28
    truth_VT = np.full((len(rows), 10), 28)
    for segments_T, row in zip(truth_VT, rows, strict=True):
        segments_T[int(row["start"]) : int(row["end"])] = classes.index(row["category"])
    return truth_VT, np.array([classes.index(row["category"]) for row in rows])


def test_gt_repeat_on_ave_equals_the_paper():
    truth_VT, video_class_V = ave_test_split()
    assert truth_VT.size == 4020
    assert (truth_VT == 28).sum() == 715

    metrics = segment_metrics(truth_VT, repeat(video_class_V, 10), num_classes=28)

    assert round(metrics["accuracy"], 1) == 82.2
    assert metrics["non_ave_f1"] == metrics["non_ave_recall"] == 0
    assert metrics["non_ave_precision"] is None  # background is never predicted
    assert metrics["ave_recall"] == 100
    assert metrics["ave_precision"] == metrics["accuracy"]
    assert round(metrics["ave_f1"], 1) == 90.2
