"""The report of one run as one HTML page that needs nothing else: no network, no script.

The page forbids itself to load anything (its content security policy), names and messages
are escaped, and frames are part of it. So it can be mailed, archived and opened in ten years.
"""

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distributed_avel.metrics.segment import per_class_f1
from distributed_avel.report import figures, tables
from distributed_avel.report.contents import LearningCurve, Report
from distributed_avel.report.timelines import draw_timeline, time_ticks

_NUM_STYLES = 8
_TILES = ("non_ave_f1", "ave_f1", "accuracy", "weighted_f1")


def render_page(report: Report) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=PackageLoader("distributed_avel", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(_context(report))


def _context(report: Report) -> dict[str, Any]:
    styles = arm_styles(report)
    arms = list(report.confusion)
    timelines = [draw_timeline(video, report) for video in report.timelines]
    settings = list(flatten(report.settings))
    num_failures = len(report.failures) if report.num_failures is None else report.num_failures
    context: dict[str, Any] = {
        "report": report,
        "css": Markup(style_sheet()),
        "results": tables.results_table(report.results),
        "arm_notes": tables.arm_notes(report.results),
        "tiles": _tiles(report),
        "num_test_videos": _num_test_videos(report),
        "base_arm": arms[0] if arms else "",
        "confusion_figures": {},
        "threshold_figure": "",
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
    names = report.column_names
    if arms:
        f1_by_arm = {arm: per_class_f1(confusion) for arm, confusion in report.confusion.items()}
        context["f1_figure"] = Markup(figures.f1_figure(f1_by_arm, names, styles))
        context["confusion_figures"] = {
            arm: Markup(figures.confusion_figure(confusion, names))
            for arm, confusion in report.confusion.items()
            if arm in (arms[0], arms[-1])
        }
    if report.threshold_curve:
        context["threshold_figure"] = Markup(figures.threshold_figure(report.threshold_curve))
    if report.windows:
        context["windows_figure"] = Markup(figures.windows_figure(report.windows, report.classes))
    for metric, curves in _by_metric(report.learning_curves).items():
        context["curve_figures"][metric] = Markup(figures.curves_figure(curves, styles))
    context["sections"] = list(_sections(context))
    return context


def arm_styles(report: Report) -> dict[str, int]:
    """Style number of each arm, the same in all figures; compared arms come first."""
    curves = (curve.arm for curve in report.learning_curves)
    arms = dict.fromkeys([*report.confusion, *curves, *report.results])
    return {arm: index % _NUM_STYLES for index, arm in enumerate(arms)}


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `outer.inner` and value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def style_sheet() -> str:
    """The style sheet of a page: that of its figures, then its own."""
    package = resources.files("distributed_avel.report")
    sheets = (package.joinpath(name) for name in ("figure.css", "page.css"))
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def _sections(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    report = context["report"]
    yield "results", "Results"
    if report.confusion:
        yield "classes", "Classes"
    if context["threshold_figure"] or context["windows_figure"]:
        yield "refinement", "Label refinement"
    if context["curve_figures"]:
        yield "training", "Training"
    if context["timelines"]:
        yield "timelines", f"Timelines of {len(context['timelines'])} videos"
    yield "failures", f"Unusable videos ({context['num_failures']})"
    if context["settings"] or report.provenance:
        yield "settings", "Settings"


def _tiles(report: Report) -> list[dict[str, str]]:
    arms = [arm for arm in report.confusion if arm in report.results]
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
        for metric in _TILES
        if metric in before and metric in after
    ]


def _num_test_videos(report: Report) -> int:
    counts = [int(confusion.sum()) for confusion in report.confusion.values()]
    return counts[0] // report.timeline.num_segments if counts else 0


def _by_metric(curves: tuple[LearningCurve, ...]) -> dict[str, list[LearningCurve]]:
    by_metric: dict[str, list[LearningCurve]] = {}
    for curve in curves:
        by_metric.setdefault(curve.metric, []).append(curve)
    return by_metric
