"""Parsing (AVVP): the audio events and the visual events of each segment.

Losses and decision rule are those of HAN's repository (Tian et al. 2020, YapengTian/AVVP-ECCV20):
binary cross-entropies of the events of the whole video, of its audio events and of its visual
events. The paper also refines the labels of HAN (Table 6), but gives no details. Our
interpretation: each window of a synthetic video gets pseudo-labels of both modalities, each from
the probability and the tau of the modality.

Shape suffixes used in this file:
    V, B = videos    T = segments    W = windows    D = code size
    M = modalities (audio, visual)    C = event classes
    K = 2 C (audio first)    E = K
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import DatasetError
from distributed_avel.method.windows import exchange_modality
from distributed_avel.metrics.parsing import (
    DECISION_THRESHOLD,
    MODALITIES,
    PARSING_METRICS,
    parsing_metrics,
)
from distributed_avel.models.base import ParsingModel, VideoProb
from distributed_avel.tasks.base import Task

PARSING_LOSS = "binary cross-entropy"

_SURE = 1e-7
"""Minimum distance of probabilities from 0 and 1 in the loss, as in HAN's repository."""


@dataclass(frozen=True, slots=True)
class Parsing(Task[ParsingModel]):
    """The task of HAN, and of every other `ParsingModel`.

    Args:
        visual_smoothing: Label smoothing s in 0..1 of the visual video-level labels in L_MIL and
            L_A: y becomes (1 - s) y + s / 2. Labels of windows are not smoothed.
    """

    metrics = PARSING_METRICS
    criterion = ("segment_type", "event_type")
    best_epoch = "segment_type"
    background = False
    settings = ("visual_smoothing",)
    parts = MODALITIES
    needs = MappingProxyType({"heard": ("audio",), "seen": ("visual",)})

    visual_smoothing: float = 0.1

    @property
    def loss_name(self) -> str:
        """Name of the loss of HAN's repository."""
        return PARSING_LOSS

    def refuse(self, videos: VideoSet) -> None:
        """Refuse validation and test videos whose times are not given for each modality.

        Videos without any times are evaluated by their video-level labels.
        """
        for split in ("val", "test"):
            for video in videos.split(split):
                if video.spans and not self.has_times(video):
                    raise DatasetError(
                        f"{videos.name}: {video.video_id} ({split}): no separate annotations of "
                        "the audio and the visual events, which parsing needs; choose a "
                        "localization model, such as ave, or a data set such as llp"
                    )

    def mil_loss(self, model: ParsingModel, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """Compute the loss of HAN's repository, a mean over the classes."""
        return _loss(model.video_prob(scores), self._smooth(targets_BK, scores.dtype))

    def auxiliary_loss(
        self, model: ParsingModel, scores_of_windows: Tensor, union_BK: Tensor
    ) -> Tensor:
        """Compute L_A with the maximum over the windows of each probability.

        Together, the synthetic videos of a pair contain every segment of both videos.
        """
        prob = VideoProb(*(of.amax(dim=1) for of in model.video_prob(scores_of_windows)))
        return _loss(prob, self._smooth(union_BK, scores_of_windows.dtype))

    def _smooth(self, targets_BK: Tensor, dtype: torch.dtype) -> VideoProb:
        targets = _targets(targets_BK, dtype)
        smooth_BC = (1 - self.visual_smoothing) * targets.seen + self.visual_smoothing / 2
        return targets._replace(seen=smooth_BC)

    def refinement_loss(
        self, model: ParsingModel, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """Compute L_LR: each window is pooled like a video, and the losses are averaged."""
        prob = model.video_prob(scores.unsqueeze(1), mask_WT)
        return _loss(prob, _targets(targets_BWK, scores.dtype)).mean(dim=1)

    def video_prob(self, model: ParsingModel, scores: Tensor) -> Tensor:
        """Pool the scores of both modalities with the model."""
        prob = model.video_prob(scores)
        return torch.cat([prob.heard, prob.seen], dim=-1)

    def window_prob(self, model: ParsingModel, scores: Tensor, mask_WT: Tensor) -> Tensor:
        """Pool the scores of both modalities within each window."""
        prob = model.video_prob(scores.unsqueeze(1), mask_WT)
        return torch.cat([prob.heard, prob.seen], dim=-1)

    def exchanged_prob(
        self, model: ParsingModel, codes_BTD: Tensor, partner_codes_BTD: Tensor
    ) -> Tensor:
        """Compute the probability of an event from one modality alone (modality-aware exchange).

        The other modality is replaced by that of a partner video, which shares no label with this
        video, so every event of this video that the model finds, in either modality, comes from
        the modality that was kept. Wu and Yang (2021) test whether both probabilities are low,
        which is equivalent to a low maximum; they also divide by the error rate of the class, which
        tau replaces here. Their contrastive loss is not implemented, so arm MA is the exchange
        alone.

        Args:
            model: Base model.
            codes_BTD: Codes of the videos.
            partner_codes_BTD: Codes of one partner video each.

        Returns:
            Shape (B, 1, K), in 0..1.
        """
        mixed_BMTD = exchange_modality(codes_BTD, partner_codes_BTD)
        scores = model.score(mixed_BMTD.flatten(0, 1)).unflatten(0, mixed_BMTD.shape[:2])
        prob = model.video_prob(scores)
        return torch.maximum(prob.heard, prob.seen).flatten(1).unsqueeze(1)

    def segment_prob(self, model: ParsingModel, codes_BTD: Tensor) -> Tensor:
        """Compute the probabilities of both modalities; 0 for events that the video does not have.

        In the decision rule of HAN's authors, a segment has an event if its probability and that
        of the video are both at least 1/2.
        """
        scores = model.score(codes_BTD)
        present_BC = model.video_prob(scores).either >= DECISION_THRESHOLD
        return (model.segment_prob(scores) * present_BC[:, None, None, :]).flatten(-2)

    def predicted(self, prob_VTK: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Predict the events with a probability of at least 1/2, as in the authors' evaluation."""
        return prob_VTK >= DECISION_THRESHOLD

    def repeated(self, model: ParsingModel, codes_BTD: Tensor) -> Tensor:
        """Predict the events of the whole video, for both modalities."""
        either_BC = model.video_prob(model.score(codes_BTD)).either >= DECISION_THRESHOLD
        return torch.cat([either_BC, either_BC], dim=-1)

    def targets(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Return the video-level label, for both modalities."""
        labels_VC = videos.video_labels(chosen)[:, :-1]
        return np.concatenate([labels_VC, labels_VC], axis=-1)

    def truth(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Return the audio labels and the visual labels."""
        return np.concatenate(videos.modality_labels(chosen), axis=-1)

    def has_times(self, video: Video) -> bool:
        """Return True if the audio and the visual events have times."""
        return video.audio_spans is not None and video.visual_spans is not None

    def judge(
        self,
        truth_VTK: NDArray[np.bool_],
        prob_VTK: NDArray[np.floating],
        valid_VT: NDArray[np.bool_] | None = None,
    ) -> dict[str, float]:
        """Compute F-scores like the public evaluation code of AVVP.

        Segments that a video does not have change no score: they have no event, in truth or
        prediction.
        """
        self.refuse_not_finite(prob_VTK)
        if valid_VT is not None:
            truth_VTK, prob_VTK = truth_VTK & valid_VT[..., None], prob_VTK * valid_VT[..., None]
        truth = np.split(truth_VTK, 2, axis=-1)
        return parsing_metrics(*truth, *np.split(self.predicted(prob_VTK), 2, axis=-1))

    def background_share(
        self, prob_VTK: NDArray[np.floating], valid_VT: NDArray[np.bool_] | None = None
    ) -> float:
        """Compute the share of the segments without a predicted event in either modality."""
        is_background_VT = ~np.any(self.predicted(prob_VTK), axis=-1)
        return float(is_background_VT[... if valid_VT is None else valid_VT].mean())

    def events_of_classes(self, values_VK: NDArray[Any]) -> NDArray[Any]:
        """Take the maximum of both modalities: the label does not say which has the event."""
        return np.maximum(*np.split(values_VK, 2, axis=-1))

    def by_class(self, counts_E: NDArray[np.integer]) -> list[int]:
        """Add the counts of both modalities."""
        return counts_E.reshape(2, -1).sum(axis=0).tolist()


def modality_targets(
    labels_VK: NDArray[np.bool_], targets_VK: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Convert labels of whole modalities to video-level targets for Step 3.

    An event that is in neither modality alone stays in both, because the video-level label is
    certain. Wu and Yang (2021) remove it from both, and do not smooth removed labels.

    Args:
        labels_VK: Events of each modality alone.
        targets_VK: Video-level labels, for both modalities.

    Returns:
        Shape (V, K).
    """
    has_event_VC = np.logical_or(*np.split(labels_VK, 2, axis=-1))
    return np.where(np.tile(has_event_VC, 2), labels_VK, targets_VK)


def _targets(labels: Tensor, dtype: torch.dtype) -> VideoProb:
    heard, seen = labels.to(dtype).chunk(2, dim=-1)
    return VideoProb(torch.maximum(heard, seen), heard, seen)


def _loss(prob: VideoProb, targets: VideoProb) -> Tensor:
    """Sum the three binary cross-entropies, each a mean over the last axis."""
    losses = [
        binary_cross_entropy(p.clamp(_SURE, 1 - _SURE), target, reduction="none").mean(dim=-1)
        for p, target in zip(prob, targets, strict=True)
    ]
    return torch.stack(losses).sum(dim=0)
