"""SVG figures of a report: confusion matrix, per-class F1, threshold, learning curves, windows.

The style sheet of the page styles them; `standalone` embeds it into a separate SVG file. Each arm
has a style number, which is the same in all figures (`task_views.arm_styles`).

Shape suffixes used in this file:
    A = arms    C = event classes    K = C + 1, background last
"""

import math
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from distributed_avel.report import svg
from distributed_avel.report.page_data import LearningCurve, ThresholdPlot, WindowSummary
from distributed_avel.report.tables import heading

WIDTH = 400
"""Width of a figure in SVG units; the page displays a unit as at least 1 px."""

_LABEL_CHARACTERS = 22
_PLOT_LEFT, _PLOT_BOTTOM = 40, 40
_FEW_CLASSES = 12
_MAX_DOTS = 30
_PROBABILITY_TICKS = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


def standalone(figure: str) -> str:
    """Return a figure as a self-contained SVG file, light or dark as the viewer prefers."""
    css = (
        resources.files("distributed_avel.report")
        .joinpath("figure.css")
        .read_text(encoding="utf-8")
    )
    tag = '<svg xmlns="http://www.w3.org/2000/svg" class="figure"'
    head, rest = figure.removeprefix("<svg").split(">", 1)
    return f"{tag}{head}><style>{css}</style>{rest}"


def confusion_figure(confusion_KK: NDArray[np.integer], names: Sequence[str]) -> str:
    """Draw a confusion matrix, ground-truth classes in rows, shaded by the share of the row.

    Columns are labelled with the numbers of the rows, so that long names are written once.

    Args:
        confusion_KK: Counts of segments.
        names: Names of the K classes.
    """
    few = len(names) <= _FEW_CLASSES
    cell = 28 if few else 13
    labels = [svg.shorten(name, _LABEL_CHARACTERS) for name in names]
    left = 30 + svg.CHARACTER_WIDTH * max(len(label) for label in labels)
    top, side = 16, cell * len(names)
    shares_KK = confusion_KK / np.maximum(confusion_KK.sum(axis=1, keepdims=True), 1)

    parts = [
        svg.text(left, top - 5, "predicted →", class_="tick"),
        svg.text(left - 24, top - 5, "true ↓", anchor="end", class_="tick"),
        svg.element("rect", x=left, y=top, width=side, height=side, class_="matrix"),
    ]
    for row, column in np.argwhere(confusion_KK > 0):
        count, share = int(confusion_KK[row, column]), float(shares_KK[row, column])
        tooltip = f"true {names[row]}, predicted {names[column]}: {count} ({share:.0%})"
        x, y = left + cell * column, top + cell * row
        heat = {"class_": "heat", "fill_opacity": round(0.06 + 0.94 * share, 2)}
        parts.append(
            svg.element("rect", svg.title(tooltip), x=x, y=y, width=cell, height=cell, **heat)
        )
        if few:
            dark = " on-heat" if share > 0.5 else ""
            style = {"anchor": "middle", "class_": f"cell{dark}"}
            parts.append(svg.text(x + cell / 2, y + cell / 2 + 3.5, f"{100 * share:.0f}", **style))
    size = "" if few else " small"
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        middle = cell * (index + 0.5)
        number = {"class_": f"tick{size}", "anchor": "middle"}
        parts += [
            svg.element(
                "g",
                svg.title(name),
                svg.text(left - 24, top + middle + 3.5, label, anchor="end", class_=f"name{size}"),
            ),
            svg.text(left - 11, top + middle + 3.5, f"{index + 1}", **number),
            svg.text(left + middle, top + side + 12, f"{index + 1}", **number),
        ]
    border, axis = cell * (len(names) - 1), {"class_": "axis"}
    x, y, right, bottom = left + border, top + border, left + side, top + side
    parts.append(svg.element("line", x1=x, x2=x, y1=top, y2=bottom, **axis))
    parts.append(svg.element("line", x1=left, x2=right, y1=y, y2=y, **axis))
    return svg.figure(right + 2, bottom + 18, *parts, label="Confusion matrix")


