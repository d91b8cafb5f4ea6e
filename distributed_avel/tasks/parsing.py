"""Parsing (AVVP): which events are heard in a segment, and which are seen.

Losses and the rule for predictions are those of HAN's repository (Tian et al. 2020, YapengTian/
AVVP-ECCV20): a binary cross-entropy of the events of the video as a whole, of those heard and of
those seen. The paper refines the labels of HAN too (Table 6). Its details were not at
hand, so this is our reading: a window of a synthetic video is asked for both modalities, each
against its own probability and tau.

Shape suffixes: V, B = videos, T = segments, W = windows, M = modalities (heard, seen),
C = event classes, K = 2 C columns (heard first), D = code size.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.metrics.parsing import (
    DECISION_THRESHOLD,
    MODALITIES,
    PARSING_METRICS,
    parsing_metrics,
)
from distributed_avel.models.base import ParsingModel, VideoProb
from distributed_avel.refine.windows import exchange_modality
from distributed_avel.tasks.base import Task

PARSING_LOSS = "binary cross-entropy"

_SURE = 1e-7
"""Probabilities stay so far from 0 and 1, as in HAN's repository."""


@dataclass(frozen=True, slots=True)
class Parsing(Task[ParsingModel]):
    """The task of HAN, and of every other `ParsingModel`.

    Args:
        visual_smoothing: This part of what video-level labels say of the visual side is replaced
            by 1/2, in L_MIL and L_A. Labels of windows are taken as they are.
    """

    metrics = PARSING_METRICS
    criterion = ("segment_type", "event_type")
    best_epoch = "segment_type"
    background = False
    settings = ("visual_smoothing",)
    parts = MODALITIES

    visual_smoothing: float = 0.1

    @property
    def loss_name(self) -> str:
        """That of HAN's repository."""
        return PARSING_LOSS

    def refuse(self, videos: VideoSet) -> None:
        """Validation and test videos need what is heard and what is seen apart."""
        for split in ("val", "test"):
            for video in videos.split(split):
                if video.audio_spans is None or video.visual_spans is None:
                    raise DatasetError(
                        f"{videos.name}: {video.video_id} ({split}): nobody annotated what is "
                        "heard and what is seen apart, which parsing is judged by; choose a "
                        "localization model, such as ave, or a data set such as llp"
                    )

    def mil_loss(self, model: ParsingModel, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """The loss of HAN's repository, a mean over the classes."""
        return _loss(model.video_prob(scores), self._smooth(targets_BK, scores.dtype))

    def auxiliary_loss(
        self, model: ParsingModel, scores_of_windows: Tensor, union_BK: Tensor
    ) -> Tensor:
        """The synthetic videos together show both videos whole: the largest probabilities."""
        prob = VideoProb(*(of.amax(dim=1) for of in model.video_prob(scores_of_windows)))
        return _loss(prob, self._smooth(union_BK, scores_of_windows.dtype))

    def _smooth(self, targets_BK: Tensor, dtype: torch.dtype) -> VideoProb:
        targets = _targets(targets_BK, dtype)
        smooth_BC = (1 - self.visual_smoothing) * targets.seen + self.visual_smoothing / 2
        return targets._replace(seen=smooth_BC)

    def refinement_loss(
        self, model: ParsingModel, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """Each window is pooled like a video of its own; the mean over the windows."""
        prob = model.video_prob(scores.unsqueeze(1), mask_WT)
        return _loss(prob, _targets(targets_BWK, scores.dtype)).mean(dim=1)

    def video_prob(self, model: ParsingModel, scores: Tensor) -> Tensor:
        """Heard and seen, pooled by the model."""
        prob = model.video_prob(scores)
        return torch.cat([prob.heard, prob.seen], dim=-1)

    def window_prob(self, model: ParsingModel, scores: Tensor, mask_WT: Tensor) -> Tensor:
        """Heard and seen within each window."""
        prob = model.video_prob(scores.unsqueeze(1), mask_WT)
        return torch.cat([prob.heard, prob.seen], dim=-1)

    def exchanged_prob(
        self, model: ParsingModel, codes_BTD: Tensor, partner_codes_BTD: Tensor
    ) -> Tensor:
        """Whether an event shows in one modality alone (modality-aware exchange), (B, 1, K).

        The other modality is that of a partner video, so whatever the model finds of the
        events of this one, in either modality, comes from the one that was kept. Wu and Yang
        (2021) ask whether both probabilities are low, which is what the larger one tells;
        they also divide by the error rate of the class, for which tau stands here. Their
        contrastive loss between modalities and events is not implemented, so the arm MA is
        their exchange alone.
        """
        mixed_BMTD = exchange_modality(codes_BTD, partner_codes_BTD)
        scores = model.score(mixed_BMTD.flatten(0, 1)).unflatten(0, mixed_BMTD.shape[:2])
        prob = model.video_prob(scores)
        return torch.maximum(prob.heard, prob.seen).flatten(1).unsqueeze(1)

    def segment_prob(self, model: ParsingModel, codes_BTD: Tensor) -> Tensor:
        """Heard and seen, 0 for events that the video as a whole lacks.

        The rule of HAN's authors: an event is where its probability reaches 1/2, if that of the
        video does too.
        """
        scores = model.score(codes_BTD)
        present_BC = model.video_prob(scores).either >= DECISION_THRESHOLD
        return (model.segment_prob(scores) * present_BC[:, None, None, :]).flatten(-2)

    def predicted(self, prob_VTK: NDArray[np.floating]) -> NDArray[np.bool_]:
        """The events that reach 1/2, as the authors' evaluation has it."""
        return prob_VTK >= DECISION_THRESHOLD

    def repeated(self, model: ParsingModel, codes_BTD: Tensor) -> Tensor:
        """Events of the video as a whole, in both modalities."""
        either_BC = model.video_prob(model.score(codes_BTD)).either >= DECISION_THRESHOLD
        return torch.cat([either_BC, either_BC], dim=-1)

    def targets(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """The weak label, for both modalities."""
        labels_VC = videos.video_labels(chosen)[:, :-1]
        return np.concatenate([labels_VC, labels_VC], axis=-1)

    def truth(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """What is heard and what is seen."""
        return np.concatenate(videos.modality_labels(chosen), axis=-1)

    def judge(
        self, truth_VTK: NDArray[np.bool_], prob_VTK: NDArray[np.floating]
    ) -> dict[str, float]:
        """F-scores as the public evaluation of AVVP computes them."""
        self.refuse_not_finite(prob_VTK)
        truth = np.split(truth_VTK, 2, axis=-1)
        return parsing_metrics(*truth, *np.split(self.predicted(prob_VTK), 2, axis=-1))

    def background_share(self, prob_VTK: NDArray[np.floating]) -> float:
        """Segments in which nothing is heard and nothing is seen."""
        return float((~self.predicted(prob_VTK).any(axis=-1)).mean())

    def by_class(self, counts_E: NDArray[np.integer]) -> list[int]:
        """Both modalities together."""
        return counts_E.reshape(2, -1).sum(axis=0).tolist()


def modality_targets(
    labels_VK: NDArray[np.bool_], targets_VK: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Labels of whole modalities, as video-level targets for Step 3.

    An event that neither modality shows alone stays in both: the video-level label is certain.
    Wu and Yang remove it from both, and smooth no label that was removed.

    Args:
        labels_VK: Which events each modality shows.
        targets_VK: The weak label, for both.
    """
    shown_VC = np.logical_or(*np.split(labels_VK, 2, axis=-1))
    return np.where(np.tile(shown_VC, 2), labels_VK, targets_VK)


def _targets(labels: Tensor, dtype: torch.dtype) -> VideoProb:
    heard, seen = labels.to(dtype).chunk(2, dim=-1)
    return VideoProb(torch.maximum(heard, seen), heard, seen)


def _loss(prob: VideoProb, targets: VideoProb) -> Tensor:
    """The sum of the three binary cross-entropies; the last axis is reduced."""
    losses = [
        binary_cross_entropy(p.clamp(_SURE, 1 - _SURE), target, reduction="none").mean(dim=-1)
        for p, target in zip(prob, targets, strict=True)
    ]
    return torch.stack(losses).sum(dim=0)
