"""Parsing metrics, compared with AVVP's evaluation script, a plain loop and worked examples."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.metrics.parsing import (
    LEVELS,
    PARSING_METRICS,
    TYPES,
    event_counts,
    parsing_metrics,
    per_class_f1,
    segment_counts,
    video_f_scores,
)

DATA = Path(__file__).parents[1] / "data"

seeds = st.integers(0, 10_000)


def one_class(*rows):
    """Make one video with one class for each string; "#" marks segments with the event."""
    return np.array([[[mark == "#"] for mark in row] for row in rows])


def random_events(seed, *, videos=4, segments=6, classes=3):
    """Draw ground truth and predictions of both modalities; about half of the classes are empty."""
    rng = np.random.default_rng(seed)
    some = rng.random((4, videos, segments, classes)) < 0.6
    return some & (rng.random((4, videos, 1, classes)) < 0.5)


def dull_events(present_T):
    """Return the events of a row as sets of segments."""
    events, run = [], set()
    for segment, present in enumerate([*present_T, False]):
        if present:
            run.add(segment)
        elif run:
            events.append(run)
            run = set()
    return events


def dull_counts(level, truth_T, prediction_T):
    if level == "segment":
        true = {t for t, present in enumerate(truth_T) if present}
        predicted = {t for t, present in enumerate(prediction_T) if present}
        return len(true & predicted), len(predicted - true), len(true - predicted)

    def found(event, others):
        return any(2 * len(event & other) >= len(event | other) for other in others)

    true, predicted = dull_events(truth_T), dull_events(prediction_T)
    right = sum(found(event, true) for event in predicted)
    return right, len(predicted) - right, sum(not found(event, predicted) for event in true)


def dull_f(level, pairs_of_classes):
    """F-score of one video; for each class, the (truth, prediction) rows whose counts are added."""
    scores = []
    for pairs in pairs_of_classes:
        right, invented, missed = np.sum([dull_counts(level, *pair) for pair in pairs], axis=0)
        if right + invented + missed:
            scores.append(2 * right / (2 * right + invented + missed))
    return sum(scores) / len(scores) if scores else 1.0


def dull_metrics(truth_audio, truth_visual, audio, visual):
    classes = range(audio.shape[2])
    metrics = {}
    for level in LEVELS:
        a = [[[(truth_audio[v, :, c], audio[v, :, c])] for c in classes] for v in range(len(audio))]
        w = [
            [[(truth_visual[v, :, c], visual[v, :, c])] for c in classes] for v in range(len(audio))
        ]
        both_truth, both = truth_audio & truth_visual, audio & visual
        b = [[[(both_truth[v, :, c], both[v, :, c])] for c in classes] for v in range(len(audio))]
        pooled = [
            [pa + pw for pa, pw in zip(video_a, video_w, strict=True)]
            for video_a, video_w in zip(a, w, strict=True)
        ]
        f_a, f_v, f_av, f_event = (
            100 * sum(dull_f(level, video) for video in videos) / len(videos)
            for videos in (a, w, b, pooled)
        )
        values = (f_a, f_v, f_av, (f_a + f_v + f_av) / 3, f_event)
        metrics |= {f"{level}_{kind}": value for kind, value in zip(TYPES, values, strict=True)}
    return metrics


def test_metrics_equal_the_public_evaluation_script():
    stored = np.load(DATA / "parity" / "avvp_metrics.npz")
    names = ("true_audio", "true_visual", "pred_audio", "pred_visual")
    arrays = [stored[name].transpose(0, 2, 1) for name in names]  # stored as (V, C, T)

    scores = video_f_scores(*arrays)
    metrics = parsing_metrics(*arrays)

    for level in LEVELS:
        audio_V, visual_V, both_V, pooled_V = scores[level]
        computed_V4 = np.stack([audio_V, visual_V, pooled_V, both_V], axis=1)
        np.testing.assert_allclose(computed_V4, stored[f"{level}_f1"], rtol=0, atol=1e-12)
        table = [metrics[f"{level}_{kind}"] for kind in TYPES]
        np.testing.assert_allclose(table, stored[f"{level}_table"], rtol=0, atol=1e-10)


@given(seed=seeds)
def test_parsing_metrics_equal_a_plain_loop(seed):
    arrays = random_events(seed)
    metrics = parsing_metrics(*arrays)
    assert tuple(metrics) == PARSING_METRICS
    assert metrics == pytest.approx(dull_metrics(*arrays))


@given(seed=seeds)
def test_the_ground_truth_scores_100_and_metrics_are_symmetric_in_modalities(seed):
    truth_audio, truth_visual, audio, visual = random_events(seed)
    exact = parsing_metrics(truth_audio, truth_visual, truth_audio, truth_visual)
    assert exact == pytest.approx(dict.fromkeys(PARSING_METRICS, 100))

    metrics = parsing_metrics(truth_audio, truth_visual, audio, visual)
    swapped = parsing_metrics(truth_visual, truth_audio, visual, audio)
    for level in LEVELS:
        assert swapped[f"{level}_a"] == metrics[f"{level}_v"]
        assert swapped[f"{level}_av"] == metrics[f"{level}_av"]
        assert swapped[f"{level}_event"] == pytest.approx(metrics[f"{level}_event"])


@given(seed=seeds)
def test_metrics_do_not_depend_on_the_direction_of_time(seed):
    arrays = random_events(seed)
    assert parsing_metrics(*arrays[:, :, ::-1]) == pytest.approx(parsing_metrics(*arrays))


def test_a_video_without_any_event_scores_100_if_none_is_predicted():
    silence, event = one_class("...."), one_class(".#..")
    assert parsing_metrics(silence, silence, silence, silence) == dict.fromkeys(
        PARSING_METRICS, 100
    )
    metrics = parsing_metrics(silence, silence, event, silence)
    assert metrics["segment_a"] == metrics["segment_event"] == 0
    assert metrics["segment_v"] == metrics["segment_av"] == 100


@pytest.mark.parametrize(
    ("truth", "prediction", "right", "invented", "missed"),
    [
        ("####...", "##.....", 1, 0, 0),  # 2 of 4 is just enough
        ("#####..", "##.....", 0, 1, 1),  # 2 of 5 is not
        ("####...", "..####.", 0, 1, 1),  # 2 of 6
        ("#######", "####.##", 1, 1, 0),  # the long one is right, the short one a false positive
        ("##.##..", "#####..", 0, 1, 2),  # two events bridged by one: 2 of 5 each
        (".......", "#.#.#.#", 0, 4, 0),
        ("#......", "......#", 0, 1, 1),
    ],
)
def test_an_event_matches_if_it_overlaps_by_half(truth, prediction, right, invented, missed):
    counts = event_counts(one_class(truth), one_class(prediction))
    assert [count.item() for count in counts] == [right, invented, missed]


@given(seed=seeds)
def test_true_positives_equal_the_number_of_matched_true_events(seed):
    truth_VTC, _, prediction_VTC, _ = random_events(seed, segments=10)
    counts = event_counts(truth_VTC, prediction_VTC)
    for video, class_ in np.ndindex(counts.true_positive_VC.shape):
        num_true = len(dull_events(truth_VTC[video, :, class_]))
        found = num_true - counts.missed_VC[video, class_]
        assert counts.true_positive_VC[video, class_] == found


def test_audio_visual_events_are_the_intersection_of_both_modalities():
    heard, seen = one_class("####...."), one_class("..####..")
    metrics = parsing_metrics(heard, seen, one_class("########"), one_class("########"))
    assert metrics["segment_av"] == pytest.approx(100 * 2 * 2 / (2 + 8))


def test_arrays_of_different_shapes_are_refused():
    event = one_class("##")
    with pytest.raises(ValueError, match="one shape"):
        parsing_metrics(event, event, event, one_class("###"))
    with pytest.raises(ValueError, match="one shape"):
        parsing_metrics(*np.zeros((4, 0, 2, 1), dtype=bool))


def read_rows(name):
    with (DATA / "llp" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def llp_test_split():
    """Audio and visual ground truth of LLP's test split, and repeated weak labels, (V, T, C)."""
    videos = read_rows("AVVP_test_pd.csv")
    labels = [video["event_labels"].split(",") for video in videos]
    classes = sorted({label for video_labels in labels for label in video_labels})
    row_of = {video["filename"]: row for row, video in enumerate(videos)}
    shape = (len(videos), 10, len(classes))

    truth = []
    for modality in ("audio", "visual"):
        present_VTC = np.zeros(shape, dtype=bool)
        for event in read_rows(f"AVVP_eval_{modality}.csv"):
            if event["filename"] not in row_of:
                continue  # belongs to the validation split
            span = slice(int(event["onset"]), int(event["offset"]))
            label = classes.index(event["event_labels"])
            present_VTC[row_of[event["filename"]], span, label] = True
        truth.append(present_VTC)

    weak_VTC = np.zeros(shape, dtype=bool)
    for repeated_TC, video_labels in zip(weak_VTC, labels, strict=True):
        repeated_TC[:, [classes.index(label) for label in video_labels]] = True
    return *truth, weak_VTC


