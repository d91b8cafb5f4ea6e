"""What a model is trained for: all that Steps 1 to 3 and the evaluation ask of a task.

There are two. *Localization* (AVEL) says of each segment which one event is both seen and heard,
or background. *Parsing* (AVVP) says which events are heard and which are seen. They differ in
the columns of labels, probabilities and scores, and in what a model's raw scores mean; the steps
are the same.

Labels and probabilities are arrays with K columns. Localization has one for each class and one
for background; parsing has those of what is heard, then those of what is seen, and none for
background.

Shape suffixes: V, B = videos, T = segments, W = windows, K = columns, D = code size.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.models.base import BaseModel
from distributed_avel.refine.pseudo_labels import Threshold

Model = TypeVar("Model", bound=BaseModel)


class Task(ABC, Generic[Model]):
    """One of the two; small, immutable and pickled with every job.

    `Model` is what the task asks of its base models. What raw scores mean is theirs to say, so all
    that reads scores gets the model that made them.
    """

    metrics: ClassVar[tuple[str, ...]]
    """What `judge` returns, in the order in which tables show it."""

    criterion: ClassVar[tuple[str, str]]
    """Two metrics between which there may be a choice; unless a sweep says otherwise, their mean
    on the validation split finds its best point."""

    best_epoch: ClassVar[str]
    """The metric that finds the best epoch of a training."""

    background: ClassVar[bool]
    """Whether the last column of labels is background."""

    settings: ClassVar[tuple[str, ...]]
    """Settings of training that only this task reads."""

    parts: ClassVar[tuple[str, ...]]
    """Names of the parts, of equal size, that the columns of events fall into. Each has a tau of
    its own: how sure a model is of what it hears says nothing of how sure it is of what it sees."""

    @property
    @abstractmethod
    def loss_name(self) -> str:
        """g, as tables name it."""

    def refuse(self, videos: VideoSet) -> None:
        """Refuse videos without the annotations that the task is judged by.

        Raises:
            DatasetError: It says which they are.
        """

    # Losses, each one number per video -----------------------------------------------------

    @abstractmethod
    def mil_loss(self, model: Model, scores: Tensor, targets_BK: Tensor) -> Tensor:
        """L_MIL: raw segment scores against the video-level targets, shape (B,)."""

    @abstractmethod
    def auxiliary_loss(self, model: Model, scores_of_windows: Tensor, union_BK: Tensor) -> Tensor:
        """L_A (eqs. 15-18): raw scores (B, W, T, ...) of synthetic videos, shape (B,)."""

    @abstractmethod
    def refinement_loss(
        self, model: Model, scores: Tensor, targets_BWK: Tensor, mask_WT: Tensor
    ) -> Tensor:
        """L_LR (eqs. 12 and 13): windows of the original video, shape (B,)."""

    # Probabilities -------------------------------------------------------------------------

    @abstractmethod
    def video_prob(self, model: Model, scores: Tensor) -> Tensor:
        """Raw scores (..., T, ...) of videos, real or synthetic, pooled, shape (..., K)."""

    @abstractmethod
    def window_prob(self, model: Model, scores: Tensor, mask_WT: Tensor) -> Tensor:
        """Raw scores of videos, pooled within each window, shape (B, W, K)."""

    @abstractmethod
    def segment_prob(self, model: Model, codes_BTD: Tensor) -> Tensor:
        """What the model predicts for each segment, shape (B, T, K)."""

    @abstractmethod
    def predicted(self, prob_VTK: NDArray[np.floating]) -> NDArray[np.bool_]:
        """The prediction of each segment as labels, from `segment_prob`, shape (V, T, K)."""

    @abstractmethod
    def repeated(self, model: Model, codes_BTD: Tensor) -> Tensor:
        """The video-level prediction of the model, 0/1, shape (B, K)."""

    # Labels --------------------------------------------------------------------------------

    @abstractmethod
    def targets(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Video-level labels, shape (V, K)."""

    @abstractmethod
    def truth(self, videos: VideoSet, chosen: Iterable[Video]) -> NDArray[np.bool_]:
        """Segment labels, shape (V, T, K).

        Raises:
            DatasetError: A video lacks the annotations that the task needs.
        """

    # Evaluation ----------------------------------------------------------------------------

    @abstractmethod
    def judge(
        self, truth_VTK: NDArray[np.bool_], prob_VTK: NDArray[np.floating]
    ) -> Mapping[str, float | None]:
        """All of `metrics`, in percent; None where one is undefined (0/0).

        Raises:
            FloatingPointError: A probability is not a finite number: the training diverged.
        """

    @abstractmethod
    def background_share(self, prob_VTK: NDArray[np.floating]) -> float:
        """The part of the segments in which no event is predicted, in 0..1."""

    @staticmethod
    def refuse_not_finite(prob_VTK: NDArray[np.floating]) -> None:
        """Refuse probabilities that are no numbers: `argmax` would name class 0 for them.

        Raises:
            FloatingPointError: There is one.
        """
        if not np.isfinite(prob_VTK).all():
            raise FloatingPointError("a predicted probability is not a finite number")

    # Windows -------------------------------------------------------------------------------

    def threshold_by_column(self, threshold: Threshold, num_columns: int) -> NDArray[np.float64]:
        """tau of each of the columns."""
        if not isinstance(threshold, Mapping):
            threshold = dict.fromkeys(self.parts, threshold)
        values = [threshold[part] for part in self.parts]
        return np.repeat(np.array(values), num_columns // len(values))

    @abstractmethod
    def by_class(self, counts_E: NDArray[np.integer]) -> list[int]:
        """Counts of the columns of events, without background, as counts of the classes."""

    def count_segments(
        self, targets_VK: NDArray[np.bool_], labels_VTK: NDArray[np.bool_]
    ) -> dict[str, int]:
        """What the base model says of the segments of the training videos, as counts."""
        num_events = targets_VK.shape[1] - self.background
        targets_VE, labels_VTE = targets_VK[:, :num_events], labels_VTK[..., :num_events]
        present_VT = np.any(labels_VTE, axis=-1)
        outside_VT = (labels_VTE & ~targets_VE[:, None]).any(axis=-1)
        event_free_V = ~targets_VE.any(axis=1)
        return {
            "segments": present_VT.size,
            "background": int((~present_VT).sum()),
            "outside_label": int(outside_VT.sum()),
            "of_event_free": int(present_VT[event_free_V].size),
            "events_in_event_free": int(present_VT[event_free_V].sum()),
        }

    def count_windows(
        self, targets_VK: NDArray[np.bool_], labels_VWK: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """What refinement made of the windows of the videos with an event, as counts."""
        num_events = targets_VK.shape[1] - self.background
        targets_VE, labels_VWE = targets_VK[:, :num_events], labels_VWK[..., :num_events]
        event_V = targets_VE.any(axis=1)
        num_windows = labels_VWK.shape[1]
        return {
            "videos": int(event_V.sum()),
            "of_events": int(event_V.sum()) * num_windows,
            "background": int((~labels_VWE[event_V].any(axis=-1)).sum()),
            "of_class": self.by_class(targets_VE.sum(axis=0) * num_windows),
            "kept_of_class": self.by_class(labels_VWE.sum(axis=(0, 1))),
        }
