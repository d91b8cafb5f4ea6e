"""Validation and test videos without times: what a run computes, and what it says is missing."""

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from distributed_avel.cluster.tracking import untracked
from distributed_avel.commands import main
from distributed_avel.config import validate
from distributed_avel.datasets import Span, Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.method.partners import PartnerPool
from distributed_avel.method.windows import score_synthetic
from distributed_avel.metrics.segment import SEGMENT_METRICS
from distributed_avel.metrics.video import VIDEO_METRICS, video_metrics
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.randomness import derive
from distributed_avel.stages import calibrate
from distributed_avel.stages.evaluate import Evaluate
from distributed_avel.stages.refine import read_window_scores
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import CURVES_FILE
from distributed_avel.tasks import Localization, Parsing
from distributed_avel.train.predict import segment_codes

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


def with_tau(root, **changes) -> Pipeline:
    """A run without times whose base model is trained well enough to tell modalities apart."""
    train = {"base_epochs": 12, "retrain_epochs": 2}
    return pipeline(root, **{"train": train, "arms": ["LR"], **changes})


@pytest.fixture(scope="module")
def refined(tmp_path_factory) -> Pipeline:
    run = with_tau(tmp_path_factory.mktemp("refined"))
    publish(run)
    return run


def test_without_times_tau_is_that_of_spliced_videos_and_the_results_say_so(refined):
    tau = refined.calibrate(False).manifest.threshold

    assert refined.refine(False).manifest.threshold is None
    assert refined.arm("LR").manifest.threshold == tau
    conditions = refined.report().results()["conditions"]
    assert conditions["tau"].endswith("because no validation video has times")
    page = (refined.run_dir / "report.html").read_bytes().decode()
    assert "copies of training videos of which one modality is replaced" in page
    asked = with_tau(refined.config.run_dir, refine={"threshold": "spliced"})
    assert asked.arm("LR").location == refined.arm("LR").location


def test_with_times_spliced_is_used_only_on_request(tmp_path):
    run = with_tau(tmp_path, times=12)

    run.arm("LR").ensure()

    assert not (run.run_dir / "calibrate").exists()
    assert run.arm("LR").manifest.threshold == run.refine(False).manifest.threshold


def test_the_copies_are_scored_with_one_modality_of_a_video_without_their_events(refined):
    """By a loop over a few videos, from raw features."""
    features, model = refined.features.store, refined.base(False).trained()().eval()
    training = refined.usable("train")
    pool = PartnerPool(
        refined.videos.video_labels(training), [v.uri for v in training], "event_free"
    )
    mask_WT = torch.from_numpy(refined.refine(False).windows_of(10))
    for video in [v for v in training if v.labels][::7]:
        label_K = refined.videos.video_labels([video])[0]

        def drawn(role: str, *more: int, video=video, label_K=label_K) -> Video:
            number = derive(refined.config.seed, "refine", role, video.video_id, *more)
            return training[pool.draw(label_K, video.uri, number)]

        partner, donor = drawn("partner", 0), drawn("donor")
        assert not {*donor.labels} & {*video.labels}
        audio, visual = features.read([video.video_id, donor.video_id, partner.video_id])
        for modality, copy in {
            "audio": (audio[1:2], visual[:1]),
            "visual": (audio[:1], visual[1:2]),
        }.items():
            codes, of_partner = (
                segment_codes(model, *given, device=torch.device("cpu"))
                for given in (copy, (audio[2:], visual[2:]))
            )
            with torch.no_grad():
                scores = score_synthetic(model, codes, of_partner, mask_WT)
                expected = refined.task.video_prob(model, scores).numpy() * label_K
            location = refined.calibrate(False).location / modality
            found = read_window_scores(location, [video.video_id])
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_without_times_screened_compares_steps_3_by_video_metrics(tmp_path):
    run = with_tau(tmp_path, refine={"threshold": "screened", "num_candidates": 2})

    run.arm("LR").ensure()

    manifest = run.screen(False).manifest
    assert manifest.criterion == VIDEO_METRICS
    assert len(manifest.candidates) == 2
    assert all(candidate.criterion is not None for candidate in manifest.candidates)


