"""Definition of each ablation arm: recorded labels and first-epoch losses equal a naive loop.

The runs are real but tiny. The loop over videos, windows and segments builds every (synthetic)
video from raw features, one at a time and in fp64. From the results of Steps 1 to 3 it takes only
the weights of the base model and the partners that were drawn. A batch contains all videos, so the
losses of the first epoch are those of the initial weights. tau is the median of the window
probabilities, so it removes about half of the window labels.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import multilabel_soft_margin_loss

from distributed_avel.arms import ARMS
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.datasets import Video
from distributed_avel.features.store import FeatureStore
from distributed_avel.models import BaseModel
from distributed_avel.pipeline import Pipeline
from distributed_avel.randomness import derive
from distributed_avel.schema import tensor_array
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import CURVES_FILE, TARGETS_FILE
from distributed_avel.tasks import SegmentCounts

pytestmark = pytest.mark.timeout(200)

T, N, STARTS = 10, 4, (0, 2, 4, 6)
WINDOWS = [range(start, start + N) for start in STARTS]


def tiny_run(root, tau: float, *, model: str, dataset: str, arms: list[str]) -> Pipeline:
    sizes = {"num_train": 40, "num_event_free": 6, "num_val": 8, "num_test": 8}
    config = validate(
        {
            "run_dir": str(root),
            "arms": arms,
            "data": {"dataset": dataset, dataset: sizes},
            "model": {"name": model, "hidden_size": 4},
            "train": {
                "base_epochs": 6,
                "retrain_epochs": 1,
                "batch_size": 64,
                "loss": "soft_margin",
                "visual_smoothing": 0.0,
            },
            "refine": {"threshold": tau, "window": N, "stride": 2},
        },
        "test",
    )
    return Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))


def trained_run(root, scored, **settings) -> Pipeline:
    """Train all arms, with tau at the median of the window probabilities of labelled events."""
    first = tiny_run(root, 0.5, **settings)
    training = first.usable("train")
    scores_VWK = first.refine(False, scored).ensure().scores(training)
    events = scores_VWK[..., : first.videos.num_classes]
    pipeline = tiny_run(root, float(np.median(events[events > 0])), **settings)
    for stage in pipeline.arms().values():
        stage.ensure()
    return pipeline


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Pipeline:
    """All arms of the AVE model on synthetic features, with and without events."""
    root = tmp_path_factory.mktemp("meanings")
    arms = [arm for arm in ARMS if not ARMS[arm].needs_modalities]
    return trained_run(root, "refined", model="ave", dataset="synthetic", arms=arms)


@pytest.fixture(scope="module")
def parsing_run(tmp_path_factory) -> Pipeline:
    """Arms `base` and `MA` of HAN on synthetic features for parsing."""
    root = tmp_path_factory.mktemp("parsing")
    arms: list[str] = ["base", "MA"]
    return trained_run(root, "exchanged", model="han", dataset="synthetic_llp", arms=arms)


def recorded(run: Pipeline, arm: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the targets that a training recorded, by column, then by video."""
    table = (run.arm(arm).location / TARGETS_FILE).read_table()
    ids = table["video_id"].to_pylist()
    assert ids == [video.video_id for video in run.usable("train")]
    return {
        name: dict(zip(ids, tensor_array(table[name]), strict=True))
        for name in table.column_names
        if name != "video_id"
    }


def first_losses(run: Pipeline, arm: str) -> dict[str, float]:
    """Return the losses of the first epoch, each a mean over the videos."""
    rows = (run.arm(arm).location / CURVES_FILE).read_table().to_pylist()
    return {
        row["metric"].removeprefix("train/"): row["value"]
        for row in rows
        if row["epoch"] == 0 and row["metric"].startswith("train/")
    }


def base_model(run: Pipeline, *, auxiliary: bool = False) -> BaseModel:
    """Return the base model after Step 1, in fp64."""
    return run.base(auxiliary).trained()().double().eval()


def initial_model(run: Pipeline, stage: str) -> BaseModel:
    """Return the model before the first optimizer step of a training, in fp64."""
    torch.manual_seed(derive(run.config.seed, stage, "weights"))
    return run.base(False).untrained()().double().eval()