def f1_figure(
    f1_by_arm: Mapping[str, NDArray[np.floating]],
    names: Sequence[str],
    styles: Mapping[str, int],
    *,
    background: bool = True,
) -> str:
    """Draw the F1 of each class, one dot per arm.

    Classes are sorted by the F1 of the first arm; background is at the top.

    Args:
        f1_by_arm: F1 of each class in percent, (K,) or (C,), by arm; NaN (undefined) has no dot.
        names: Names of the classes, in the same order.
        styles: Style number of each arm.
        background: Whether the last class is background.
    """
    arms = list(f1_by_arm)
    f1_AK = np.stack([np.asarray(f1_by_arm[arm]) for arm in arms])
    num_classes = len(names) - background
    by_f1 = np.argsort(-np.nan_to_num(f1_AK[0, :num_classes]), kind="stable")
    order = [*range(num_classes, len(names)), *(int(k) for k in by_f1)]
    labels = [svg.shorten(names[k], _LABEL_CHARACTERS) for k in order]
    left = 12 + svg.CHARACTER_WIDTH * max(len(label) for label in labels)
    legend = svg.legend_height(arms, WIDTH - 20)
    row, top = 24 if len(names) <= _FEW_CLASSES else 17, legend + 10
    height = row * len(order)
    axes = svg.Axes(
        left=left,
        top=top,
        width=WIDTH - left - 14,
        height=height,
        x_ticks=[0, 25, 50, 75, 100],
        y_ticks=[0, 1],
    )
    parts = [svg.legend(arms, [styles[arm] for arm in arms], 4, 12, WIDTH - 20, dots=True)]
    for tick in axes.x_ticks:
        x = axes.x(tick)
        parts.append(svg.element("line", x1=x, x2=x, y1=top, y2=top + height, class_="grid"))
        parts.append(svg.text(x, top + height + 14, f"{tick:g}", anchor="middle", class_="tick"))
    for index, (k, label) in enumerate(zip(order, labels, strict=True)):
        y = top + row * (index + 0.5)
        defined = {
            arm: float(f1) for arm, f1 in zip(arms, f1_AK[:, k], strict=True) if not np.isnan(f1)
        }
        tooltip = ", ".join(
            f"{arm} {defined[arm]:.1f}" if arm in defined else f"{arm} –" for arm in arms
        )
        strong = " strong" if k == num_classes else ""
        dots = [
            svg.element("circle", cx=axes.x(f1), cy=y, r=4, class_=f"dot s{styles[arm]}")
            for arm, f1 in defined.items()
        ]
        if defined:
            low, high = axes.x(min(defined.values())), axes.x(max(defined.values()))
            dots.insert(0, svg.element("line", x1=low, x2=high, y1=y, y2=y, class_="span"))
        parts.append(
            svg.element(
                "g",
                svg.title(f"{names[k]}: {tooltip}"),
                svg.text(left - 7, y + 4, label, anchor="end", class_=f"name{strong}"),
                *dots,
            )
        )
    parts.append(svg.text(left + axes.width / 2, top + height + 30, "F1, percent", anchor="middle"))
    return svg.figure(WIDTH, top + height + 36, *parts, label="F1 of each class")


def threshold_figure(curve: ThresholdPlot) -> str:
    """Draw sensitivity and specificity of the pseudo-labels over tau; the chosen tau is marked.

    The axis of tau has a logit scale, because the best tau may be close to 0 or to 1.
    """
    names = ("sensitivity", "specificity")
    top = svg.legend_height(names, WIDTH - _PLOT_LEFT) + 26
    low, high = min(curve.chosen, *curve.thresholds), max(curve.chosen, *curve.thresholds)
    ticks = [tick for tick in _PROBABILITY_TICKS if low <= tick <= high]
    axes = svg.Axes(
        left=_PLOT_LEFT,
        top=top,
        width=WIDTH - _PLOT_LEFT - 18,
        height=200,
        x_ticks=[_logit(tick) for tick in ticks],
        x_names=[f"{tick:g}" for tick in ticks],
        x_ends=(_logit(low), _logit(high)),
        y_ticks=[0, 0.25, 0.5, 0.75, 1],
    )
    at, bottom = axes.x(_logit(curve.chosen)), axes.top + axes.height
    is_right = at > WIDTH / 2  # write the label of the chosen tau to the left of its line
    parts = [
        svg.legend(names, [3, 4], _PLOT_LEFT, 12, WIDTH - _PLOT_LEFT),
        axes.draw("threshold τ, logit scale", "rate"),
        svg.element("line", x1=at, x2=at, y1=axes.top, y2=bottom, class_="chosen"),
        svg.text(
            at - 5 if is_right else at + 5,
            bottom - 8,
            f"chosen: {curve.chosen:.3g}",
            anchor="end" if is_right else "start",
            class_="strong",
        ),
    ]
    logits = [_logit(threshold) for threshold in curve.thresholds]
    for rates, style in ((curve.sensitivity, 3), (curve.specificity, 4)):
        parts.append(axes.line(logits, rates, class_=f"line s{style}"))
        if len(rates) <= _MAX_DOTS:
            for threshold, rate in zip(curve.thresholds, rates, strict=True):
                tooltip = svg.title(f"τ = {threshold:.3g}: {rate:.3f}")
                circle = {"cx": axes.x(_logit(threshold)), "cy": axes.y(rate), "r": 2.5}
                parts.append(svg.element("circle", tooltip, **circle, class_=f"dot s{style}"))
    return svg.figure(
        WIDTH,
        bottom + _PLOT_BOTTOM,
        *parts,
        label="Sensitivity and specificity over the threshold",
    )


