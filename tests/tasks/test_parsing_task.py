"""Steps 1 to 3 for parsing, compared with loops over single videos and raw features."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distributed_avel.arms import ARMS, arm_label
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import ModelConfig, TrainConfig, validate
from distributed_avel.datasets import Span, Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.method.windows import exchange_modality
from distributed_avel.models import ParsingModel
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.retrain import pseudo_labels_of
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import (
    CURVES_FILE,
    WEIGHTS,
    Watch,
    better_checkpoint,
    kept_validation,
    learning_rate,
)
from distributed_avel.tasks import Localization, Parsing, WindowCounts, task_of
from distributed_avel.tasks.parsing import modality_targets
from distributed_avel.timeline import Timeline
from distributed_avel.train.batches import Batch, worker_batches
from distributed_avel.train.objectives import Objective
from distributed_avel.train.predict import segment_codes
from tests.models.examples import features, small_model
from tests.models.noisy_or import NAME as SECOND
from tests.models.noisy_or import noisy_or_registered
from tests.train.examples import NUM_CLASSES, WINDOWS, plan, training_set

STARTS, WINDOW = (0, 2, 4, 6), 4
TASK = Parsing()
MODELS = ["han", SECOND]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Register a second parsing model, which `tasks/` does not know."""
    with noisy_or_registered():
        yield


def one_batch(*, partners: bool, windows: bool) -> Batch:
    """Make a batch of videos with up to three events; the second half of the columns is visual."""
    rng = np.random.default_rng(4)
    videos = training_set(9, partners="disjoint" if partners else None)
    weak_VC = rng.random((9, NUM_CLASSES)) < 0.4
    windows_VWK = rng.random((9, len(STARTS), 2 * NUM_CLASSES)) < 0.4
    videos = replace(
        videos,
        labels_VK=np.concatenate([weak_VC, weak_VC], axis=1),
        window_labels_VWK=windows_VWK if windows else None,
        background=False,
    )
    batches = worker_batches(videos, plan(batch_size=5), rank=0, num_workers=1, dtype=torch.float64)
    return next(batches)


def bce(prob: Tensor, targets: Tensor) -> Tensor:
    return nn.BCELoss()(prob.clamp(1e-7, 1 - 1e-7), targets.double())


def three_losses(model: ParsingModel, scores: Tensor, heard_C: Tensor, seen_C: Tensor) -> Tensor:
    """Losses of the logits of one bag of segments: video, audio and visual."""
    prob = model.video_prob(scores)
    return bce(prob.heard, heard_C) + bce(prob.seen, seen_C) + bce(prob.either, heard_C | seen_C)


def naive_losses(model: ParsingModel, batch: Batch) -> dict[str, Tensor]:
    losses: dict[str, list[Tensor]] = {"mil": [], "auxiliary": [], "refinement": []}
    for video in range(batch.num_videos):
        scores = model(batch.audio_NTD[[video]], batch.visual_NTRD[[video]])[0]
        heard_C, seen_C = batch.labels_BK[video].chunk(2)
        prob = model.video_prob(scores)
        smooth_C = 0.9 * seen_C.double() + 0.1 * 0.5
        losses["mil"].append(
            bce(prob.heard, heard_C) + bce(prob.seen, smooth_C) + bce(prob.either, heard_C)
        )
        if batch.union_BK is not None and batch.partner_B is not None:
            partner = batch.num_videos + int(batch.partner_B[video])
            probs = []
            for start in STARTS:
                audio, visual = batch.audio_NTD[partner].clone(), batch.visual_NTRD[partner].clone()
                inside = slice(start, start + WINDOW)
                audio[inside] = batch.audio_NTD[video, inside]
                visual[inside] = batch.visual_NTRD[video, inside]
                probs.append(model.video_prob(model(audio[None], visual[None])[0]))
            most = [torch.stack(of).amax(0) for of in zip(*probs, strict=True)]
            heard_C, seen_C = batch.union_BK[video].chunk(2)
            wanted = (heard_C | seen_C, heard_C, 0.9 * seen_C.double() + 0.1 * 0.5)
            losses["auxiliary"].append(sum(map(bce, most, wanted), torch.zeros(())))
        if batch.window_labels_BWK is not None:
            labels_WK = batch.window_labels_BWK[video]
            each = [
                three_losses(model, scores[s : s + WINDOW], *labels_K.chunk(2))
                for s, labels_K in zip(STARTS, labels_WK, strict=True)
            ]
            losses["refinement"].append(torch.stack(each).mean())
    return {name: torch.stack(values) for name, values in losses.items() if values}