def test_a_base_model_that_tells_nothing_apart_is_an_error_with_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "USELESS", 1.1)
    run = with_tau(tmp_path, refine={"threshold": "spliced"})

    with pytest.raises(DatasetError, match=r"train Step 1 longer, or set refine\.threshold"):
        run.arm("LR").ensure()


def test_parsing_has_a_spliced_tau_for_each_modality(tmp_path):
    run = pipeline(
        tmp_path,
        dataset="synthetic_llp",
        model="han",
        arms=["LR", "MA"],
        refine={"partners": "disjoint"},
    )
    for arm in ("LR", "MA"):
        assert list(run.arm(arm).ensure().manifest.threshold) == ["heard", "seen"]


def test_a_parsing_model_trains_and_is_evaluated_without_times(tmp_path):
    run = pipeline(tmp_path, dataset="synthetic_llp", model="han", arms=["base"])

    publish(run)

    assert {tuple(of_arm) for of_arm in run.evaluate().metrics().values()} == {VIDEO_METRICS}
    assert "Video mAP" in (run.run_dir / "report.html").read_bytes().decode()


def test_uncertain_videos_without_times_become_tasks_and_come_back_as_times(
    mixed, tmp_path, capsys
):
    out, root = tmp_path / "project", tmp_path / "data"
    command = ["annotate-export", str(mixed.run_dir), "--out", str(out), "--n", "3"]

    assert main([*command, "--media", "/data/local-files/?d="]) == 0

    assert "3 of 6 test videos without times" in capsys.readouterr().out
    tasks = json.loads((out / "tasks.json").read_text())
    weak = [v.video_id for v in mixed.usable("test")[4:]]
    prob_VTK = scores(mixed.evaluate(), "AVE+LR_dummy")[4:].astype(float)
    entropy_V = -(prob_VTK * np.log(prob_VTK)).sum(axis=-1).mean(axis=-1)
    expected = [weak[row] for row in np.argsort(-entropy_V)[:3]]
    assert [t["data"]["video"] for t in tasks] == [f"/data/local-files/?d={v}" for v in expected]

    # An annotator who accepts the predictions, in a data set with these videos.
    events = [task["predictions"][0]["result"] for task in tasks]
    done = [{**t, "annotations": [{"result": r}]} for t, r in zip(tasks, events, strict=True)]
    (tmp_path / "done.json").write_text(json.dumps(done))
    root.mkdir()
    rows = [f"{v.video_id},test,{mixed.videos.classes[v.labels[0]]}" for v in mixed.usable("test")]
    (root / "videos.csv").write_text("\n".join(["uri,split,labels", *rows, ""]))
    assert main(["import-annotations", str(tmp_path / "done.json"), "--to", str(root)]) == 0
    table = list(csv.DictReader((root / "videos.csv").read_text().splitlines()))
    with_times = {row["uri"] for row in table if row["spans"]}
    assert with_times == {v for v, r in zip(expected, events, strict=True) if r}


def test_a_run_with_times_has_nothing_to_annotate(tmp_path, capsys):
    run = pipeline(tmp_path / "run", times=12, arms=["base"])
    publish(run)

    assert main(["annotate-export", str(run.run_dir), "--out", str(tmp_path / "out")]) == 2

    assert "all test videos have times" in capsys.readouterr().err


def video(labels: tuple[int, ...], spans: tuple[Span, ...] | None) -> Video:
    return Video(video_id="v", uri="v", split="test", labels=labels, spans=spans)


def test_event_free_videos_count_with_others_that_have_times_but_not_alone():
    task, free = Localization(pooling="max", loss="soft_margin"), video((), ())
    known, weak = video((0,), (Span(0, 0.0, 1.0),)), video((0,), None)

    assert task.annotated([free, known, weak]).tolist() == [True, True, False]
    assert task.annotated([free, weak]).tolist() == [False, False]
    assert task.annotated([free]).tolist() == [True]
    assert Parsing().annotated([known]).tolist() == [False]
