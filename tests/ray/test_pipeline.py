"""A small pipeline on real mp4 files, a real Ray cluster and a real MLflow store."""

import json
import re
import shutil
from urllib.parse import unquote

import numpy as np
import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from distributed_avel import load_model
from distributed_avel.artifacts import Artifact
from distributed_avel.config import RunConfig, validate
from distributed_avel.errors import ArtifactError, ConfigError
from distributed_avel.metrics.segment import SEGMENT_METRICS, segment_metrics
from distributed_avel.pipeline import STAGES
from distributed_avel.run import open_pipeline, run_pipeline, run_refine
from distributed_avel.storage import Location
from tests.ray.stores import store_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500), pytest.mark.usefixtures("ray_cluster")]

ARMS = ["GT-repeat", "AVE", "AVE-repeat", "AVE+A", "AVE+A+LR"]


def settings(root, **changes) -> RunConfig:
    """Settings of a small run: 44 videos, 2 epochs, fixed tau."""
    values = {
        "run_dir": str(root / "run"),
        "data": {"demo": {"num_train": 16, "num_event_free": 4, "num_val": 8, "num_test": 16}},
        "model": {"hidden_size": 8},
        "train": {"base_epochs": 2, "retrain_epochs": 2, "report_every": 1, "cpus_per_worker": 1},
        "refine": {"threshold": 0.5, "num_actors": 1},
        "report": {"num_timelines": 10},
        "tracking": {"uri": store_in(root)},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return validate(values, "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster):
    """The root folder of a finished run."""
    root = tmp_path_factory.mktemp("pipeline")
    run_pipeline(settings(root))
    return root


def done_markers(root) -> dict[str, int]:
    """Return the time at which each stage of a run was finished, by path."""
    run = root / "run"
    return {str(p.relative_to(run)): p.stat().st_mtime_ns for p in run.glob("*/*/DONE")}


def test_every_arm_is_evaluated_on_the_test_split(finished):
    results = json.loads((finished / "run" / "results.json").read_text())

    assert sorted(results["arms"]) == sorted(ARMS)
    for metrics in results["arms"].values():
        assert sorted(metrics) == sorted(SEGMENT_METRICS)
        assert all(value is None or 0 <= value <= 100 for value in metrics.values())
    assert results["dataset"] == "demo"
    assert results["synthetic"] is True
    assert (results["threshold"], results["window"], results["stride"]) == (0.5, 4, 2)
    assert (results["num_test_videos"], results["num_test_videos_lost"]) == (16, 0)


def test_the_results_agree_with_the_stored_predictions(finished):
    results = json.loads((finished / "run" / "results.json").read_text())
    table = Location.at(finished / "run" / "predictions.parquet").read_table()

    for arm in ARMS:
        rows = table.filter(pc.field("arm") == arm)
        assert rows.num_rows == 16 * 10
        truth, prediction = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
        scores = np.array(rows["scores"].to_pylist())
        assert (scores.argmax(axis=1) == prediction).all()
        np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-5)
        assert segment_metrics(truth, prediction, scores.shape[1] - 1) == results["arms"][arm]


def test_the_model_folder_reproduces_the_predictions_of_the_run(finished):
    """Predictions from the media files are equal to the last bit."""
    table = Location.at(finished / "run" / "predictions.parquet").read_table()
    table = table.filter(pc.field("arm") == "AVE+A+LR")
    videos = sorted({*table["video_id"].to_pylist()})
    files = [next((finished / "run").rglob(f"{video}.mp4")) for video in videos]
    model = load_model(finished / "run" / "model")

    found = [prediction for _, prediction in model.predict_all(files)]

    for video, prediction in zip(videos, found, strict=True):
        rows = table.filter(pc.field("video_id") == video).sort_by("segment")
        scores_TK = np.array(rows["scores"].to_pylist(), dtype=np.float32)
        np.testing.assert_array_equal(prediction.probabilities, scores_TK)
        assert (prediction.predicted.argmax(axis=1) == rows["prediction"].to_numpy()).all()


def test_gt_repeat_predicts_no_background(finished):
    arms = json.loads((finished / "run" / "results.json").read_text())["arms"]

    for name in ("GT-repeat", "AVE-repeat"):  # neither ever predicts background
        assert arms[name]["non_ave_f1"] == 0
        assert arms[name]["non_ave_precision"] is None
    assert arms["GT-repeat"]["ave_recall"] == 100


def test_the_report_shows_the_timelines_with_their_frames(finished):
    page = (finished / "run" / "report.html").read_text()

    assert page.count("data:image/jpeg") >= 10 * 10
    assert "AVE+A+LR" in page
    assert "synthetic" in page


def test_the_published_page_finds_the_media_files_from_the_run_directory(finished):
    page = (finished / "run" / "report.html").read_text()

    (root,) = re.findall(r'data-media-root="([^"]+)"', page)
    data = json.loads(re.search(r'id="video-data">(.*?)</script>', page)[1])
    paths = [finished / "run" / unquote(root + media) for *_, media in data["videos"]]
    assert paths
    assert all(path.is_file() for path in paths)


def test_mlflow_has_a_parent_run_and_a_child_for_each_stage(finished):
    client = MlflowClient(f"sqlite:///{finished}/mlflow.db")
    experiment = client.get_experiment_by_name("distributed_avel")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    children = [run for run in runs if MLFLOW_PARENT_RUN_ID in run.data.tags]

    assert [parent.info.status for parent in parents] == ["FINISHED"]
    assert {run.info.run_name for run in children} == {*STAGES} - {"calibrate", "screen"}
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in children} == {parents[0].info.run_id}
    assert parents[0].data.params["refine.window"] == "4"
    assert parents[0].data.tags["git_commit"]
    assert parents[0].data.tags["data_fingerprint"]
    assert "AVE-A-LR/accuracy" in parents[0].data.metrics
    assert "GT-repeat/accuracy" in parents[0].data.metrics
    assert "GT-repeat/non_ave_precision" not in parents[0].data.metrics  # undefined
    assert {f.path for f in client.list_artifacts(parents[0].info.run_id)} >= {
        "config.json",
        "report.html",
        "results.json",
    }
    retrain = next(run for run in children if run.info.run_name == "retrain")
    curve = client.get_metric_history(retrain.info.run_id, "train/refinement")
    assert [point.step for point in curve] == [0, 1]
    files = {file.path for file in client.list_artifacts(retrain.info.run_id)}
    assert "model.safetensors" in files
    report = next(run for run in children if run.info.run_name == "report")
    files = {file.path for file in client.list_artifacts(report.info.run_id)}
    assert files >= {"report.html", "results.csv", "confusion_AVE.svg"}