def gradients(parameters: list[nn.Parameter], losses: dict[str, Tensor]) -> Tensor:
    total = torch.stack([loss_B.sum() for loss_B in losses.values()]).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("partners", "windows"), [(True, False), (False, True)])
def test_losses_and_gradients_equal_the_loop(name, partners, windows):
    model, batch = small_model(name, torch.float64), one_batch(partners=partners, windows=windows)
    parameters = list(model.parameters())

    ours = Objective(model, WINDOWS, TASK)(batch)
    naive = naive_losses(model, batch)

    assert ours.keys() == naive.keys()
    for name, expected_B in naive.items():
        torch.testing.assert_close(ours[name], expected_B, rtol=0, atol=1e-12)
    grads = [gradients(parameters, losses) for losses in (ours, naive)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)
    assert grads[0].abs().max() > 1e-3


def test_label_smoothing_changes_the_loss():
    model, batch = small_model("han", torch.float64), one_batch(partners=False, windows=False)
    scores = model(batch.audio_NTD, batch.visual_NTRD)

    losses = [
        Parsing(visual_smoothing=s).mil_loss(model, scores, batch.labels_BK) for s in (0.1, 0.0)
    ]

    assert (losses[0] - losses[1]).abs().min() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_exchanging_codes_equals_exchanging_the_features_of_a_modality(name):
    model, batch = small_model(name, torch.float64), one_batch(partners=True, windows=False)
    audio, visual = batch.audio_NTD, batch.visual_NTRD
    own, other = slice(0, 2), slice(2, 4)

    with torch.no_grad():
        codes = model.encode(audio, visual)
        shared_BWK = TASK.exchanged_prob(model, codes[own], codes[other])
        own_sound = model.video_prob(model(audio[own], visual[other]))
        own_pictures = model.video_prob(model(audio[other], visual[own]))

    naive_BK = torch.cat(
        [torch.maximum(p.heard, p.seen) for p in (own_sound, own_pictures)], dim=-1
    )
    assert shared_BWK.shape == (2, 1, 2 * NUM_CLASSES)
    torch.testing.assert_close(shared_BWK[:, 0], naive_BK, rtol=0, atol=1e-12)
    unchanged_BMTD = exchange_modality(codes[own], codes[own])
    torch.testing.assert_close(unchanged_BMTD[:, 0], codes[own])
    torch.testing.assert_close(unchanged_BMTD[:, 1], codes[own])


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_an_event_not_predicted_for_the_video_is_in_no_segment(name):
    model = small_model(name)
    codes = model.encode(*features(8))
    scores = model.score(codes)
    present = model.video_prob(scores).either >= 0.5
    assert present.any()
    assert not present.all()

    predicted = TASK.segment_prob(model, codes).unflatten(-1, (2, NUM_CLASSES))

    for video in range(8):
        for event in range(NUM_CLASSES):
            expected = model.segment_prob(scores)[video, ..., event]
            if not present[video, event]:
                expected = torch.zeros_like(expected)
            assert torch.equal(predicted[video, ..., event], expected)


def test_an_event_found_in_neither_modality_is_kept_in_both():
    weak = np.array([[True, True, True, False] * 2])
    shown = np.array([[True, False, False, False, True, True, False, False]])

    targets_VK = modality_targets(shown, weak)

    assert targets_VK.astype(int).tolist() == [[1, 0, 1, 0, 1, 1, 1, 0]]


def two_videos() -> VideoSet:
    """Two videos: one with an audio-only and a visual event, one without events."""
    barks, drum = Span(0, 1.0, 3.0), Span(1, 0.0, 4.0)
    first = Video(
        video_id="a",
        uri="a",
        split="test",
        labels=(0, 1),
        spans=(),
        audio_spans=(barks,),
        visual_spans=(drum,),
    )
    second = replace(first, video_id="b", labels=(), audio_spans=(), visual_spans=())
    return VideoSet(
        name="two",
        classes=("bark", "drum"),
        timeline=Timeline(num_segments=4, segment_s=1.0),
        videos=(first, second),
        synthetic=True,
    )


def test_columns_are_audio_events_then_visual_events():
    videos = two_videos()

    targets_VK = TASK.targets(videos, videos.videos)
    truth_VTK = TASK.truth(videos, videos.videos)

    assert targets_VK.astype(int).tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert truth_VTK[0].astype(int).T.tolist() == [
        [0, 1, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 1, 1, 1],
    ]
    assert set(TASK.judge(truth_VTK, truth_VTK.astype(np.float32)).values()) == {100.0}
    assert TASK.background_share(truth_VTK.astype(np.float32)) == 0.5
    counts = TASK.count_windows(targets_VK, truth_VTK.any(axis=1, keepdims=True))
    assert counts == WindowCounts(
        videos=1, of_events=1, background=0, of_class=[2, 2], kept_of_class=[1, 1]
    )


