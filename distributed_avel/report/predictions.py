"""Convert the predictions table of an evaluation to the `Report` of its task.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes    K = C + 1, background last
    N = rows of the table (V * T)    M = modalities: audio ("heard"), visual ("seen")
    B = resamples of the videos
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from distributed_avel.datasets import Video, VideoSet
from distributed_avel.metrics.bootstrap import interval, video_weights
from distributed_avel.metrics.detection import detection_metrics
from distributed_avel.metrics.parsing import MODALITIES, TYPES, segment_counts, video_f_scores
from distributed_avel.metrics.segment import (
    confusion_matrix,
    one_label_per_segment,
    weighted_segment_metrics,
)
from distributed_avel.randomness import derive
from distributed_avel.report.page_data import (
    BACKGROUND,
    ClassScores,
    LocalizationReport,
    ParsedVideo,
    ParsingReport,
    Pictures,
    Report,
    VideoTimeline,
)

_UNKNOWN = -1

PicturesOf = Callable[[Video, int], Pictures]
"""Returns the pictures of a video of that number of segments, with one frame each, or none."""


class Predictions(ABC):
    """Predictions of all arms for the segments of the test videos.

    Args:
        table: Predictions of all arms, in the schema of the task (`schema.predictions_schema` or
            `schema.parsing_predictions_schema`).
        videos: The data set.
    """

    report_class: ClassVar[type[Report]]
    selection: ClassVar[str]
    """Describes the videos that are drawn first as timelines."""

    def __init__(self, table: pa.Table, videos: VideoSet) -> None:
        self._table = table
        self._videos = videos
        self._num_segments = videos.timeline.num_segments
        first = self._rows(table["arm"][0].as_py())
        ids, self._segment_N = first["video_id"].to_pylist(), first["segment"].to_numpy()
        self.video_ids: list[str] = list(dict.fromkeys(ids))
        number_of = {video_id: number for number, video_id in enumerate(self.video_ids)}
        self._video_N = np.array([number_of[video_id] for video_id in ids])
        self._lengths_V = np.bincount(self._video_N)

    def report(
        self, arms: Sequence[str], num_timelines: int, pictures_of: PicturesOf, **others: Any
    ) -> Report:
        """Build the report.

        Args:
            arms: Arms to compare, the base model first and the refined model last.
            num_timelines: Number of test videos to draw with pictures.
            pictures_of: Returns the pictures of a video.
            others: Further fields of the report.
        """
        task, videos = self.report_class.task, self._videos
        selected = self._select()
        timelines = self._timelines(arms, selected)
        return self.report_class(
            title=f"{task[0].upper()}{task[1:]} on {videos.name}",
            dataset=videos.name,
            synthetic=videos.synthetic,
            classes=videos.classes,
            timeline=videos.timeline,
            timelines=tuple(
                replace(timeline, frames=pictures.frames, sound=pictures.sound)
                for timeline, (_, video) in zip(
                    timelines[:num_timelines], selected[:num_timelines], strict=True
                )
                for pictures in [pictures_of(video, timeline.num_segments)]
            ),
            videos=timelines,
            media={video.video_id: video.uri for _, video in selected if video.uri},
            shown=tuple(arms),
            num_videos=len(self.video_ids),
            timeline_selection=(
                f"drawn at random (by the id of the video) from the test videos {self.selection}, "
                "then from the others"
            ),
            **self._task_fields(arms),
            **self._measures(arms),
            **others,
        )

    def _measures(self, arms: Sequence[str]) -> dict[str, Any]:
        """Return the fields with metrics of the videos with times."""
        annotated_V = self._annotated()
        if not annotated_V.any():
            return {}
        weights_BV = video_weights(int(annotated_V.sum()))
        measured = {
            arm: self._weighted_metrics(arm, annotated_V, weights_BV)
            for arm in self._table["arm"].unique().to_pylist()
        }
        base, refined = measured[arms[0]], measured[arms[-1]]
        return {
            "intervals": {
                arm: {name: interval(values_B) for name, values_B in metrics.items()}
                for arm, metrics in measured.items()
            },
            "differences": {name: interval(refined[name] - base[name]) for name in base}
            if len(arms) > 1
            else {},
            "class_scores": {arm: self._class_scores(arm, annotated_V) for arm in arms},
            "chance": self._chance(),
        }

    @abstractmethod
    def _weighted_metrics(
        self, arm: str, annotated_V: NDArray[np.bool_], weights_BV: NDArray[np.floating]
    ) -> dict[str, NDArray[np.float64]]:
        """Return metrics of an arm in percent, shape (B,), for resamples of annotated videos."""

    @abstractmethod
    def _class_scores(self, arm: str, annotated_V: NDArray[np.bool_]) -> tuple[ClassScores, ...]:
        """Return the scores of each class."""

    def _chance(self) -> float | None:
        """Return the value of `Report.headline` without any model, in percent."""
        return None

    def _select(self) -> list[tuple[int, Video]]:
        """Return the test videos in the order in which they are drawn, with their index."""
        # Videos whose label holds throughout do not show the effect of refinement, so come last.
        varies_V = self._varies_in_time()
        order = sorted(
            range(len(varies_V)),
            key=lambda i: (not varies_V[i], derive(0, "timelines", self.video_ids[i])),
        )
        test = {video.video_id: video for video in self._videos.split("test")}
        return [(row, test[self.video_ids[row]]) for row in order]

    def _grid(self, values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Arrange values of the rows of an arm by video and segment, shape (V, T, ...)."""
        shape = (len(self.video_ids), self._num_segments, *values.shape[1:])
        grid_VT = np.full(shape, missing, values.dtype)
        grid_VT[self._video_N, self._segment_N] = values
        return grid_VT

    def _valid(self) -> NDArray[np.bool_]:
        """Mark the segments that a video has, shape (V, T)."""
        return np.arange(self._num_segments) < self._lengths_V[:, None]

    def _rows(self, arm: str) -> pa.Table:
        return self._table.filter(pc.field("arm") == arm)

    @abstractmethod
    def _varies_in_time(self) -> NDArray[np.bool_]:
        """Mark the videos whose segments differ from their video-level label, shape (V,)."""

    @abstractmethod
    def _annotated(self) -> NDArray[np.bool_]:
        """Mark the videos with times, shape (V,)."""

    @abstractmethod
    def _task_fields(self, arms: Sequence[str]) -> dict[str, Any]:
        """Return the fields that only the report of this task has."""

    @abstractmethod
    def _timelines(self, arms: Sequence[str], selected: Sequence[tuple[int, Video]]) -> list[Any]:
        """Return the timelines of the selected videos."""


