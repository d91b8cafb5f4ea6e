"""Render the report of one run as an HTML page.

Pictures, styles and one script, which searches and sorts the videos, are embedded. The content
security policy of the page forbids everything else except media files of the page's own origin.
Names and messages are escaped. The page can therefore be mailed and archived. With many videos,
their timelines are in files beside the page, and a second page embeds all.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from markupsafe import Markup, escape

from distributed_avel.metrics.bootstrap import Interval
from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.report import figures, tables
from distributed_avel.report.page_data import LearningCurve, Report
from distributed_avel.report.task_views import view_of
from distributed_avel.report.templates import flatten, render
from distributed_avel.report.timelines import time_ticks
from distributed_avel.report.video_list import (
    ListedVideo,
    ListPart,
    VideoList,
    VideoListData,
    listed_page_files,
)

T = TypeVar("T")


def render_page(report: Report) -> str:
    """Return the page, with everything embedded, as HTML."""
    return _render(report, VideoListData(_list(report)).part() if report.videos else None)


def page_files(report: Report, name: str) -> dict[str, str]:
    """Return the page and the files that belong to it, by their paths.

    Args:
        report: The data.
        name: See `listed_page_files`.
    """
    if not report.videos:
        return {name: render_page(report)}
    return listed_page_files(name, _list(report), partial(_render, report))


MEDIA_ROOT = 'data-media-root=""'
"""Attribute of a page that gets the address of the folder of the media files, relative to the page
(`with_media_root`); the page plays no media as long as it is empty."""


def with_media_root(page: str, folder: str, media: str) -> str:
    """Let a page play the media files of a folder.

    Args:
        page: HTML of `page_files`.
        folder: Absolute path of the folder of the page.
        media: Absolute path of the folder of the media files.
    """
    address = quote(os.path.relpath(media, folder).replace(os.sep, "/")) + "/"
    return page.replace(MEDIA_ROOT, f'data-media-root="{escape(address)}"', 1)


def _render(report: Report, videos: ListPart | None) -> str:
    return render("page.html", report, videos=videos, **_context(report))


def _list(report: Report) -> VideoList:
    view, paths = view_of(report), report.media
    return VideoList(
        videos=[
            ListedVideo(
                drawing=view.drawing(video),
                labels=view.labels(video),
                values=view.sort_values(video),
                media=quote(paths[video.video_id]) if video.video_id in paths else None,
            )
            for video in report.videos
        ],
        columns=view.sort_columns(),
        segment_s=report.timeline.segment_s,
        synthetic=report.synthetic,
        first_order="pictures first" if report.timelines else "as selected",
    )


def _context(report: Report) -> dict[str, Any]:
    view = view_of(report)
    timelines = view.drawings()
    settings = list(flatten(report.settings))
    num_failures = len(report.failures) if report.num_failures is None else report.num_failures
    context: dict[str, Any] = {
        "view": view,
        "results": tables.results_table(report.results, conditions=report.conditions),
        "intervals": tables.intervals_table(report.intervals),
        "class_scores": tables.class_table(_first_and_last(report.class_scores)),
        "arm_notes": tables.arm_notes(report.results, view.repeated_over),
        "tiles": _tiles(report, (*view.tiles, *VIDEO_METRICS)),
        "panels": view.panels(),
        "threshold_figures": {
            part: Markup(figures.threshold_figure(curve))
            for part, curve in report.threshold_curves.items()
        },
        "tau_arm": next((curve.arm for curve in report.threshold_curves.values()), ""),
        "windows": report.windows,
        "windows_figure": "",
        "curve_figures": {},
        "timelines": timelines,
        "has_scores": any(lane.probability for video in timelines for lane in video.lanes),
        "ticks": time_ticks(report.timeline),
        "num_failures": num_failures,
        "settings": settings,
        "is_naive": tables.is_naive,
        "format_cell": tables.format_cell,
        "heading": tables.heading,
    }
    if report.windows:
        figure = figures.windows_figure(report.windows, report.classes, view.unit)
        context["windows_figure"] = Markup(figure)
    for metric, curves in _by_metric(report.learning_curves).items():
        context["curve_figures"][metric] = Markup(figures.curves_figure(curves, view.styles))
    context["sections"] = list(_sections(report, context))
    return context


def _sections(report: Report, context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "results", "Results"
    if context["panels"] or report.class_scores:
        yield "classes", "Classes"
    if context["threshold_figures"] or context["windows_figure"]:
        yield "refinement", "Label refinement"
    if context["curve_figures"]:
        yield "training", "Training"
    if num_videos := len(report.videos or report.timelines):
        yield "timelines", f"Timelines of {num_videos:,} videos"
    yield "failures", f"Unusable videos ({context['num_failures']})"
    if context["settings"] or report.provenance:
        yield "settings", "Settings"


def _tiles(report: Report, metrics: Sequence[str]) -> list[dict[str, str]]:
    arms = [arm for arm in report.compared if arm in report.results]
    if len(arms) < 2:
        return []
    base, refined = arms[0], arms[-1]
    before, after = report.results[base], report.results[refined]
    return [
        {
            "name": tables.heading(metric),
            "before": tables.format_cell(before[metric]),
            "after": tables.format_cell(after[metric]),
            "base": base,
            "refined": refined,
            "change": _change(report.differences.get(metric)),
        }
        for metric in metrics
        if metric in before and metric in after
    ]


def _change(difference: Interval | None) -> str:
    """Format the interval of a difference, such as `+1.2 to +4.0`, with minus signs."""
    if difference is None:
        return ""
    return f"{difference.low:+.1f} to {difference.high:+.1f}".replace("-", "−")


def _first_and_last(scores: Mapping[str, T]) -> dict[str, T]:
    return {arm: scores[arm] for arm in dict.fromkeys([*scores][:1] + [*scores][-1:])}


def _by_metric(curves: tuple[LearningCurve, ...]) -> dict[str, list[LearningCurve]]:
    by_metric: dict[str, list[LearningCurve]] = {}
    for curve in curves:
        by_metric.setdefault(curve.metric, []).append(curve)
    return by_metric