def test_tau_is_expanded_to_the_columns_of_each_modality():
    both = TASK.threshold_by_column({"heard": 0.2, "seen": 0.7}, 4)
    one = TASK.threshold_by_column(0.3, 4)
    of_localization = Localization("max", "soft_margin").threshold_by_column(0.3, 3)

    assert both.tolist() == [0.2, 0.2, 0.7, 0.7]
    assert one.tolist() == [0.3] * 4
    assert of_localization.tolist() == [0.3] * 3


def test_the_task_follows_from_the_model():
    train = TrainConfig(visual_smoothing=0.2, loss="soft_margin")

    assert task_of(ModelConfig(name="han"), train) == Parsing(visual_smoothing=0.2)
    assert task_of(ModelConfig(name="psp"), train) == Localization("mean", "soft_margin")
    assert task_of(ModelConfig(name="psp", pooling="max"), train).pooling == "max"


def small_run(root: Path, watch: Watch | None = None, **changes) -> Pipeline:
    """Make a pipeline of HAN on a small synthetic data set, in this process."""
    values = {
        "run_dir": str(root),
        "arms": ["LR", "MA"],
        "data": {
            "dataset": "synthetic_llp",
            "synthetic_llp": {"num_train": 60, "num_val": 30, "num_test": 20},
        },
        "model": {"name": "han", "hidden_size": 4},
        "train": {"base_epochs": 3, "retrain_epochs": 3},
        "refine": {"partners": "disjoint"},
        **changes,
    }
    execution = Execution(in_process=True, quiet=True, watch=watch)
    return Pipeline(validate(values, "test"), untracked(), execution=execution)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Pipeline:
    """A finished run with two arms."""
    run = small_run(tmp_path_factory.mktemp("han"))
    for stage in run.arms().values():
        stage.ensure()
    return run


def test_a_second_parsing_model_runs_through_all_steps_with_its_own_pooling(tmp_path):
    """The predictions of its base model equal a loop that pools by hand."""
    arms = ["base", "A", "LR_alone", "LR_dummy", "PL", "A+LR", "MA"]
    run = small_run(tmp_path, arms=arms, model={"name": SECOND, "hidden_size": 4})
    metrics = run.evaluate().ensure().metrics()
    assert {arm_label(SECOND, arm) for arm in arms} <= metrics.keys()
    assert all(np.isfinite([*row.values()]).all() for row in metrics.values())

    videos = run.usable("test")
    arrays = FeatureStore(run.features.location).read([video.video_id for video in videos])
    model = run.base(False).trained()().eval()
    audio_VTD, visual_VTRD = (torch.from_numpy(array).float() for array in arrays)
    table = run.evaluate().predictions().to_pylist()
    rows = [row for row in table if row["arm"] == arm_label(SECOND, "base")]
    num_absent = 0
    for number, video in enumerate(videos):
        with torch.no_grad():
            scores_TCM = model(audio_VTD[[number]], visual_VTRD[[number]])[0]
            prob_TCM = (scores_TCM * model.sharpness[:, None]).sigmoid()
        shown = [row for row in rows if row["video_id"] == video.video_id]
        for class_ in range(run.videos.num_classes):
            heard, seen = (float(prob_TCM[:, class_, of].max()) for of in (0, 1))
            in_video = 1 - (1 - heard) * (1 - seen) >= 0.5
            num_absent += not in_video
            for t, row in enumerate(shown):
                for of, modality in enumerate(("heard", "seen")):
                    prob = float(prob_TCM[t, class_, of]) if in_video else 0.0
                    assert row[f"{modality}_scores"][class_] == pytest.approx(prob, abs=1e-5)
                    assert (class_ in row[modality]) == (prob >= 0.5)
    assert 0 < num_absent < len(videos) * run.videos.num_classes


@pytest.mark.parametrize("arm", ["LR", "MA"])
def test_tau_is_chosen_for_each_modality(finished, arm):
    manifest, scored = finished.arm(arm).manifest, ARMS[arm].scored

    assert manifest.threshold == finished.refine(False, scored).manifest.threshold
    assert set(manifest.threshold) == {"heard", "seen"}
    assert all(0 < tau < 1 for tau in manifest.threshold.values())