class LocalizationPredictions(Predictions):
    """Predictions of localization: one class per segment."""

    report_class = LocalizationReport
    selection = "whose event does not last throughout"

    def of_arm(self, arm: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ground-truth and the predicted class of each segment, both (V, T).

        The ground truth of a video without times is -1; both are -1 where a video has no segment.
        """
        rows = self._rows(arm)
        truth_N = rows["truth"].fill_null(_UNKNOWN).to_numpy().astype(np.int64)
        prediction_N = rows["prediction"].to_numpy().astype(np.int64)
        return self._grid(truth_N, _UNKNOWN), self._grid(prediction_N, _UNKNOWN)

    def scores(self, arm: str) -> NDArray[np.float32]:
        """Return the softmax probabilities, shape (V, T, K), 0 where a video has no segment."""
        column = self._rows(arm)["scores"].combine_chunks()
        return self._grid(column.values.to_numpy().reshape(-1, column.type.list_size), 0.0)

    def _varies_in_time(self) -> NDArray[np.bool_]:
        truth_VT, _ = self.of_arm(self._table["arm"][0].as_py())
        return ((truth_VT != truth_VT[:, :1]) & self._valid()).any(axis=1)

    def _task_fields(self, arms: Sequence[str]) -> dict[str, Any]:
        annotated_V = self._annotated()
        if not annotated_V.any():
            return {"confusion": {}}
        num_classes = self._videos.num_classes
        return {
            "confusion": {
                arm: confusion_matrix(*_known(*self._compared(arm, annotated_V)), num_classes)
                for arm in arms
            }
        }

    @cached_property
    def _labels(self) -> NDArray[np.bool_]:
        """The ground-truth classes of each segment of the annotated videos, (V, T, K)."""
        videos = {video.video_id: video for video in self._videos.split("test")}
        annotated_V = self._annotated()
        with_times = [videos[self.video_ids[row]] for row in np.flatnonzero(annotated_V)]
        return self._videos.segment_labels(with_times)

    def _compared(
        self, arm: str, annotated_V: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ground truth of the metrics, and the prediction, both (V, T).

        Both are -1 where a video has no segment.
        """
        # `of_arm` returns the first event of a segment with several events; the metrics count any
        # of them as correct. Use their rule, so that the figures agree with the metrics.
        prediction_VT = self.of_arm(arm)[1][annotated_V]
        truth_VT = one_label_per_segment(self._labels, prediction_VT)
        return np.where(self._valid()[annotated_V], truth_VT, _UNKNOWN), prediction_VT

    def _weighted_metrics(
        self, arm: str, annotated_V: NDArray[np.bool_], weights_BV: NDArray[np.floating]
    ) -> dict[str, NDArray[np.float64]]:
        num_classes = self._videos.num_classes
        truth_VT, prediction_VT = self._compared(arm, annotated_V)
        predicted_VTC = prediction_VT[..., None] == np.arange(num_classes)
        return {
            **weighted_segment_metrics(truth_VT, prediction_VT, num_classes, weights_BV),
            **detection_metrics(
                self._labels[..., :-1] & self._valid()[annotated_V, :, None],
                predicted_VTC,
                self.scores(arm)[annotated_V][..., :-1],
                weights_BV,
            ),
        }

    def _class_scores(self, arm: str, annotated_V: NDArray[np.bool_]) -> tuple[ClassScores, ...]:
        truth_VT, prediction_VT = self._compared(arm, annotated_V)
        names = (*self._videos.classes, BACKGROUND)
        return class_scores(*_known(truth_VT, prediction_VT), names)

    def _chance(self) -> float | None:
        """Return the accuracy of the most frequent class in every segment."""
        return 100 * float(self._labels[self._valid()[self._annotated()]].mean(axis=0).max())

    def _annotated(self) -> NDArray[np.bool_]:
        truth_VT, _ = self.of_arm(self._table["arm"][0].as_py())
        return truth_VT[:, 0] != _UNKNOWN

    def _timelines(
        self, arms: Sequence[str], selected: Sequence[tuple[int, Video]]
    ) -> list[VideoTimeline]:
        truth_VT, _ = self.of_arm(arms[0])
        annotated_V = self._annotated()
        classes = {arm: self.of_arm(arm)[1] for arm in arms}
        scores = {arm: self.scores(arm) for arm in arms}
        return [
            VideoTimeline(
                video_id=video.video_id,
                labels=video.labels,
                truth_T=truth_VT[row, :end] if annotated_V[row] else None,
                predictions={arm: class_VT[row, :end] for arm, class_VT in classes.items()},
                scores={arm: scores_VTK[row, :end] for arm, scores_VTK in scores.items()},
            )
            for row, video in selected
            for end in [self._lengths_V[row]]
        ]


def _known(
    truth_VT: NDArray[np.int64], prediction_VT: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the segments that the videos have, as one axis."""
    known_VT = prediction_VT != _UNKNOWN
    return truth_VT[known_VT], prediction_VT[known_VT]


class ParsingPredictions(Predictions):
    """Predictions of parsing: any number of classes per segment and modality.

    Args:
        table: See `Predictions`.
        videos: See `Predictions`.
        exchanged: See `ParsingReport`.
    """

    report_class = ParsingReport
    selection = "with an event that is not both audible and visible throughout"

    def __init__(self, table: pa.Table, videos: VideoSet, *, exchanged: bool = False) -> None:
        super().__init__(table, videos)
        self._exchanged = exchanged

    def of_arm(self, arm: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the ground-truth and the predicted events, both (V, M, T, C).

        The ground truth of a video without times is empty.
        """
        rows = self._rows(arm)
        truth = [self._events(rows[f"truth_{modality}"]) for modality in MODALITIES]
        events = [self._events(rows[modality]) for modality in MODALITIES]
        return np.stack(truth, axis=1), np.stack(events, axis=1)

    def _events(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Convert lists of classes to a boolean array, shape (V, T, C)."""
        lists = column.combine_chunks()
        events_NC = np.zeros((len(lists), self._videos.num_classes), dtype=bool)
        lengths_N = lists.value_lengths().fill_null(0).to_numpy()
        segments = np.repeat(np.arange(len(lists)), lengths_N)
        events_NC[segments, lists.flatten().to_numpy()] = True
        return self._grid(events_NC, missing=False)

    def _varies_in_time(self) -> NDArray[np.bool_]:
        truth_VMTC, _ = self.of_arm(self._table["arm"][0].as_py())
        missing_V1T1 = ~self._valid()[:, None, :, None]
        everywhere_VC = (truth_VMTC | missing_V1T1).all(axis=(1, 2))
        somewhere_VC = truth_VMTC.any(axis=(1, 2))
        return (everywhere_VC != somewhere_VC).any(axis=1)

    def _task_fields(self, arms: Sequence[str]) -> dict[str, Any]:
        counts = {}
        annotated_V = self._annotated()
        for arm in arms if annotated_V.any() else ():
            truth_VMTC, events_VMTC = (events[annotated_V] for events in self.of_arm(arm))
            counts[arm] = tuple(
                segment_counts(truth_VMTC[:, m], events_VMTC[:, m]) for m in range(len(MODALITIES))
            )
        return {"counts": counts, "exchanged": self._exchanged}

    def _weighted_metrics(
        self, arm: str, annotated_V: NDArray[np.bool_], weights_BV: NDArray[np.floating]
    ) -> dict[str, NDArray[np.float64]]:
        arrays = [events[annotated_V] for events in self.of_arm(arm)]
        scores = video_f_scores(*(array[:, m] for array in arrays for m in range(len(MODALITIES))))
        metrics = {}
        for level, scores_V in scores.items():
            means = [100 * weights_BV @ s / weights_BV.sum(axis=1) for s in scores_V]
            values = (*means[:3], np.mean(means[:3], axis=0), means[3])
            metrics |= {
                f"{level}_{kind}": values_B for kind, values_B in zip(TYPES, values, strict=True)
            }
        return metrics

    def _class_scores(self, arm: str, annotated_V: NDArray[np.bool_]) -> tuple[ClassScores, ...]:
        truth_VMTC, events_VMTC = (events[annotated_V] for events in self.of_arm(arm))
        num_classes = self._videos.num_classes
        return tuple(
            scores
            for m, modality in enumerate(MODALITIES)
            for scores in class_scores(
                truth_VMTC[:, m].reshape(-1, num_classes),
                events_VMTC[:, m].reshape(-1, num_classes),
                [f"{name} {modality}" for name in self._videos.classes],
            )
        )

    def _annotated(self) -> NDArray[np.bool_]:
        truth = self._rows(self._table["arm"][0].as_py())[f"truth_{MODALITIES[0]}"]
        return truth.is_valid().to_numpy()[self._segment_N == 0]

    def _timelines(
        self, arms: Sequence[str], selected: Sequence[tuple[int, Video]]
    ) -> list[ParsedVideo]:
        truth_VMTC, _ = self.of_arm(arms[0])
        annotated_V = self._annotated()
        predictions = {arm: self.of_arm(arm)[1] for arm in arms}
        return [
            ParsedVideo(
                video_id=video.video_id,
                labels=video.labels,
                truth_MTC=truth_VMTC[row, :, :end] if annotated_V[row] else None,
                predictions={
                    arm: events_VMTC[row, :, :end] for arm, events_VMTC in predictions.items()
                },
            )
            for row, video in selected
            for end in [self._lengths_V[row]]
        ]


def class_scores(
    truth: NDArray[Any], prediction: NDArray[Any], names: Sequence[str]
) -> tuple[ClassScores, ...]:
    """Return support, precision, recall and F1 of each class.

    Args:
        truth: Class of each segment (N,), or its classes (N, C).
        prediction: Predicted class or classes, of the same shape.
        names: Names of the classes.
    """
    found = precision_recall_fscore_support(
        truth, prediction, labels=range(len(names)), zero_division=cast("Any", np.nan)
    )
    precision_C, recall_C, f1_C, support_C = (np.asarray(array) for array in found)
    return tuple(
        ClassScores(
            name=name,
            support=int(support_C[c]),
            precision=_percent(precision_C[c]),
            recall=_percent(recall_C[c]),
            f1=_percent(f1_C[c]),
        )
        for c, name in enumerate(names)
    )


def _percent(share: float) -> float | None:
    return None if np.isnan(share) else 100 * float(share)
