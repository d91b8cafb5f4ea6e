"""Localization (AVEL): the event of a segment that is both visible and audible, or background.

Shape suffixes used in this file:
    V, B = videos    T = segments    W = windows    D = code size
    C = event classes    K = C + 1 (background last)    E = C
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.method.losses import VideoLoss, auxiliary_loss, mil_loss, refinement_loss
from distributed_avel.method.mil import Pooling, mil_pool, pool_windows
from distributed_avel.metrics.segment import SEGMENT_METRICS, one_label_per_segment, segment_metrics
from distributed_avel.models.base import BaseModel
from distributed_avel.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Localization(Task[BaseModel]):
    """The task of the paper.

    Args:
        pooling: MIL pooling of segment scores to video scores (eq. 6).
        loss: Video-level loss g.
    """

    metrics = SEGMENT_METRICS
    criterion = ("accuracy", "non_ave_f1")
    best_epoch = "accuracy"
    background = True
    settings = ("loss",)
    parts = ("event",)
    needs = MappingProxyType({"event": ("audio", "visual")})

    pooling: Pooling
    loss: VideoLoss

    @property
    def loss_name(self) -> str:
        """Name of g in the configuration."""
        return self.loss

    def mil_loss(self, model: BaseModel, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """Compute L_MIL (eqs. 6 and 7)."""
        return mil_loss(scores, targets_BK, self.pooling, self.loss)

    def auxiliary_loss(
        self, model: BaseModel, scores_of_windows: Tensor, union_BK: Tensor
    ) -> Tensor:
        """Compute L_A (eqs. 15 to 18)."""
        return auxiliary_loss(scores_of_windows, union_BK, self.pooling, self.loss)

    def refinement_loss(
        self, model: BaseModel, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """Compute L_LR (eqs. 12 and 13)."""
        return refinement_loss(scores, targets_BWK, mask_WT, self.pooling, self.loss)

    def video_prob(self, model: BaseModel, scores: Tensor) -> Tensor:
        """Apply softmax to the pooled scores (eq. 6)."""
        return mil_pool(scores, self.pooling).softmax(dim=-1)

    def window_prob(self, model: BaseModel, scores: Tensor, mask_WT: Tensor) -> Tensor:
        """Apply softmax to the scores pooled within each window."""
        return pool_windows(scores, mask_WT, self.pooling).softmax(dim=-1)

    def segment_prob(self, model: BaseModel, codes_BTD: Tensor) -> Tensor:
        """Apply softmax to the segment scores."""
        return model.localize(codes_BTD).softmax(dim=-1)

    def predicted(self, prob_VTK: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Predict the most probable class of each segment, which may be background."""
        return prob_VTK.argmax(axis=-1)[..., None] == np.arange(prob_VTK.shape[-1])

    def repeated(self, model: BaseModel, codes_BTD: Tensor) -> Tensor:
        """Predict the most probable event of the video, never background (Sec. 5.1)."""
        prob_BK = self.video_prob(model, model.score(codes_BTD))
        return one_hot(prob_BK[..., :-1].argmax(dim=-1), prob_BK.shape[-1])

    def targets(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Return Y; the background column is set only for videos without an event."""
        return videos.video_labels(chosen)

    def truth(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Return the audio-visual event of each segment, or background."""
        return videos.segment_labels(chosen)

    def has_times(self, video: Video) -> bool:
        """Return True if the audio-visual events have times."""
        return video.spans is not None

    def judge(
        self,
        truth_VTK: NDArray[np.bool_],
        prob_VTK: NDArray[np.floating],
        valid_VT: NDArray[np.bool_] | None = None,
    ) -> dict[str, float | None]:
        """Compute the metrics of the paper's tables on AVE."""
        self.refuse_not_finite(prob_VTK)
        class_VT = prob_VTK.argmax(axis=-1)
        truth_VT = one_label_per_segment(truth_VTK, class_VT)
        if valid_VT is not None:
            truth_VT, class_VT = truth_VT[valid_VT], class_VT[valid_VT]
        return segment_metrics(truth_VT, class_VT, truth_VTK.shape[-1] - 1)

    def background_share(
        self, prob_VTK: NDArray[np.floating], valid_VT: NDArray[np.bool_] | None = None
    ) -> float:
        """Compute the share of the segments that are predicted as background."""
        is_background_VT = prob_VTK.argmax(axis=-1) == prob_VTK.shape[-1] - 1
        return float(is_background_VT[... if valid_VT is None else valid_VT].mean())

    def events_of_classes(self, values_VK: NDArray[Any]) -> NDArray[Any]:
        """Drop the column of background."""
        return values_VK[:, :-1]

    def by_class(self, counts_E: NDArray[np.integer]) -> list[int]:
        """Return the counts: each class has one column."""
        return counts_E.tolist()
