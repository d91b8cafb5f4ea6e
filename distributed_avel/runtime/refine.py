"""Step 2 on Ray: actors that hold the base model score the windows of all videos.

Every video is encoded once and every synthetic video is a mix of codes; those of partner
videos, which many share, are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.arms import Scored
from distributed_avel.artifacts import Location
from distributed_avel.config import RefineConfig, RunConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import ArtifactError
from distributed_avel.features.store import FeatureStore
from distributed_avel.models import BaseModel, ParsingModel
from distributed_avel.randomness import derive
from distributed_avel.refine.partners import PartnerPool
from distributed_avel.refine.pseudo_labels import (
    Threshold,
    filter_scores,
    pseudo_labels,
    soft_labels,
    threshold_text,
)
from distributed_avel.refine.windows import score_synthetic, window_mask
from distributed_avel.report.alarms import segments_text, window_warnings
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.units import Pool, cut_into_units, run_units
from distributed_avel.schema import tensor_array, tensor_column, window_scores_schema
from distributed_avel.tasks import Parsing, Task
from distributed_avel.tasks.parsing import modality_targets
from distributed_avel.train.arithmetic import reproducible_arithmetic
from distributed_avel.train.predict import segment_codes

SCORES = "scores"
LabelsAndFacts = tuple[NDArray[np.bool_] | NDArray[np.float32], Mapping[str, Any]]
"""Labels of the windows or segments of the training videos, (V, W, K), and what the manifest of
Step 3 says of them."""

NO_FACTS: Mapping[str, Any] = {"threshold": None, "windows": None, "segments": None}
"""What the manifest of Step 3 says of labels of which there is nothing to say."""

_KEPT_PARTNERS = 4096


class RefineWorker:
    """Scores the windows of units of videos with one base model."""

    def __init__(
        self,
        make_model: Callable[[], BaseModel],
        features: Location,
        mask_WT: NDArray[np.bool_],
        task: Task,
        scored: Scored,
        *,
        use_gpu: bool = False,
    ) -> None:
        torch.set_num_threads(1)
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._model = make_model().to(self._device).eval()
        self._features = FeatureStore(features)
        self._mask_WT = torch.from_numpy(mask_WT).to(self._device)
        self._task, self._scored = task, scored
        self._partner_codes: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Window scores of rows of (video_id, targets_K, partners)."""
        video_ids, partners = rows["video_id"].to_pylist(), rows["partners"].to_pylist()
        targets_BK = np.array(rows["targets"].to_pylist(), dtype=bool)
        rounds = list(zip(*partners, strict=True))
        with reproducible_arithmetic(self._device):
            codes_BTD = self._encode(video_ids)
            probs = [self._mixed(codes_BTD, drawn) for drawn in rounds] or [self._alone(codes_BTD)]
            scores_BWK = torch.stack(probs).mean(dim=0).cpu().numpy()
        if self._scored != "segments":  # whose labels are the prediction, whatever the video has
            scores_BWK = filter_scores(scores_BWK, targets_BK)
        schema = window_scores_schema(*scores_BWK.shape[1:])
        columns = [
            pa.array(video_ids, pa.string()),
            pa.array(partners, schema.field("partners").type),
            tensor_column(scores_BWK, schema.field("scores").type),
        ]
        return {SCORES: pa.Table.from_arrays(columns, schema=schema)}

    def _mixed(self, codes_BTD: Tensor, partners: Sequence[str]) -> Tensor:
        """Probabilities beside one partner each, (B, W, K)."""
        partner_codes_BTD = self._encode_partners(partners)
        if self._scored == "exchanged":
            assert isinstance(self._task, Parsing)
            assert isinstance(self._model, ParsingModel)
            return self._task.exchanged_prob(self._model, codes_BTD, partner_codes_BTD)
        scores = score_synthetic(self._model, codes_BTD, partner_codes_BTD, self._mask_WT)
        return self._task.video_prob(self._model, scores)

    def _alone(self, codes_BTD: Tensor) -> Tensor:
        """Probabilities of the windows, or segments, of the original videos, (B, W, K)."""
        if self._scored == "segments":
            return self._task.segment_prob(self._model, codes_BTD)
        scores = self._model.score(codes_BTD)
        return self._task.window_prob(self._model, scores, self._mask_WT)

    def _encode(self, video_ids: Sequence[str], batch_size: int = 16) -> Tensor:
        audio_BTD, visual_BTRD = self._features.read(video_ids)
        return segment_codes(
            self._model, audio_BTD, visual_BTRD, device=self._device, batch_size=batch_size
        )

    def _encode_partners(self, partners: Sequence[str]) -> Tensor:
        new = sorted(set(partners) - self._partner_codes.keys())
        if new:
            # One at a time: how codes are rounded depends on the size of the batch, and which
            # partners are new depends on the units that this actor happened to get before.
            codes_PTD = self._encode(new, batch_size=1)
            self._partner_codes.update(zip(new, codes_PTD, strict=True))
        codes = torch.stack([self._partner_codes[partner] for partner in partners])
        while len(self._partner_codes) > _KEPT_PARTNERS:
            self._partner_codes.popitem(last=False)
        return codes


@dataclass(frozen=True, slots=True)
class _MakeWorker:
    make_model: Callable[[], BaseModel]
    features: Location
    mask_WT: NDArray[np.bool_]
    task: Task
    scored: Scored
    use_gpu: bool

    def __call__(self) -> RefineWorker:
        return RefineWorker(
            self.make_model,
            self.features,
            self.mask_WT,
            self.task,
            self.scored,
            use_gpu=self.use_gpu,
        )