def test_repeated_weak_labels_of_llp_give_the_recorded_table():
    heard_VTC, seen_VTC, weak_VTC = llp_test_split()
    assert weak_VTC.shape == (1200, 10, 25)

    metrics = parsing_metrics(heard_VTC, seen_VTC, weak_VTC, weak_VTC)

    rounded = {name: round(value, 1) for name, value in metrics.items()}
    #                     A     V    AV  Type Event
    segment = dict(zip(TYPES, (76.1, 60.3, 52.6, 63.0, 71.7), strict=True))
    event = dict(zip(TYPES, (63.0, 55.8, 44.7, 54.5, 61.6), strict=True))
    assert {kind: rounded[f"segment_{kind}"] for kind in TYPES} == segment
    assert {kind: rounded[f"event_{kind}"] for kind in TYPES} == event
    assert metrics == pytest.approx(dull_metrics(heard_VTC, seen_VTC, weak_VTC, weak_VTC))


def test_per_class_f1_adds_the_counts_of_all_videos():
    truth_VTC, prediction_VTC = one_class("##..", "#..."), one_class("#.#.", "#...")
    assert per_class_f1(segment_counts(truth_VTC, prediction_VTC)) == pytest.approx([200 * 2 / 6])
    nowhere_VTC = one_class("....")
    assert np.isnan(per_class_f1(segment_counts(nowhere_VTC, nowhere_VTC))).tolist() == [True]
