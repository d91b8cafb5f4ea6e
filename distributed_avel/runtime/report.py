"""The report page, put together from what the stages wrote."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from distributed_avel.refine import pseudo_labels
from distributed_avel.report.figures import standalone, threshold_figure, windows_figure
from distributed_avel.report.page import render_page
from distributed_avel.report.page_data import (
    Failure,
    LearningCurve,
    Report,
    ThresholdCurve,
    WindowSummary,
)
from distributed_avel.report.predictions import LocalizationPredictions, ParsingPredictions
from distributed_avel.report.tables import results_table, to_csv
from distributed_avel.report.task_views import view_of
from distributed_avel.report.templates import flatten
from distributed_avel.runtime.evaluate import PREDICTIONS
from distributed_avel.runtime.progress import say
from distributed_avel.tasks import Parsing, Task

REPORT = "report.html"
_FRAME_HEIGHT = 84
_MAX_FAILURES = 50


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """What the page is made of.

    Args:
        root: Where the media files lie, or None if there are none.
        evaluated: Folder of the evaluation.
        results: What `results.json` holds.
        shown: The arms to compare, the base model first and the refined one last.
        refined: The arm that `threshold_curves` belong to.
        exchanged: Step 2 of that arm labelled whole modalities, not windows.
        curves: Learning curves by arm.
    """

    task: Task
    videos: VideoSet
    root: Location | None
    evaluated: Location
    results: Mapping[str, Any]
    shown: Sequence[str]
    refined: str
    exchanged: bool
    curves: Mapping[str, pa.Table]
    failures: pa.Table
    threshold_curves: Mapping[str, pseudo_labels.ThresholdCurve]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    warnings: Sequence[str]
    num_timelines: int


def write_report(sources: ReportSources, out: Location) -> list[Location]:
    """Write the page to `out`, and the table and the figures on their own.

    Returns:
        The files.
    """
    table = (sources.evaluated / PREDICTIONS).read_table()
    if isinstance(sources.task, Parsing):
        predictions = ParsingPredictions(table, sources.videos, exchanged=sources.exchanged)
    else:
        predictions = LocalizationPredictions(table, sources.videos)
    failures = sources.failures.slice(0, _MAX_FAILURES).to_pylist()
    report = predictions.report(
        sources.shown,
        sources.num_timelines,
        partial(_frames, sources),
        results=sources.results["arms"],
        conditions=sources.results["conditions"],
        settings=sources.settings,
        provenance=dict(flatten(sources.provenance)),
        warnings=tuple(sources.warnings),
        threshold_curves=_threshold_curves(sources),
        learning_curves=tuple(_learning_curves(sources)),
        windows=_windows(sources.results),
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
    yield "results.csv", to_csv(results_table(report.results, conditions=report.conditions))
    view = view_of(report)
    for name, figure in view.files():
        yield name, standalone(figure)
    for part, curve in report.threshold_curves.items():
        suffix = f"_{part}" if len(report.threshold_curves) > 1 else ""
        yield f"thresholds{suffix}.svg", standalone(threshold_figure(curve))
    if report.windows:
        yield "windows.svg", standalone(windows_figure(report.windows, report.classes, view.unit))


def _threshold_curves(sources: ReportSources) -> dict[str, ThresholdCurve]:
    chosen = sources.results["threshold"]
    if chosen is None:
        return {}
    return {
        part: ThresholdCurve(
            thresholds=tuple(curve.thresholds_G.tolist()),
            sensitivity=tuple(curve.sensitivity_G.tolist()),
            specificity=tuple(curve.specificity_G.tolist()),
            chosen=chosen[part] if isinstance(chosen, Mapping) else chosen,
            arm=sources.refined,
        )
        for part, curve in sources.threshold_curves.items()
    }


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


def _learning_curves(sources: ReportSources) -> list[LearningCurve]:
    metrics = ("train/total", *(f"val/{metric}" for metric in sources.task.criterion))
    found = []
    for arm, table in sources.curves.items():
        for metric in metrics:
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
