"""Render the report of one run as a self-contained HTML page without scripts.

Frames and styles are embedded, and the content security policy of the page forbids loading
anything. Names and messages are escaped. The page can therefore be mailed and archived.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.report import figures, tables
from distributed_avel.report.page_data import LearningCurve, Report
from distributed_avel.report.task_views import view_of
from distributed_avel.report.templates import flatten, render
from distributed_avel.report.timelines import time_ticks


def render_page(report: Report) -> str:
    """Return the page as HTML."""
    return render("page.html", report, **_context(report))


def _context(report: Report) -> dict[str, Any]:
    view = view_of(report)
    timelines = view.drawings()
    settings = list(flatten(report.settings))
    num_failures = len(report.failures) if report.num_failures is None else report.num_failures
    context: dict[str, Any] = {
        "view": view,
        "results": tables.results_table(report.results, conditions=report.conditions),
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
    if context["panels"]:
        yield "classes", "Classes"
    if context["threshold_figures"] or context["windows_figure"]:
        yield "refinement", "Label refinement"
    if context["curve_figures"]:
        yield "training", "Training"
    if context["timelines"]:
        yield "timelines", f"Timelines of {len(context['timelines'])} videos"
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
        }
        for metric in metrics
        if metric in before and metric in after
    ]


def _by_metric(curves: tuple[LearningCurve, ...]) -> dict[str, list[LearningCurve]]:
    by_metric: dict[str, list[LearningCurve]] = {}
    for curve in curves:
        by_metric.setdefault(curve.metric, []).append(curve)
    return by_metric
