"""Evaluation of videos of which some or all have video-level labels only, without times.

Segment metrics are computed from the videos with times (`Task.annotated`). If a video has none,
video-level metrics (`metrics.video`) of all videos are added, which take over the selection of
epochs and of tau if no video has times.

Shape suffixes used in this file:
    V = videos    A = videos with times    T = segments    K = columns of labels
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.method.windows import valid_segments
from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.tasks.base import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationLabels:
    """Labels of the videos of an evaluation.

    Args:
        targets_VK: Video-level labels of all videos.
        annotated_V: Videos with times, see `Task.annotated`.
        truth_ATK: Ground-truth segment labels of the videos with times.
        lengths_V: Number of segments of each video; None if all have T.
    """

    targets_VK: NDArray[np.bool_]
    annotated_V: NDArray[np.bool_]
    truth_ATK: NDArray[np.bool_]
    lengths_V: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        videos: VideoSet,
        chosen: Sequence[Video],
        lengths_V: NDArray[np.int64] | None = None,
    ) -> "EvaluationLabels":
        """Collect the labels of the chosen videos."""
        annotated_V = task.annotated(chosen)
        with_times = [v for v, annotated in zip(chosen, annotated_V, strict=True) if annotated]
        return cls(
            targets_VK=task.targets(videos, chosen),
            annotated_V=annotated_V,
            truth_ATK=task.truth(videos, with_times),
            lengths_V=lengths_V,
        )

    @property
    def valid(self) -> NDArray[np.bool_] | None:
        """True for the segments that a video has; None if all videos have T."""
        if self.lengths_V is None:
            return None
        return valid_segments(self.lengths_V, self.truth_ATK.shape[1])

    def has_events(self, task: Task) -> bool:
        """Return True if a video has times or an event, so that some metric is defined."""
        return bool(self.annotated_V.any() or task.events_of_classes(self.targets_VK).any())

    def metrics(self, task: Task, prob_VTK: NDArray[np.floating]) -> dict[str, float | None]:
        """Compute segment metrics, video-level metrics, or both, in percent.

        Raises:
            FloatingPointError: A probability is not finite, because the training diverged.
        """
        metrics: dict[str, float | None] = {}
        valid_VT = self.valid
        if self.annotated_V.any():
            valid_AT = None if valid_VT is None else valid_VT[self.annotated_V]
            metrics |= task.judge(self.truth_ATK, prob_VTK[self.annotated_V], valid_AT)
        if not self.annotated_V.all():
            metrics |= task.judge_videos(self.targets_VK, prob_VTK, valid_VT)
        return metrics


def lacks_times(task: Task, validation: Sequence[Video]) -> bool:
    """Whether there are validation videos with an event, and none of them has times."""
    with_event = [video for video in validation if video.labels]
    return bool(with_event) and not any(task.has_times(video) for video in with_event)


def best_epoch_metric(task: Task, metrics: Mapping[str, float | None]) -> str:
    """Return the metric that selects the best epoch: `video_map` if there are no times."""
    return task.best_epoch if task.best_epoch in metrics else VIDEO_METRICS[0]


def criterion_of(task: Task, validation: Sequence[Video]) -> tuple[str, ...]:
    """Return the metrics whose mean selects tau: video-level metrics if there are no times."""
    return task.criterion if task.annotated(validation).any() else VIDEO_METRICS
