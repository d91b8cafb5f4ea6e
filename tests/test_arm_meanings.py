"""What each arm of the ablation means: the labels that its trainings recorded are those of an
obvious loop over videos, windows and segments, on the outputs of the base model.

The runs are real and tiny. The loop builds every (synthetic) video from raw features, one at a
time and in fp64, and reads nothing that Steps 2 and 3 computed but which partner was drawn. A
base model that two epochs on generated features leave behind is not sure of anything, so tau lies
among its probabilities, and the labels of windows differ.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import multilabel_soft_margin_loss

from distributed_avel.arms import ARMS, PARSING_ARMS
from distributed_avel.config import validate
from distributed_avel.features.store import FeatureStore
from distributed_avel.models import BaseModel
from distributed_avel.pipeline import Pipeline
from distributed_avel.runtime.stages import Place
from distributed_avel.runtime.tracking import untracked
from distributed_avel.runtime.train import CURVES_FILE, TARGETS_FILE, WEIGHTS
from distributed_avel.schema import tensor_array
from distributed_avel.tasks import Localization
from distributed_avel.train.batches import Batch
from distributed_avel.train.objectives import Objective
from tests.models.examples import small_model
from tests.train.examples import NUM_CLASSES, training_set

pytestmark = pytest.mark.timeout(200)

T, WINDOW, STARTS, TAU = 10, 4, (0, 2, 4, 6), 0.2


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Pipeline:
    """All arms of AVE on generated features, with events and without."""
    sizes = {"num_train": 40, "num_event_free": 6, "num_val": 8, "num_test": 8}
    config = validate(
        {
            "run_dir": str(tmp_path_factory.mktemp("meanings")),
            "arms": [arm for arm in ARMS if arm not in PARSING_ARMS],
            "data": {"dataset": "synthetic", "synthetic": sizes},
            "model": {"hidden_size": 4},
            "train": {"base_epochs": 8, "retrain_epochs": 1},
            "refine": {"threshold": TAU, "window": WINDOW, "stride": 2},
        },
        "test",
    )
    pipeline = Pipeline(config, untracked(), place=Place(here=True, quiet=True))
    pipeline.arms()
    return pipeline


def recorded(run: Pipeline, arm: str) -> dict[str, dict[str, np.ndarray]]:
    """Targets that a training wrote down, by column, then by video."""
    table = (run.arm(arm).location / TARGETS_FILE).read_table()
    ids = table["video_id"].to_pylist()
    assert ids == [video.video_id for video in run.usable("train")]
    return {
        name: dict(zip(ids, tensor_array(table[name]), strict=True))
        for name in table.column_names
        if name != "video_id"
    }


def base_model(run: Pipeline, *, auxiliary: bool = False) -> BaseModel:
    weights = run.base(auxiliary).location / WEIGHTS
    return run.recipe().trained(weights)().double().eval()


def features(run: Pipeline, video_id: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio (T, D) and visual (T, R, D) features of a video, in fp64."""
    audio, visual = FeatureStore(run.extract.location).read([video_id])
    return torch.from_numpy(audio[0]).double(), torch.from_numpy(visual[0]).double()


@torch.no_grad()
def segment_scores(model: BaseModel, audio: torch.Tensor, visual: torch.Tensor) -> np.ndarray:
    """Raw scores (T, K) of one video."""
    return model(audio[None], visual[None])[0].numpy()


def test_pl_learns_the_class_that_the_base_model_predicts_for_each_training_segment(run):
    model, targets = base_model(run), recorded(run, "PL")
    num_columns = run.videos.num_classes + 1
    counts = dict.fromkeys(
        ("segments", "background", "outside_label", "of_event_free", "events_in_event_free"), 0
    )

    assert list(targets) == ["windows"]  # no video-level target, as there is no L_MIL
    for video in run.usable("train"):
        scores_TK = segment_scores(model, *features(run, video.video_id))
        for t in range(T):
            predicted = max(range(num_columns), key=lambda k: scores_TK[t, k])
            expected = [1.0 if k == predicted else 0.0 for k in range(num_columns)]
            assert targets["windows"][video.video_id][t].tolist() == expected
            is_event = predicted < num_columns - 1
            counts["segments"] += 1
            counts["background"] += not is_event
            counts["outside_label"] += is_event and predicted not in video.labels
            counts["of_event_free"] += not video.labels
            counts["events_in_event_free"] += is_event and not video.labels
    manifest = run.arm("PL").manifest()
    assert manifest["segments"] == counts
    assert manifest["threshold"] is None
    assert 0 < counts["background"] < counts["segments"]
    assert counts["outside_label"] > 0
    curve = (run.arm("PL").location / CURVES_FILE).read_table()["metric"].to_pylist()
    assert {m for m in curve if m.startswith("train/")} == {"train/supervised", "train/total"}


@pytest.mark.parametrize("name", ["ave", "cmran"])
def test_full_supervision_is_the_mean_of_g_over_single_segments(name):
    """With torch's loss on the softmax of one segment at a time; no L_MIL, no pooling."""
    generator = torch.Generator().manual_seed(1)
    model = small_model(name, torch.float64, 0).eval()
    one_hot_TK = torch.eye(NUM_CLASSES + 1, dtype=torch.float64)
    labels_BT = torch.randint(NUM_CLASSES + 1, (3, T), generator=generator)
    videos = training_set(3, partners=None)
    batch = Batch(
        audio_NTD=torch.from_numpy(videos.audio_VTD).double(),
        visual_NTRD=torch.from_numpy(videos.visual_VTRD).double(),
        labels_BK=torch.from_numpy(videos.labels_VK),
        weight_B=torch.full((3,), 1 / 3, dtype=torch.float64),
        window_labels_BWK=one_hot_TK[labels_BT],
    )
    task = Localization("max", "soft_margin")

    with torch.no_grad():
        losses = Objective(model, torch.eye(T).bool(), task, fully_supervised=True)(batch)

    assert list(losses) == ["supervised"]
    for b in range(3):
        audio_TD, visual_TRD = batch.audio_NTD[b], batch.visual_NTRD[b]
        scores_TK = torch.from_numpy(segment_scores(model, audio_TD, visual_TRD))
        g = [
            multilabel_soft_margin_loss(
                scores_TK[t].softmax(dim=0)[None], one_hot_TK[labels_BT[b, t]][None]
            )
            for t in range(T)
        ]
        assert abs(float(losses["supervised"][b] - sum(g) / T)) < 1e-12