def features(run: Pipeline, video_id: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the audio (T, D) and visual (T, R, D) features of a video, in fp64."""
    audio, visual = FeatureStore(run.features.location).read([video_id])
    return torch.from_numpy(audio[0]).double(), torch.from_numpy(visual[0]).double()


def synthetic_video(run: Pipeline, own: str, partner: str, window: range):
    """Eq. 9: raw features of the video inside the window and of its partner outside it."""
    audio, visual = (array.clone() for array in features(run, partner))
    own_audio, own_visual = features(run, own)
    for t in window:
        audio[t], visual[t] = own_audio[t], own_visual[t]
    return audio, visual


@torch.no_grad()
def segment_scores(model: BaseModel, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """Return the logits (T, K) of one video."""
    return model(audio[None], visual[None])[0]


def video_label(run: Pipeline, video: Video) -> list[float]:
    """Y: the events of the video, or background if there is none."""
    label = [1.0 if k in video.labels else 0.0 for k in range(run.videos.num_classes)]
    return [*label, 0.0 if video.labels else 1.0]


def window_label(run: Pipeline, video: Video, probabilities: torch.Tensor) -> list[float]:
    """Eqs. 10 and 11: events of the video that reach tau, or background if none does."""
    tau = run.config.refine.threshold
    assert isinstance(tau, float)
    label = [
        1.0 if k in video.labels and float(probabilities[k]) >= tau else 0.0
        for k in range(run.videos.num_classes)
    ]
    return [*label, 0.0 if any(label) else 1.0]


def g(pooled_K: torch.Tensor, target: list[float]) -> float:
    """The paper's video-level loss, computed by torch."""
    prob_1K = pooled_K.softmax(dim=0)[None]
    return float(multilabel_soft_margin_loss(prob_1K, torch.tensor([target]).double()))


def pooled(scores_TK: torch.Tensor, segments: range) -> torch.Tensor:
    """Eq. 6: the maximum over the segments."""
    return torch.stack([scores_TK[t] for t in segments]).max(dim=0).values


def drawn_partners(run: Pipeline, *, auxiliary: bool) -> dict[str, str]:
    """Return the partner of each video in Step 2."""
    out = run.refine(auxiliary, "refined").location / "scores"
    rows = [row for part in out.children() for row in part.read_table().to_pylist()]
    return {row["video_id"]: row["partners"][0] for row in rows}


def check_first_losses(run: Pipeline, arm: str, stage: str) -> None:
    """Compare L_MIL and, with window labels, L_LR (eqs. 7, 12, 13) of the recorded targets."""
    model, targets, num_videos = initial_model(run, stage), recorded(run, arm), 0
    mil = refinement = 0.0
    for video in run.usable("train"):
        scores_TK = segment_scores(model, *features(run, video.video_id))
        mil += g(pooled(scores_TK, range(T)), targets["video"][video.video_id].tolist())
        if "windows" in targets:
            labels_WK = targets["windows"][video.video_id]
            losses = [
                g(pooled(scores_TK, window), label_K.tolist())
                for window, label_K in zip(WINDOWS, labels_WK, strict=True)
            ]
            refinement += sum(losses) / len(losses)
        num_videos += 1
    found = first_losses(run, arm)
    assert found["mil"] == pytest.approx(mil / num_videos, rel=1e-5)
    if "windows" in targets:
        assert set(found) == {"mil", "refinement", "total"}
        assert found["refinement"] == pytest.approx(refinement / num_videos, rel=1e-5)


def test_arm_base_trains_on_video_level_labels(run):
    targets = recorded(run, "base")

    assert list(targets) == ["video"]
    for video in run.usable("train"):
        assert targets["video"][video.video_id].tolist() == video_label(run, video)
    check_first_losses(run, "base", "base")
    assert set(first_losses(run, "base")) == {"mil", "total"}


def test_arm_a_adds_the_auxiliary_loss_on_the_union_of_both_videos_labels(run):
    """Eqs. 15 to 18: pool within each synthetic video, then across; the target is L(i) or L(j)."""
    training = run.usable("train")
    event_free = [video for video in training if not video.labels]
    with_event = [video for video in training if video.labels]
    model, auxiliary = initial_model(run, "base+A"), 0.0

    for video in training:
        number = derive(run.config.seed, "base+A", "partner", 0, video.video_id)
        candidates = event_free if video.labels else with_event
        partner = candidates[number % len(candidates)]
        assert not set(video.labels) & set(partner.labels)
        of_windows = [
            pooled(
                segment_scores(
                    model, *synthetic_video(run, video.video_id, partner.video_id, window)
                ),
                range(T),
            )
            for window in WINDOWS
        ]
        events = {*video.labels, *partner.labels}
        union = [1.0 if k in events else 0.0 for k in range(run.videos.num_classes)]
        auxiliary += g(torch.stack(of_windows).max(dim=0).values, [*union, float(not events)])

    found = first_losses(run, "A")
    assert set(found) == {"mil", "auxiliary", "total"}
    assert found["auxiliary"] == pytest.approx(auxiliary / len(training), rel=1e-5)
    assert list(recorded(run, "A")) == ["video"]
    check_first_losses(run, "A", "base+A")


@pytest.mark.parametrize("arm", ["LR", "A+LR"])
def test_arm_lr_trains_on_events_that_reach_tau_in_windows_with_a_partner_video(run, arm):
    auxiliary = arm == "A+LR"
    model, targets = base_model(run, auxiliary=auxiliary), recorded(run, arm)
    partners = drawn_partners(run, auxiliary=auxiliary)
    labels_of = {video.video_id: set(video.labels) for video in run.usable("train")}

    assert list(targets) == ["video", "windows"]
    kept = 0.0
    for video in run.usable("train"):
        partner = partners[video.video_id]
        assert bool(labels_of[partner]) != bool(video.labels)  # event-free, or of an event-free
        assert targets["video"][video.video_id].tolist() == video_label(run, video)
        for window, label_K in zip(WINDOWS, targets["windows"][video.video_id], strict=True):
            made = synthetic_video(run, video.video_id, partner, window)
            prob_K = pooled(segment_scores(model, *made), range(T)).softmax(dim=0)
            assert label_K.tolist() == window_label(run, video, prob_K)
            kept += label_K[:-1].sum()
    if arm == "LR":
        assert 0 < kept < len(WINDOWS) * sum(len(labels) for labels in labels_of.values())
    check_first_losses(run, arm, "retrain")


def test_arm_lr_alone_trains_on_events_that_reach_tau_in_windows_of_the_original_video(run):
    model, targets = base_model(run), recorded(run, "LR_alone")

    assert list(targets) == ["video", "windows"]
    for video in run.usable("train"):
        scores_TK = segment_scores(model, *features(run, video.video_id))
        assert targets["video"][video.video_id].tolist() == video_label(run, video)
        for window, label_K in zip(WINDOWS, targets["windows"][video.video_id], strict=True):
            prob_K = pooled(scores_TK, window).softmax(dim=0)
            assert label_K.tolist() == window_label(run, video, prob_K)
    check_first_losses(run, "LR_alone", "retrain")


def test_arm_lr_dummy_trains_on_the_video_level_label_in_every_window(run):
    targets = recorded(run, "LR_dummy")

    assert list(targets) == ["video", "windows"]
    for video in run.usable("train"):
        label = video_label(run, video)
        assert targets["video"][video.video_id].tolist() == label
        assert targets["windows"][video.video_id].tolist() == [label] * len(WINDOWS)
    check_first_losses(run, "LR_dummy", "retrain")


def test_arm_pl_trains_on_segment_predictions_of_the_base_model(run):
    """Sec. 5.3: full supervision, without L_MIL, tau or windows; the video's label is not used."""
    model, targets = base_model(run), recorded(run, "PL")
    initial, supervised = initial_model(run, "retrain"), 0.0
    num_columns = run.videos.num_classes + 1
    counts = dict.fromkeys(
        ("segments", "background", "outside_label", "of_event_free", "events_in_event_free"), 0
    )

    assert list(targets) == ["windows"]
    for video in run.usable("train"):
        scores_TK = segment_scores(model, *features(run, video.video_id))
        initial_TK = segment_scores(initial, *features(run, video.video_id))
        for t in range(T):
            predicted = max(range(num_columns), key=lambda k: float(scores_TK[t, k]))
            expected = [1.0 if k == predicted else 0.0 for k in range(num_columns)]
            assert targets["windows"][video.video_id][t].tolist() == expected
            supervised += g(initial_TK[t], expected) / T
            is_event = predicted < num_columns - 1
            counts["segments"] += 1
            counts["background"] += not is_event
            counts["outside_label"] += is_event and predicted not in video.labels
            counts["of_event_free"] += not video.labels
            counts["events_in_event_free"] += is_event and not video.labels
    manifest = run.arm("PL").manifest
    assert manifest.segments == SegmentCounts(**counts)
    assert manifest.threshold is None
    assert counts["outside_label"] > 0
    found = first_losses(run, "PL")
    assert set(found) == {"supervised", "total"}
    assert found["supervised"] == pytest.approx(supervised / len(targets["windows"]), rel=1e-5)


@torch.no_grad()
def test_arm_ma_trains_on_events_found_when_the_other_modality_is_exchanged(parsing_run):
    run = parsing_run
    model, targets = base_model(run), recorded(run, "MA")
    tau = run.config.refine.threshold
    out = run.refine(False, "exchanged").location / "scores"
    rows = [row for part in out.children() for row in part.read_table().to_pylist()]
    partners = {row["video_id"]: row["partners"][0] for row in rows}
    labels_of = {video.video_id: set(video.labels) for video in run.usable("train")}

    assert list(targets) == ["video"]  # labels of whole modalities: heard, then seen
    removed = 0
    for video in run.usable("train"):
        partner = partners[video.video_id]
        assert not labels_of[partner] & set(video.labels)
        (audio, visual), (other_audio, other_visual) = (
            features(run, video_id) for video_id in (video.video_id, partner)
        )
        prob = [
            model.video_prob(model(a[None], v[None]))
            for a, v in ((audio, other_visual), (other_audio, visual))
        ]
        heard, seen = [], []
        for k in range(run.videos.num_classes):
            shown = [max(float(p.heard[0, k]), float(p.seen[0, k])) >= tau for p in prob]
            if k not in video.labels:
                shown = [False, False]
            elif not any(shown):
                shown = [True, True]  # the video-level label is certain
            heard.append(float(shown[0]))
            seen.append(float(shown[1]))
            removed += k in video.labels and not all(shown)
        assert targets["video"][video.video_id].tolist() == [*heard, *seen]
    assert removed > 0