def test_arm_ma_removes_a_label_from_a_modality_below_tau(finished):
    training = finished.usable("train")
    scores_V1K = finished.refine(False, "exchanged").scores(training)
    scores_VK = scores_V1K[:, 0]
    num_classes = scores_VK.shape[1] // 2
    halves = np.split(scores_VK, 2, axis=1)
    tau = {
        part: float(np.median(half[half > 0]))
        for part, half in zip(("heard", "seen"), halves, strict=True)
    }

    labels_V1K, facts = pseudo_labels_of(
        finished.task, finished.videos, training, scores_V1K, tau, "exchanged"
    )

    restored = 0
    for video, labels_K, scores_K in zip(training, labels_V1K[:, 0], scores_VK, strict=True):
        for class_ in range(num_classes):
            heard = scores_K[class_] >= tau["heard"]
            seen = scores_K[num_classes + class_] >= tau["seen"]
            if class_ not in video.labels:
                expected = (False, False)
            elif heard or seen:
                expected = (heard, seen)
            else:
                expected, restored = (True, True), restored + 2
            assert (labels_K[class_], labels_K[num_classes + class_]) == expected
    assert facts.windows is not None
    assert facts.windows.restored == restored
    assert 0 < labels_V1K.sum() < sum(2 * len(v.labels) for v in training)


def test_step_3_of_arm_ma_trains_on_the_removed_labels(finished, tmp_path):
    """At a tau that keeps every label, Step 3 trains on the weak labels and gives another model."""
    everything = small_run(tmp_path, refine={"partners": "disjoint", "threshold": 1e-6})

    chosen, weak = (run.arm("MA").ensure().location / WEIGHTS for run in (finished, everything))

    assert chosen.read_bytes() != weak.read_bytes()


def test_a_resumed_training_keeps_its_best_epoch(tmp_path):
    """The learning rate is so high that the best epoch is not the last one."""
    train = {
        "base_epochs": 9,
        "keep": "best",
        "report_every": 1,
        "learning_rate": 0.05,
        "lr_decay": 0.5,
        "lr_decay_epochs": 3,
    }

    def kill(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_run(tmp_path / "killed", kill, train=train, seed=2).base(False).ensure()
    resumed = small_run(tmp_path / "killed", train=train, seed=2)
    whole = small_run(tmp_path / "whole", train=train, seed=2)
    weights = [
        (run.base(False).ensure().location / WEIGHTS).read_bytes() for run in (resumed, whole)
    ]

    assert weights[0] == weights[1]
    kept = kept_validation(whole.base(False).location, whole.task, "best")
    rows = (whole.base(False).location / CURVES_FILE).read_table().to_pylist()
    values = [row["value"] for row in rows if row["metric"] == "val/segment_type"]
    assert kept["segment_type"] == max(values) > values[-1]
    assert max(values) in values[:7]  # so the best one was found before the kill
    validation = whole.usable("val")
    features = FeatureStore(whole.features.location).read([v.video_id for v in validation])
    model = whole.base(False).trained()()
    codes = segment_codes(model, *features, device=torch.device("cpu"))
    with torch.no_grad():
        prob_VTK = whole.task.segment_prob(model, codes).numpy()
    truth_VTK = whole.task.truth(whole.videos, validation)
    assert whole.task.judge(truth_VTK, prob_VTK) == pytest.approx(kept)


def test_the_later_of_equally_good_epochs_is_kept():
    model = nn.Linear(1, 1, bias=False)
    best = None
    for value, weight in [(1.0, 0.1), (3.0, 0.2), (2.0, 0.3), (3.0, 0.4), (2.5, 0.5)]:
        nn.init.constant_(model.weight, weight)
        best = better_checkpoint(best, model, value)

    assert best is not None
    assert best["value"] == 3.0
    assert float(best["model"]["weight"]) == pytest.approx(0.4)


def test_the_learning_rate_decays_after_a_fixed_number_of_epochs():
    config = TrainConfig(learning_rate=1.0, lr_decay=0.1, lr_decay_epochs=10)

    rates = [learning_rate(config, epoch) for epoch in (0, 9, 10, 19, 20)]

    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_videos_without_annotated_modalities_are_refused_before_extraction(tmp_path):
    sizes = {"num_train": 4, "num_event_free": 1, "num_val": 2, "num_test": 2}
    run = small_run(tmp_path, data={"dataset": "synthetic", "synthetic": sizes})

    with pytest.raises(DatasetError, match=r"val_0000 \(val\): no separate annotations"):
        run.base(False).ensure()

    assert not (tmp_path / "extract").exists()


def test_the_best_epoch_needs_validation_videos(tmp_path):
    run = small_run(tmp_path, train={"base_epochs": 1, "keep": "best"})
    left = [v for v in run.videos.videos if v.split != "val"]
    vars(run.data)["videos"] = replace(run.videos, videos=tuple(left))

    with pytest.raises(DatasetError, match="no validation video has features"):
        run.base(False).ensure()
