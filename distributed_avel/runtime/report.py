"""The report page, put together from what the stages wrote."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from distributed_avel.artifacts import Location
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import MediaError
from distributed_avel.media.video import sample_frames
from distributed_avel.metrics.segment import confusion_matrix
from distributed_avel.randomness import derive
from distributed_avel.refine import pseudo_labels
from distributed_avel.report.contents import (
    Failure,
    LearningCurve,
    Report,
    ThresholdCurve,
    VideoTimeline,
    WindowSummary,
)
from distributed_avel.report.figures import (
    confusion_figure,
    standalone,
    threshold_figure,
    windows_figure,
)
from distributed_avel.report.page import flatten, render_page
from distributed_avel.report.tables import results_table, to_csv
from distributed_avel.runtime.evaluate import PREDICTIONS
from distributed_avel.runtime.progress import say

REPORT = "report.html"
_FRAME_HEIGHT = 84
_MAX_FAILURES = 50
_CURVE_METRICS = ("train/total", "val/accuracy", "val/non_ave_f1")
_SELECTION = (
    "drawn at random (by the id of the video) from the test videos whose event does not last "
    "throughout, then from the others"
)


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """What the page is made of.

    Args:
        root: Where the media files lie, or None if there are none.
        evaluated: Folder of the evaluation.
        results: What `results.json` holds.
        shown: The arms to compare, the base model first and the refined one last.
        refined: The arm that `threshold_curve` belongs to.
        curves: Learning curves by arm.
    """

    videos: VideoSet
    root: Location | None
    evaluated: Location
    results: Mapping[str, Any]
    shown: Sequence[str]
    refined: str
    curves: Mapping[str, pa.Table]
    failures: pa.Table
    threshold_curve: pseudo_labels.ThresholdCurve | None
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    warnings: Sequence[str]
    num_timelines: int


def write_report(sources: ReportSources, out: Location) -> list[Location]:
    """Write the page to `out`, and the table and the figures on their own.

    Returns:
        The files.
    """
    videos = sources.videos
    predictions = _Predictions((sources.evaluated / PREDICTIONS).read_table(), videos)
    failures = sources.failures.slice(0, _MAX_FAILURES).to_pylist()
    report = Report(
        title=f"Audio-visual event localization on {videos.name}",
        dataset=videos.name,
        synthetic=videos.synthetic,
        classes=videos.classes,
        timeline=videos.timeline,
        results=sources.results["arms"],
        settings=sources.settings,
        provenance=dict(flatten(sources.provenance)),
        warnings=tuple(sources.warnings),
        confusion={
            arm: confusion_matrix(*predictions.of_arm(arm), videos.num_classes)
            for arm in sources.shown
        },
        threshold_curve=_curve(sources),
        learning_curves=tuple(_learning_curves(sources.curves)),
        windows=_windows(sources.results),
        timelines=tuple(_timelines(sources, predictions)),
        timeline_selection=_SELECTION,
        failures=tuple(
            Failure(video_id=f["video_id"], stage=f["stage"], error=f["error"]) for f in failures
        ),
        num_failures=sources.failures.num_rows,
    )
    files = {REPORT: render_page(report), **dict(_alone(report))}
    for name, text in files.items():
        (out / name).write_bytes(text.encode())
    return [out / name for name in files]


def _alone(report: Report) -> Iterator[tuple[str, str]]:
    """The table and the figures of the page as files of their own."""
    yield "results.csv", to_csv(results_table(report.results))
    for arm, confusion_KK in report.confusion.items():
        figure = confusion_figure(confusion_KK, report.column_names)
        yield f"confusion_{arm.replace('+', '_')}.svg", standalone(figure)
    if report.threshold_curve:
        yield "thresholds.svg", standalone(threshold_figure(report.threshold_curve))
    if report.windows:
        yield "windows.svg", standalone(windows_figure(report.windows, report.classes))


def _curve(sources: ReportSources) -> ThresholdCurve | None:
    curve, chosen = sources.threshold_curve, sources.results["threshold"]
    if curve is None or chosen is None:
        return None
    return ThresholdCurve(
        thresholds=tuple(curve.thresholds_G.tolist()),
        sensitivity=tuple(curve.sensitivity_G.tolist()),
        specificity=tuple(curve.specificity_G.tolist()),
        chosen=chosen,
        arm=sources.refined,
    )


def _windows(results: Mapping[str, Any]) -> WindowSummary | None:
    windows = results["windows"]
    if not windows:
        return None
    return WindowSummary(
        num_videos=windows["videos"],
        num_windows=windows["of_events"],
        num_background=windows["background"],
        of_video_C=tuple(windows["of_class"]),
        kept_C=tuple(windows["kept_of_class"]),
    )


class _Predictions:
    """The predictions of the arms, as arrays."""

    def __init__(self, table: pa.Table, videos: VideoSet) -> None:
        self._table = table
        self._num_segments = videos.timeline.num_segments
        first = table.filter(pc.field("arm") == table["arm"][0])
        self.video_ids: list[str] = first["video_id"].to_pylist()[:: self._num_segments]

    def of_arm(self, arm: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Truth and prediction, each of shape (V, T)."""
        rows = self._table.filter(pc.field("arm") == arm)
        shape = (-1, self._num_segments)
        truth_VT = rows["truth"].to_numpy().reshape(shape).astype(np.int64)
        return truth_VT, rows["prediction"].to_numpy().reshape(shape).astype(np.int64)

    def scores(self, arm: str) -> NDArray[np.float32]:
        """Probabilities, shape (V, T, K)."""
        rows = self._table.filter(pc.field("arm") == arm)
        column = rows["scores"].combine_chunks()
        return column.values.to_numpy().reshape(-1, self._num_segments, column.type.list_size)