def curves_figure(curves: Sequence[LearningCurve], styles: Mapping[str, int]) -> str:
    """Draw one metric over the epochs of several trainings.

    Args:
        curves: Curves of one metric, with at least one point each; non-finite values are omitted.
        styles: Style number of each arm.
    """
    arms = [curve.arm for curve in curves]
    points = [
        [(e, v) for e, v in zip(c.epochs, c.values, strict=True) if np.isfinite(v)] for c in curves
    ]
    epochs = [epoch for line in points for epoch, _ in line] or [0]
    values = [value for line in points for _, value in line] or [0]
    top = svg.legend_height(arms, WIDTH - _PLOT_LEFT) + 26
    axes = svg.Axes(
        left=_PLOT_LEFT + 6,
        top=top,
        width=WIDTH - _PLOT_LEFT - 24,
        height=170,
        x_ticks=svg.nice_ticks(min(epochs), max(epochs)),
        y_ticks=svg.nice_ticks(min(values), max(values), about=4),
    )
    parts = [
        svg.legend(arms, [styles[arm] for arm in arms], _PLOT_LEFT, 12, WIDTH - _PLOT_LEFT),
        axes.draw("epoch", heading(curves[0].metric)),
    ]
    for curve, line in zip(curves, points, strict=True):
        xs, ys = [epoch for epoch, _ in line], [value for _, value in line]
        style = f"line s{styles[curve.arm]}"
        parts.append(axes.line(xs, ys, class_=style))
        if len(line) == 1:
            circle = {"cx": axes.x(xs[0]), "cy": axes.y(ys[0]), "r": 3}
            parts.append(svg.element("circle", **circle, class_=f"dot s{styles[curve.arm]}"))
    return svg.figure(
        WIDTH, top + axes.height + _PLOT_BOTTOM, *parts, label=f"{curves[0].metric} over epochs"
    )


def windows_figure(summary: WindowSummary, names: Sequence[str], unit: str = "windows") -> str:
    """Draw, for each event, the windows of its videos and those that keep the event in Step 2.

    Args:
        summary: Counts of the windows.
        names: Names of the C events.
        unit: Name of what Step 2 labelled: "windows" or "modalities".
    """
    of_video_C = np.asarray(summary.of_video_C)
    order = [int(c) for c in np.argsort(-of_video_C, kind="stable") if of_video_C[c]]
    labels = {c: svg.shorten(names[c], _LABEL_CHARACTERS) for c in order}
    left = 12 + svg.CHARACTER_WIDTH * max((len(label) for label in labels.values()), default=0)
    most = max((summary.of_video_C[c] for c in order), default=1)
    row, top, width = 17, 6, WIDTH - left - 52
    parts = []
    for index, c in enumerate(order):
        y = top + row * index
        all_, kept = summary.of_video_C[c], summary.kept_C[c]
        parts.append(
            svg.element(
                "g",
                svg.title(f"{names[c]}: {kept} of {all_} {unit}"),
                svg.text(left - 7, y + 12, labels[c], anchor="end", class_="name"),
                svg.element(
                    "rect", x=left, y=y + 3, width=width * all_ / most, height=11, class_="all"
                ),
                svg.element(
                    "rect", x=left, y=y + 3, width=width * kept / most, height=11, class_="kept"
                ),
                svg.text(
                    left + width * all_ / most + 5, y + 12, f"{kept / all_:.0%}", class_="tick"
                ),
            )
        )
    return svg.figure(
        WIDTH,
        top + row * len(order) + 4,
        *parts,
        label=f"{unit.capitalize()} of each event before and after Step 2",
    )


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))
