"""Validation and test videos without times: what a run computes, and what it says is missing."""

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.datasets import Span, Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.metrics.segment import SEGMENT_METRICS
from distributed_avel.metrics.video import VIDEO_METRICS, video_metrics
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.stages.evaluate import Evaluate
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import CURVES_FILE
from distributed_avel.tasks import Localization, Parsing

pytestmark = pytest.mark.timeout(200)


def pipeline(root, *, times: int = 0, dataset="synthetic_easy", model="ave", **changes) -> Pipeline:
    """A run whose validation and test videos have no times, except the first `times` of each."""
    section, event_free = (dataset, 0) if dataset == "synthetic_llp" else ("synthetic", 4)
    sizes = {"num_train": 24, "num_event_free": event_free, "num_val": 12, "num_test": 10}
    values = {
        "run_dir": str(root),
        "arms": ["base", "LR_dummy"],
        "data": {"dataset": dataset, section: sizes},
        "model": {"name": model, "hidden_size": 4},
        "train": {"base_epochs": 3, "retrain_epochs": 1, "report_every": 1, "keep": "best"},
        **changes,
    }
    execution = Execution(in_process=True, quiet=True)
    run = Pipeline(validate(values, "test"), untracked(), execution=execution)
    run.features.ensure()
    vars(run.data)["videos"] = without_times(run.videos, times)
    return run


def without_times(videos: VideoSet, times: int) -> VideoSet:
    kept = {v.video_id for split in ("val", "test") for v in videos.split(split)[:times]}
    weak = (
        v if v.video_id in kept else replace(v, spans=None, audio_spans=None, visual_spans=None)
        for v in videos.videos
    )
    return replace(videos, videos=tuple(weak))


@pytest.fixture(scope="module")
def weak(tmp_path_factory) -> Pipeline:
    run = pipeline(tmp_path_factory.mktemp("weak"))
    publish(run)
    return run


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Pipeline:
    run = pipeline(tmp_path_factory.mktemp("mixed"), times=4)
    publish(run)
    return run


def scores(evaluation: Evaluate, arm: str) -> np.ndarray:
    rows = evaluation.predictions().filter(pc.field("arm") == arm)
    column = rows["scores"].combine_chunks()
    return column.values.to_numpy().reshape(-1, 10, column.type.list_size)


def test_without_times_a_run_has_the_video_metrics_of_its_predictions_and_no_others(weak):
    metrics = weak.evaluate().metrics()
    prob_VTK = scores(weak.evaluate(), "AVE")
    labels_VC = weak.videos.video_labels(weak.usable("test"))[:, :-1]
    classes_VT = prob_VTK.argmax(axis=-1)
    predicted_VC = (classes_VT[..., None] == np.arange(labels_VC.shape[1])).any(axis=1)

    assert {tuple(of_arm) for of_arm in metrics.values()} == {VIDEO_METRICS}
    expected = video_metrics(labels_VC, prob_VTK.max(axis=1)[:, :-1], predicted_VC)
    assert metrics["AVE"] == pytest.approx(expected)
    assert metrics["GT-repeat"] == dict.fromkeys(VIDEO_METRICS, 100.0)
    assert weak.evaluate().predictions()["truth"].null_count == len(metrics) * 10 * 10


def test_without_times_the_best_epoch_has_the_best_map_on_validation(weak):
    rows = (weak.base(False).location / CURVES_FILE).read_table().to_pylist()
    values = [row["value"] for row in rows if row["metric"] == "val/video_map"]

    assert len(values) == 3
    assert weak.base(False).validation_metrics()["video_map"] == max(values)


def test_without_times_results_page_and_model_card_say_what_is_absent(weak):
    said = "absent, because none of 10 test videos has the times of its events: Accuracy, "

    assert weak.report().results()["conditions"]["segment metrics"].startswith(said)
    assert weak.report().results()["num_test_videos_with_times"] == 0
    assert said in (weak.run_dir / "report.html").read_bytes().decode()
    assert said in (weak.run_dir / "model" / "README.md").read_bytes().decode()


def test_some_times_give_segment_metrics_of_their_videos_and_video_metrics_of_all(mixed):
    metrics = mixed.evaluate().metrics()
    with_times = mixed.usable("test")[:4]

    expected = mixed.task.judge(
        mixed.task.truth(mixed.videos, with_times), scores(mixed.evaluate(), "AVE")[:4]
    )
    assert tuple(metrics["AVE"]) == (*SEGMENT_METRICS, *VIDEO_METRICS)
    assert {name: metrics["AVE"][name] for name in SEGMENT_METRICS} == pytest.approx(expected)
    said = "of 4 of 10 test videos: 4 with the times of their events, 0 without an event"
    assert said in mixed.report().results()["conditions"]["segment metrics"]
    truth = mixed.evaluate().predictions()["truth"].slice(0, 100)
    assert truth.is_valid().to_pylist() == [True] * 40 + [False] * 60


def test_tau_needs_times_and_the_error_names_the_remedies(tmp_path):
    run = pipeline(tmp_path, arms=["LR"])

    with pytest.raises(DatasetError, match=r"no validation video has the times .* annotate some"):
        run.retrain(False).ensure()


def test_a_parsing_model_trains_and_is_evaluated_without_times(tmp_path):
    run = pipeline(tmp_path, dataset="synthetic_llp", model="han", arms=["base"])

    publish(run)

    assert {tuple(of_arm) for of_arm in run.evaluate().metrics().values()} == {VIDEO_METRICS}
    assert "Video mAP" in (run.run_dir / "report.html").read_bytes().decode()


def video(labels: tuple[int, ...], spans: tuple[Span, ...] | None) -> Video:
    return Video(video_id="v", uri="v", split="test", labels=labels, spans=spans)


def test_event_free_videos_count_with_others_that_have_times_but_not_alone():
    task, free = Localization(pooling="max", loss="soft_margin"), video((), ())
    known, weak = video((0,), (Span(0, 0.0, 1.0),)), video((0,), None)

    assert task.annotated([free, known, weak]).tolist() == [True, True, False]
    assert task.annotated([free, weak]).tolist() == [False, False]
    assert task.annotated([free]).tolist() == [True]
    assert Parsing().annotated([known]).tolist() == [False]