def windows_of(scored: Scored, config: RunConfig) -> NDArray[np.bool_]:
    """Which segments each window has: all of them for an exchanged modality, or one, (W, T)."""
    num_segments, refine = config.data.num_segments, config.refine
    if scored == "exchanged":
        return np.ones((1, num_segments), dtype=bool)
    if scored == "segments":
        return np.eye(num_segments, dtype=bool)
    return window_mask(num_segments, refine.window, refine.stride)


def score_windows(
    videos: VideoSet,
    chosen: Sequence[Video],
    training: Sequence[Video],
    *,
    make_model: Callable[[], BaseModel],
    features: Location,
    task: Task,
    mask_WT: NDArray[np.bool_],
    config: RefineConfig,
    seed: int,
    out: Location,
    scored: Scored = "refined",
    in_process: bool = False,
) -> None:
    """Write Z-hat of the chosen videos below `out`; `read_window_scores` reads it.

    Args:
        chosen: Videos to score.
        training: Videos that may be partners.
        seed: The seed of the run; the partner of a video depends on it and on the id alone.
        scored: Windows "alone" and "segments" have no partners.
        in_process: Score in the current process instead of in actors; same results.
    """
    candidates = PartnerPool(
        videos.video_labels(training), [v.uri for v in training], config.partners
    )
    num_partners = 0 if scored in ("alone", "segments") else config.num_partners
    partners = [
        [
            training[candidates.draw(label_K, v.uri, number)].video_id
            for number in _numbers(seed, v.video_id, num_partners)
        ]
        for v, label_K in zip(chosen, videos.video_labels(chosen), strict=True)
    ]
    rows = pa.table(
        {
            "video_id": [v.video_id for v in chosen],
            "partners": pa.array(partners, pa.list_(pa.string())),
            "targets": task.targets(videos, chosen).tolist(),
        }
    )
    pool = Pool(num_actors=config.num_actors, gpus_per_actor=config.gpus_per_actor)
    run_units(
        "refine",
        cut_into_units(rows, config.unit_size),
        _MakeWorker(make_model, features, mask_WT, task, scored, config.gpus_per_actor > 0),
        out,
        None if in_process else pool,
    )


def _numbers(seed: int, video_id: str, count: int) -> list[int]:
    return [derive(seed, "refine", "partner", video_id, k) for k in range(count)]


def read_window_scores(out: Location, video_ids: Sequence[str]) -> NDArray[np.float32]:
    """Z-hat of these videos, in this order, shape (V, W, K).

    Raises:
        ArtifactError: A video has none.
    """
    table = pa.concat_tables([part.read_table() for part in (out / SCORES).children()])
    row_of = {video_id: row for row, video_id in enumerate(table["video_id"].to_pylist())}
    missing = [video_id for video_id in video_ids if video_id not in row_of]
    if missing:
        raise ArtifactError(
            f"{out / SCORES}: no window scores of {missing[0]!r} ({len(missing)} videos); "
            "is this folder shared by all machines?"
        )
    return tensor_array(table["scores"])[[row_of[video_id] for video_id in video_ids]]


def labels_of_windows(
    task: Task,
    videos: VideoSet,
    training: Sequence[Video],
    out: Location,
    threshold: Threshold | None,
    scored: Scored,
) -> LabelsAndFacts:
    """What Step 3 learns of each window of the training videos, shape (V, W, K).

    Args:
        out: Where `score_windows` wrote.
        threshold: tau; None for soft labels, and for segments, which have none.
        scored: As it was scored. An exchanged modality is one window, the whole video; a segment
            is a window too.

    Returns:
        The labels, and for the manifest of Step 3 "threshold", "windows", how many labels of the
        videos they keep (None where they are soft), and "segments", what the base model predicts
        (None for windows). "restored" counts labels that no modality showed alone, so that both
        have them again.
    """
    scores_VWK = read_window_scores(out, [v.video_id for v in training])
    targets_VK = task.targets(videos, training)
    facts = {**NO_FACTS, "threshold": threshold}
    if scored == "segments":
        labels_VTK = task.predicted(scores_VWK)
        return labels_VTK, {**facts, "segments": task.count_segments(targets_VK, labels_VTK)}
    if threshold is None:
        return soft_labels(scores_VWK, targets_VK, background=task.background), facts
    threshold_K = task.threshold_by_column(threshold, targets_VK.shape[-1])
    labels_VWK = pseudo_labels(scores_VWK, targets_VK, threshold_K, background=task.background)
    shown = labels_VWK
    if scored == "exchanged":
        labels_VWK = modality_targets(shown[:, 0], targets_VK)[:, None]
    counts = task.count_windows(targets_VK, labels_VWK)
    counts["restored"] = int(labels_VWK.sum() - shown.sum())
    return labels_VWK, {**facts, "windows": counts}


def tell_labels(facts: Mapping[str, Any]) -> None:
    """Say what the labels of Step 3 are, from the facts of `labels_of_windows`, and what is odd."""
    if facts["segments"]:
        say(f"retrain: {segments_text(facts['segments'])}")
    windows, threshold = facts["windows"], facts["threshold"]
    if not windows:
        return
    say(
        f"retrain: tau {threshold_text(threshold)} keeps {sum(windows['kept_of_class'])} "
        f"of {sum(windows['of_class'])} labels, and leaves {windows['background']} of "
        f"{windows['of_events']} windows without an event"
    )
    for warning in window_warnings(windows):
        say(f"WARNING: {warning}")
