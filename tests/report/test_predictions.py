"""Metrics and counts of the report page from the predictions of an evaluation."""

import numpy as np
import pyarrow as pa
import pytest

from distributed_avel.datasets import Span, Video, VideoSet
from distributed_avel.metrics.segment import metrics_of
from distributed_avel.report.page_data import Pictures
from distributed_avel.report.predictions import LocalizationPredictions
from distributed_avel.schema import predictions_schema
from distributed_avel.tasks import Localization
from distributed_avel.timeline import Timeline


def test_the_confusion_matrix_agrees_with_the_metrics_for_segments_with_several_events():
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

    judged = Localization(pooling="max", loss="soft_margin").judge(truth_VTK, prob_VTK)
    assert metrics_of(report.confusion["AVE"]) == pytest.approx(judged)
