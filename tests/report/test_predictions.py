"""Metrics and counts of the report page from the predictions of an evaluation."""

import numpy as np
import pyarrow as pa
import pytest

from distributed_avel.datasets import Span, Video, VideoSet
from distributed_avel.metrics.detection import detection_metrics
from distributed_avel.metrics.parsing import parsing_metrics
from distributed_avel.metrics.segment import metrics_of, per_class_f1
from distributed_avel.report.page_data import Pictures
from distributed_avel.report.predictions import (
    LocalizationPredictions,
    ParsingPredictions,
    class_scores,
)
from distributed_avel.schema import parsing_predictions_schema, predictions_schema
from distributed_avel.tasks import Localization
from distributed_avel.timeline import Timeline


@pytest.fixture(scope="module")
def example():
    """Videos whose segments have several events, random probabilities, and their report."""
    rng = np.random.default_rng(0)
    videos = VideoSet(
        name="folder",
        classes=("bell", "cat", "dog"),
        timeline=Timeline(num_segments=10, segment_s=1.0),
        videos=tuple(
            Video(
                video_id=f"v{i}",
                uri=f"{i}.mp4",
                split="test",
                labels=(0, 1, 2),
                spans=tuple(Span(c, *sorted(rng.integers(0, 11, 2).tolist())) for c in range(3)),
            )
            for i in range(20)
        ),
        synthetic=False,
    )
    truth_VTK = videos.segment_labels(videos.videos)
    assert (truth_VTK.sum(axis=-1) > 1).any()
    prob_VTK = rng.random(truth_VTK.shape, dtype=np.float32)
    table = pa.table(
        {
            "arm": ["AVE"] * 200,
            "video_id": np.repeat([v.video_id for v in videos.videos], 10),
            "segment": np.tile(np.arange(10), 20),
            "truth": truth_VTK.argmax(axis=-1).ravel(),
            "prediction": prob_VTK.argmax(axis=-1).ravel(),
            "scores": prob_VTK.reshape(200, 4).tolist(),
        }
    ).cast(predictions_schema(3))

    report = LocalizationPredictions(table, videos).report(
        ["AVE"], 0, lambda _: Pictures(), results={}
    )
    return truth_VTK, prob_VTK, report


def test_the_confusion_matrix_agrees_with_the_metrics_for_segments_with_several_events(example):
    truth_VTK, prob_VTK, report = example
    judged = Localization(pooling="max", loss="soft_margin").judge(truth_VTK, prob_VTK)
    assert metrics_of(report.confusion["AVE"]) == pytest.approx(judged)


def test_intervals_surround_the_figures_of_the_table_and_events_are_those_of_the_labels(example):
    truth_VTK, prob_VTK, report = example
    judged = Localization(pooling="max", loss="soft_margin").judge(truth_VTK, prob_VTK)
    found = report.intervals["AVE"]
    for name in ("accuracy", "weighted_f1", "non_ave_f1", "ave_f1"):
        assert found[name].value == pytest.approx(judged[name])
    predicted_VTC = np.eye(4, dtype=bool)[prob_VTK.argmax(axis=-1)][..., :3]
    events = detection_metrics(truth_VTK[..., :3], predicted_VTC, prob_VTK[..., :3])
    assert found["map_50"].value == pytest.approx(events["map_50"][0])
    assert all(row.low <= row.value <= row.high for row in found.values())
    assert report.differences == {}
    assert report.chance == pytest.approx(100 * truth_VTK.mean(axis=(0, 1)).max())


def test_scores_of_classes_agree_with_the_confusion_matrix(example):
    confusion_KK = example[2].confusion["AVE"]
    rows = example[2].class_scores["AVE"]
    assert [row.name for row in rows] == ["bell", "cat", "dog", "background"]
    assert [row.support for row in rows] == confusion_KK.sum(axis=1).tolist()
    assert [row.f1 for row in rows] == pytest.approx(per_class_f1(confusion_KK))


def test_a_class_that_neither_occurs_nor_is_predicted_has_no_scores():
    (bell, cat) = class_scores(np.array([0, 0]), np.array([0, 0]), ["bell", "cat"])
    assert (bell.precision, bell.recall, bell.f1) == (100, 100, 100)
    assert (cat.support, cat.precision, cat.recall, cat.f1) == (0, None, None, None)


def test_parsing_has_intervals_around_its_metrics_and_scores_for_each_modality():
    rng = np.random.default_rng(0)
    videos = VideoSet(
        name="folder",
        classes=("bell", "cat"),
        timeline=Timeline(num_segments=4, segment_s=1.0),
        videos=tuple(
            Video(video_id=f"v{i}", uri="", split="test", labels=(0,), spans=None)
            for i in range(12)
        ),
        synthetic=False,
    )
    events = rng.random((4, 48, 2)) < 0.4  # truth heard and seen, predictions heard and seen
    lists = [[np.flatnonzero(row).tolist() for row in part] for part in events]
    scores = [[0.5, 0.5]] * 48
    table = pa.table(
        {
            "arm": ["HAN"] * 48,
            "video_id": np.repeat([v.video_id for v in videos.videos], 4),
            "segment": np.tile(np.arange(4), 12),
            "truth_heard": lists[0],
            "truth_seen": lists[1],
            "heard": lists[2],
            "seen": lists[3],
            "heard_scores": scores,
            "seen_scores": scores,
        }
    ).cast(parsing_predictions_schema(2))

    report = ParsingPredictions(table, videos).report(["HAN"], 0, lambda _: Pictures(), results={})

    expected = parsing_metrics(*(part.reshape(12, 4, 2) for part in events))
    values = {name: found.value for name, found in report.intervals["HAN"].items()}
    assert values == pytest.approx(expected)
    rows = report.class_scores["HAN"]
    assert [row.name for row in rows] == ["bell heard", "cat heard", "bell seen", "cat seen"]
    assert [row.support for row in rows] == events[:2].sum(axis=1).ravel().tolist()
