"""The report page of a run, from its predictions and the results of its stages."""

import re
from collections import defaultdict

import numpy as np
import pytest

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.report.page_data import Pictures
from distributed_avel.report.predictions import ParsingPredictions
from distributed_avel.stages.cache_keys import NEUTRAL
from distributed_avel.stages.evaluate import PREDICTIONS
from distributed_avel.stages.report import REPORT
from distributed_avel.stages.stage import Execution

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def parsing_run(tmp_path_factory):
    config = validate(
        {
            "run_dir": str(tmp_path_factory.mktemp("run")),
            "arms": ["base", "MA"],
            "data": {
                "dataset": "synthetic_llp",
                "synthetic_llp": {
                    "num_train": 40, "num_event_free": 0, "num_val": 20, "num_test": 20},
            },
            "model": {"name": "han", "hidden_size": 4},
            "train": {"base_epochs": 2, "retrain_epochs": 2},
            "report": {"num_timelines": 20},
        },
        "test",
    )  # fmt: skip
    run = Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))
    publish(run)
    return run


def test_the_page_of_a_parsing_run_has_audio_and_visual_lanes(parsing_run):
    text = (parsing_run.run_dir / REPORT).read_bytes().decode()
    assert "<h1>Audio-visual video parsing on synthetic_llp</h1>" in text
    names = re.findall(r'<span class="name">([^<]*?) ?<', text)
    each = [
        "ground truth heard",
        "ground truth seen",
        "HAN heard",
        "HAN seen",
        "HAN+MA heard",
        "HAN+MA seen",
        "",
    ]
    assert names == each * 20
    assert "Pseudo-labels of whole modalities of HAN+MA" in text
    for metric in ("Loss (training)", "Segment Type@AV (validation)", "Event Type@AV (validation)"):
        assert f">{metric}</text>" in text
    files = {path.name for path in parsing_run.report().location.children()}
    assert {"f1_heard.svg", "f1_seen.svg", "thresholds_seen.svg", "results.csv"} <= files


def test_reading_parsing_predictions_equals_a_loop_over_rows(parsing_run):
    table = (parsing_run.evaluate().location / PREDICTIONS).read_table()
    predictions = ParsingPredictions(table, parsing_run.videos)
    rows = [row for row in table.to_pylist() if row["arm"] == "HAN"]

    truth_VMTC, events_VMTC = predictions.of_arm("HAN")

    by_video = defaultdict(lambda: np.zeros((2, *truth_VMTC.shape[1:]), dtype=bool))
    for row in rows:
        for modality, name in enumerate(("heard", "seen")):
            by_video[row["video_id"]][0, modality, row["segment"], row[f"truth_{name}"]] = True
            by_video[row["video_id"]][1, modality, row["segment"], row[name]] = True
    assert predictions.video_ids == list(by_video)
    np.testing.assert_array_equal(np.stack([truth_VMTC, events_VMTC], 1), [*by_video.values()])


def test_timelines_start_with_videos_whose_events_do_not_last_throughout(parsing_run):
    table = (parsing_run.evaluate().location / PREDICTIONS).read_table()
    predictions = ParsingPredictions(table, parsing_run.videos)
    report = predictions.report(["HAN"], 20, lambda *_: Pictures(), results={})
    said = [
        bool((video.truth_MTC == video.truth_MTC.any(axis=(0, 1))).all())
        for video in report.timelines
    ]
    assert said == sorted(said)
    assert {True, False} == set(said)


NEVER_SHOWN = [
    ("data", "root"),
    ("extract", "num_actors"),
    ("extract", "gpus_per_actor"),
    ("refine", "num_actors"),
    ("refine", "gpus_per_actor"),
    ("train", "report_every"),
    ("tracking", "uri"),
]


def test_the_page_omits_settings_that_reused_stages_may_not_share(parsing_run, tmp_path):
    """A cached page would show the old value, and a new page a value that was not used."""
    page = (parsing_run.report().location / REPORT).read_bytes().decode()
    values = parsing_run.config.model_dump(mode="json")
    values["data"]["root"] = str(tmp_path)
    values["extract"]["num_actors"] = values["refine"]["num_actors"] = 3
    values["train"]["report_every"] = 2  # of the epochs; the weights are those of the last one
    values["tracking"]["uri"] = str(tmp_path / "mlflow")
    other = Pipeline(
        validate(values, "test"), untracked(), execution=Execution(in_process=True, quiet=True)
    )

    shown = dict(
        re.findall(r"<li><span>([^<]*)</span><span><code>([^<]*)</code></span></li>", page)
    )
    assert {name.partition(".")[0] for name in shown} >= {"model", "train", "refine", "data"}
    assert shown["train.batch_size"] == str(parsing_run.config.train.batch_size)
    hidden = {f"{section}.{name}" for section, name in NEVER_SHOWN} | {*NEUTRAL}
    assert not {name for name in shown if name in hidden or name.split(".")[0] in NEUTRAL}
    assert other.report().fingerprint == parsing_run.report().fingerprint
    assert other.features.fingerprint == parsing_run.features.fingerprint


def test_the_page_compares_the_base_model_with_the_arm_whose_windows_it_shows(tmp_path):
    config = validate(
        {
            "run_dir": str(tmp_path),
            "arms": ["LR", "base", "PL"],
            "data": {
                "dataset": "synthetic",
                "synthetic": {"num_train": 20, "num_event_free": 4, "num_val": 8, "num_test": 8},
            },
            "model": {"hidden_size": 4},
            "train": {"base_epochs": 1, "retrain_epochs": 1},
            "refine": {"threshold": 0.3},
        },
        "test",
    )
    run = Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))

    publish(run)

    text = (run.run_dir / REPORT).read_bytes().decode()
    assert "From AVE to AVE+LR, on the test split" in text
    assert re.findall(r"<h3>(AVE[^<]*)</h3>", text) == ["AVE", "AVE+LR"]  # confusion matrices
    lanes = re.findall(r'<span class="name">(AVE[^ <]*)', text)
    assert lanes == ["AVE", "AVE+PL", "AVE+LR"] * 8
