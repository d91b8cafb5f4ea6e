"""Interface of a task: its losses, probabilities, labels and metrics.

There are two tasks. *Localization* (AVEL) predicts for each segment one event that is both visible
and audible, or background. *Parsing* (AVVP) predicts the audio events and the visual events. They
differ in the columns of labels and probabilities, and in the meaning of a model's raw scores;
Steps 1 to 3 and the evaluation are the same.

Labels and probabilities are arrays with K columns. Localization has a column for each class and one
for background; parsing has the columns of the audio events, then those of the visual events, and
none for background.

Shape suffixes used in this file:
    V, B = videos    T = segments    W = windows    D = code size
    K = columns of labels    E = columns of events (K without background)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.method.pseudo_labels import Threshold
from distributed_avel.metrics.video import video_metrics
from distributed_avel.models.base import BaseModel

Model = TypeVar("Model", bound=BaseModel)

Modality = Literal["audio", "visual"]


@dataclass(frozen=True, slots=True)
class SegmentCounts:
    """Counts of labels that the base model predicts for segments of the training videos.

    Args:
        segments: Segments.
        background: Segments without a predicted event.
        outside_label: Segments with a class that the video-level label lacks.
        of_event_free: Segments of event-free videos.
        events_in_event_free: Segments of event-free videos with a predicted event.
    """

    segments: int
    background: int
    outside_label: int
    of_event_free: int
    events_in_event_free: int


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """Counts of pseudo-labels of the windows of videos with an event.

    Args:
        videos: Videos with an event.
        of_events: Their windows.
        background: Their windows without a label.
        of_class: Labels of each class before refinement.
        kept_of_class: Labels of each class after refinement.
        restored: Labels that were below tau in both modalities and were restored in both.
    """

    videos: int
    of_events: int
    background: int
    of_class: list[int]
    kept_of_class: list[int]
    restored: int = 0


class Task(ABC, Generic[Model]):
    """A task; small, immutable, and pickled with every training job.

    `Model` is the class of its base models. Raw scores are interpreted by the model that computed
    them, so every method that reads scores takes the model.
    """

    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics of `judge`, in the order of the columns of tables."""

    criterion: ClassVar[tuple[str, str]]
    """Two metrics with a trade-off; by default, the mean of both on the validation split is the
    criterion of sweeps."""

    best_epoch: ClassVar[str]
    """Validation metric that selects the best epoch of a training."""

    background: ClassVar[bool]
    """True if the last column of labels is background."""

    settings: ClassVar[tuple[str, ...]]
    """Settings of `train` that only this task reads."""

    parts: ClassVar[tuple[str, ...]]
    """Names of the groups of event columns, of equal size, such as one per modality. Each group has
    its own tau, because the confidence of a model differs between modalities."""

    needs: ClassVar[Mapping[str, tuple[Modality, ...]]]
    """Modalities that an event of each of `parts` needs; without one of them, it is absent."""

    @property
    @abstractmethod
    def loss_name(self) -> str:
        """Name of g in tables."""

    def refuse(self, videos: VideoSet) -> None:
        """Refuse a data set without the annotations that the evaluation needs.

        Raises:
            DatasetError: The message names the first video without them.
        """

    # Losses, one value per video -----------------------------------------------------------

    @abstractmethod
    def mil_loss(self, model: Model, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """Compute L_MIL of raw segment scores (B, T, ...) and video-level targets, shape (B,)."""

    @abstractmethod
    def auxiliary_loss(self, model: Model, scores_of_windows: Tensor, union_BK: Tensor) -> Tensor:
        """Compute L_A (eqs. 15 to 18) of raw scores (B, W, T, ...) of synthetic videos.

        Args:
            model: Model that computed the scores.
            scores_of_windows: Raw scores of a synthetic video for each window.
            union_BK: Union of the labels of the video and its partner video.

        Returns:
            Shape (B,).
        """

    @abstractmethod
    def refinement_loss(
        self, model: Model, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """Compute L_LR (eqs. 12 and 13) of the windows of the original videos.

        Args:
            model: Model that computed the scores.
            scores: Raw segment scores (B, T, ...).
            targets_BWK: Pseudo-labels of the windows.
            mask_WT: Segments of each window.

        Returns:
            Shape (B,).
        """

    # Probabilities -------------------------------------------------------------------------

    @abstractmethod
    def video_prob(self, model: Model, scores: Tensor) -> Tensor:
        """Pool raw scores (..., T, ...) to video-level probabilities in 0..1, shape (..., K)."""

    @abstractmethod
    def window_prob(self, model: Model, scores: Tensor, mask_WT: Tensor) -> Tensor:
        """Pool raw scores (B, T, ...) within each window to probabilities, shape (B, W, K)."""

    @abstractmethod
    def segment_prob(self, model: Model, codes_BTD: Tensor) -> Tensor:
        """Compute the probabilities of each segment in 0..1, shape (B, T, K)."""

    @abstractmethod
    def predicted(self, prob_VTK: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Convert probabilities of `segment_prob` to predicted labels, shape (V, T, K)."""

    @abstractmethod
    def repeated(self, model: Model, codes_BTD: Tensor) -> Tensor:
        """Compute the video-level prediction (0 or 1) that `<model>-repeat` uses, shape (B, K)."""

    # Labels --------------------------------------------------------------------------------

    @abstractmethod
    def targets(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Return the video-level labels of the chosen videos, shape (V, K)."""

    @abstractmethod
    def truth(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Return the ground-truth segment labels of the chosen videos, shape (V, T, K).

        Raises:
            DatasetError: A video has no segment-level annotations of the kind that the task needs.
        """

    @abstractmethod
    def has_times(self, video: Video) -> bool:
        """Return True if a video has the segment-level annotations that the task needs."""

    def annotated(self, chosen: Sequence[Video]) -> NDArray[np.bool_]:
        """Mark the videos that segment metrics are computed from, shape (V,).

        They are the videos with times, and those without an event, whose segments are known to be
        background. If no video with an event has times, there are none, because metrics of
        background alone would be misleading.
        """
        with_times_V = np.array([self.has_times(video) for video in chosen], dtype=bool)
        with_event_V = np.array([bool(video.labels) for video in chosen], dtype=bool)
        if with_times_V.all() or (with_times_V & with_event_V).any():
            return with_times_V
        return np.zeros_like(with_times_V)

    # Evaluation ----------------------------------------------------------------------------

    @abstractmethod
    def judge(
        self,
        truth_VTK: NDArray[np.bool_],
        prob_VTK: NDArray[np.floating],
        valid_VT: NDArray[np.bool_] | None = None,
    ) -> Mapping[str, float | None]:
        """Compute all `metrics`, in percent; None if a metric is undefined (0/0).

        Args:
            truth_VTK: Ground-truth labels of the segments.
            prob_VTK: Probabilities of `segment_prob`.
            valid_VT: True for the segments that a video has; all by default.

        Raises:
            FloatingPointError: A probability is not finite, because the training diverged.
        """

    def judge_videos(
        self,
        targets_VK: NDArray[np.bool_],
        prob_VTK: NDArray[np.floating],
        valid_VT: NDArray[np.bool_] | None = None,
    ) -> dict[str, float | None]:
        """Compute `metrics.video.VIDEO_METRICS`, in percent, which need no times.

        The probability of an event in a video is its maximum over the segments; an event is
        predicted for a video if it is predicted in any segment.

        Args:
            targets_VK: Video-level labels.
            prob_VTK: Probabilities of `segment_prob`, 0 where a video has no segment.
            valid_VT: True for the segments that a video has; all by default.

        Raises:
            FloatingPointError: A probability is not finite, because the training diverged.
        """
        self.refuse_not_finite(prob_VTK)
        predicted_VTK = self.predicted(prob_VTK)
        if valid_VT is not None:
            predicted_VTK &= valid_VT[..., None]
        return video_metrics(
            self.events_of_classes(targets_VK),
            self.events_of_classes(prob_VTK.max(axis=1)),
            self.events_of_classes(np.any(predicted_VTK, axis=1)),
        )

    @abstractmethod
    def background_share(
        self, prob_VTK: NDArray[np.floating], valid_VT: NDArray[np.bool_] | None = None
    ) -> float:
        """Compute the share of the segments without a predicted event, in 0..1."""

    @staticmethod
    def refuse_not_finite(prob_VTK: NDArray[np.floating]) -> None:
        """Refuse NaN and infinite probabilities, for which `argmax` would return some class.

        Raises:
            FloatingPointError: A probability is not finite.
        """
        if not np.isfinite(prob_VTK).all():
            raise FloatingPointError("a predicted probability is not a finite number")

    # Windows -------------------------------------------------------------------------------

    def threshold_by_column(self, threshold: Threshold, num_columns: int) -> NDArray[np.float64]:
        """Return tau of each column, shape (num_columns,).

        Args:
            threshold: One tau, or one for each of `parts`.
            num_columns: Number of columns, a multiple of the number of parts.
        """
        if not isinstance(threshold, Mapping):
            threshold = dict.fromkeys(self.parts, threshold)
        values = [threshold[part] for part in self.parts]
        return np.repeat(np.array(values), num_columns // len(values))

    @abstractmethod
    def events_of_classes(self, values_VK: NDArray[Any]) -> NDArray[Any]:
        """Reduce video-level labels or probabilities to one column per class, shape (V, C)."""

    @abstractmethod
    def by_class(self, counts_E: NDArray[np.integer]) -> list[int]:
        """Convert counts of event columns to counts of classes."""

    def count_segments(
        self,
        targets_VK: NDArray[np.bool_],
        labels_VTK: NDArray[np.bool_],
        valid_VT: NDArray[np.bool_] | None = None,
    ) -> SegmentCounts:
        """Count the labels that the base model predicts for segments of the training videos.

        Args:
            targets_VK: Video-level labels.
            labels_VTK: Predicted labels of the segments.
            valid_VT: True for the segments that a video has; all by default.
        """
        num_events = targets_VK.shape[1] - self.background
        targets_VE, labels_VTE = targets_VK[:, :num_events], labels_VTK[..., :num_events]
        valid_VT = np.ones(labels_VTE.shape[:2], dtype=bool) if valid_VT is None else valid_VT
        present_VT = np.any(labels_VTE, axis=-1) & valid_VT
        outside_VT = (labels_VTE & ~targets_VE[:, None]).any(axis=-1) & valid_VT
        event_free_V = ~targets_VE.any(axis=1)
        return SegmentCounts(
            segments=int(valid_VT.sum()),
            background=int((valid_VT & ~present_VT).sum()),
            outside_label=int(outside_VT.sum()),
            of_event_free=int(valid_VT[event_free_V].sum()),
            events_in_event_free=int(present_VT[event_free_V].sum()),
        )

    def count_windows(
        self,
        targets_VK: NDArray[np.bool_],
        labels_VWK: NDArray[np.bool_],
        valid_VW: NDArray[np.bool_] | None = None,
    ) -> WindowCounts:
        """Count the pseudo-labels of the windows of videos with an event.

        Args:
            targets_VK: Video-level labels.
            labels_VWK: Pseudo-labels of the windows.
            valid_VW: True for the windows that a video has; all by default.
        """
        num_events = targets_VK.shape[1] - self.background
        targets_VE, labels_VWE = targets_VK[:, :num_events], labels_VWK[..., :num_events]
        valid_VW = np.ones(labels_VWK.shape[:2], dtype=bool) if valid_VW is None else valid_VW
        event_V = targets_VE.any(axis=1)
        background_VW = valid_VW & ~labels_VWE.any(axis=-1)
        return WindowCounts(
            videos=int(event_V.sum()),
            of_events=int(valid_VW[event_V].sum()),
            background=int(background_VW[event_V].sum()),
            of_class=self.by_class((targets_VE * valid_VW.sum(axis=1)[:, None]).sum(axis=0)),
            kept_of_class=self.by_class((labels_VWE & valid_VW[..., None]).sum(axis=(0, 1))),
        )