def test_a_rerun_computes_nothing(finished):
    before = done_markers(finished)

    run_pipeline(settings(finished))

    assert done_markers(finished) == before


def test_a_changed_setting_recomputes_the_stages_that_depend_on_it(finished, capsys):
    before = done_markers(finished)

    run_pipeline(settings(finished, refine={"threshold": 0.9}))

    made = {path.split("/")[0] for path in done_markers(finished).keys() - before.keys()}
    assert made == {"retrain", "evaluate", "report"}
    assert "settings.threshold was 0.5, is 0.9" in capsys.readouterr().err


def test_a_single_stage_names_the_command_that_must_run_before(finished):
    config = settings(finished, train={"base_epochs": 3})

    with pytest.raises(ArtifactError, match=r"run `avel train-base` with the same"):
        run_refine(config)


def test_wrong_names_are_refused_together_before_anything_starts(tmp_path):
    config = settings(
        tmp_path, model={"name": "avee"}, data={"dataset": "aves"}, extract={"extractor": "vgg"}
    )

    with pytest.raises(ConfigError) as caught:
        run_pipeline(config)

    assert {line.split(":")[0] for line in str(caught.value).splitlines()} == {
        "data.dataset",
        "extract.extractor",
        "model.name",
    }
    assert not (tmp_path / "run").exists()


def test_pseudo_labels_do_not_depend_on_the_number_of_actors(finished, tmp_path):
    def window_scores(config: RunConfig) -> dict[str, tuple[tuple[str, ...], bytes]]:
        with open_pipeline(config, STAGES) as pipeline:
            stage = pipeline.refine(auxiliary=True).ensure()
        tables = [part.read_table() for part in (stage.location / "scores").children()]
        return {
            row["video_id"]: (tuple(row["partners"]), np.float32(row["scores"]).tobytes())
            for table in tables
            for row in table.to_pylist()
        }

    one = settings(finished, refine={"num_actors": 1})
    with open_pipeline(one, STAGES) as pipeline:
        base = pipeline.base(auxiliary=True).ensure()
        features, data = pipeline.features, pipeline.data
    copied = settings(tmp_path, refine={"num_actors": 3, "unit_size": 5})
    for stage in (base, features, data):
        copy_stage(stage.artifact, Location.at(copied.resolved_run_dir))

    assert window_scores(one) == window_scores(copied)


def copy_stage(stage: Artifact, run_dir: Location) -> None:
    """Copy the finished result of a stage to another run directory."""
    target = run_dir / stage.name / stage.fingerprint
    shutil.copytree(stage.location.path, target.path)