def _learning_curves(curves: Mapping[str, pa.Table]) -> list[LearningCurve]:
    found = []
    for arm, table in curves.items():
        for metric in _CURVE_METRICS:
            rows = table.filter(pc.field("metric") == metric)
            if rows.num_rows:
                found.append(
                    LearningCurve(
                        arm=arm,
                        metric=metric,
                        epochs=tuple(rows["epoch"].to_pylist()),
                        values=tuple(rows["value"].to_pylist()),
                    )
                )
    return found


def _timelines(sources: ReportSources, predictions: _Predictions) -> list[VideoTimeline]:
    test = {v.video_id: v for v in sources.videos.split("test")}
    truth_VT, _ = predictions.of_arm(sources.shown[0])
    changes_V = (truth_VT != truth_VT[:, :1]).any(axis=1)
    order = sorted(
        range(len(truth_VT)),
        key=lambda i: (not changes_V[i], derive(0, "timelines", predictions.video_ids[i])),
    )
    classes = {arm: predictions.of_arm(arm)[1] for arm in sources.shown}
    scores = {arm: predictions.scores(arm) for arm in sources.shown}
    chosen = []
    for row in order[: sources.num_timelines]:
        video = test[predictions.video_ids[row]]
        chosen.append(
            VideoTimeline(
                video_id=video.video_id,
                labels=video.labels,
                truth_T=truth_VT[row],
                predictions={arm: class_VT[row] for arm, class_VT in classes.items()},
                scores={arm: scores_VTK[row] for arm, scores_VTK in scores.items()},
                frames=_frames(sources, video),
            )
        )
    return chosen


def _frames(sources: ReportSources, video: Video) -> tuple[bytes, ...]:
    """One JPEG a segment, from its middle; none where the file is gone since extraction."""
    if sources.root is None:
        return ()
    timeline = sources.videos.timeline
    try:
        media = (sources.root / video.uri).read_bytes()
        sampled = sample_frames(media, timeline, per_segment=2)
    except (MediaError, OSError) as error:
        say(f"report: no frames of {video.video_id}: {error}")
        return ()
    return tuple(_jpeg(sampled.segment(t)[1]) for t in range(timeline.num_segments))


def _jpeg(frame_HW3: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(frame_HW3)
    picture.thumbnail((2 * _FRAME_HEIGHT, _FRAME_HEIGHT))
    picture.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
