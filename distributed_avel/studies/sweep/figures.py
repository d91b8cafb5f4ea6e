"""SVG figures of a sweep: heat maps, trade-off, cost, parallel coordinates.

They use the style sheet of the other figures; `figures.standalone` makes an SVG file of one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from distributed_avel.metrics.segment import Metrics
from distributed_avel.report import svg
from distributed_avel.report.figures import WIDTH
from distributed_avel.report.tables import heading
from distributed_avel.search.selection import Trial, pareto_front
from distributed_avel.search.space import THRESHOLD, Windows, describe, logit

_LEFT, _BOTTOM, _TOP = 46, 40, 26
_MOST_COLUMNS = 8
_CHOSEN, _FRONT, _OTHER = "s0", "s3", "s7"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A finished trial in a figure."""

    point: Mapping[str, Any]
    seed: int
    metrics: Metrics
    windows: Windows
    is_chosen: bool

    def value(self, metric: str) -> float:
        """Return a metric, which must be defined."""
        value = self.metrics[metric]
        assert value is not None
        return value

    @property
    def label(self) -> str:
        """Point and seed, for tooltips."""
        return f"{describe(self.point)}, seed {self.seed}"


def marks(
    trials: Sequence[Trial], windows: Sequence[Windows], chosen: Mapping[str, Any]
) -> list[Mark]:
    """Convert the finished trials; the chosen point is last, so that it is drawn on top."""
    by_window_and_stride = {(w.window, w.stride): w for w in windows}
    finished = [
        Mark(
            point=trial.point,
            seed=trial.seed,
            metrics=trial.metrics,
            windows=by_window_and_stride[
                trial.point["refine.window"], trial.point["refine.stride"]
            ],
            is_chosen=dict(trial.point) == dict(chosen),
        )
        for trial in trials
        if trial.metrics is not None
    ]
    return sorted(finished, key=lambda mark: mark.is_chosen)


def defined(marks: Sequence[Mark], *metrics: str) -> list[Mark]:
    """Return the trials for which all `metrics` are defined; the others cannot be drawn."""
    return [mark for mark in marks if all(mark.metrics[name] is not None for name in metrics)]


def heat_map(marks: Sequence[Mark], metric: str) -> str:
    """Draw a metric over windows (rows) and tau (columns); a cell shows its best trial.

    If there are many values of tau, they are binned evenly on the logit scale.
    """
    columns = _columns([mark.point[THRESHOLD] for mark in marks])
    rows = sorted({mark.windows for mark in marks}, key=lambda w: (w.num_windows, w.window))
    best: dict[tuple[Windows, int], Mark] = {}
    for mark in marks:
        tau = mark.point[THRESHOLD]
        column = next(i for i, (_, low, high) in enumerate(columns) if low <= tau <= high)
        current = best.get((mark.windows, column))
        if current is None or current.value(metric) < mark.value(metric):
            best[mark.windows, column] = mark
    values = [mark.value(metric) for mark in best.values()]
    low, high = min(values), max(values)

    left, top = 112, 34
    width, height = (WIDTH - left - 6) / len(columns), 26
    parts = [
        svg.text(left, 12, f"{heading(metric)}, percent"),
        svg.text(left - 8, top - 6, "N, s (T1)", anchor="end", class_="tick"),
        svg.text(WIDTH - 6, 12, "τ →", anchor="end", class_="tick"),
    ]
    for column, (name, _, _) in enumerate(columns):
        x = left + width * (column + 0.5)
        parts.append(svg.text(x, top - 6, name, anchor="middle", class_="tick small"))
    for row, windows in enumerate(rows):
        y = top + height * row
        label = f"{windows.window}, {windows.stride} ({windows.num_windows})"
        parts.append(svg.text(left - 8, y + height / 2 + 4, label, anchor="end", class_="name"))
        for column in range(len(columns)):
            mark = best.get((windows, column))
            if mark is None:
                continue
            value = mark.value(metric)
            share = (value - low) / (high - low) if high > low else 0.5
            x, middle = left + width * column, left + width * (column + 0.5)
            box = {"x": x, "y": y, "width": width, "height": height, "class_": "heat"}
            tooltip = svg.title(f"{mark.label}: {value:.2f}")
            opacity = round(0.06 + 0.94 * share, 2)
            parts.append(svg.element("rect", tooltip, **box, fill_opacity=opacity))
            dark = " on-heat" if share > 0.5 else ""
            style = {"anchor": "middle", "class_": f"cell{dark}"}
            parts.append(svg.text(middle, y + height / 2 + 4, f"{value:.1f}", **style))
    bottom = top + height * len(rows)
    return svg.figure(
        WIDTH, bottom + 6, *parts, label=f"{heading(metric)} over windows and threshold"
    )


def _columns(thresholds: Sequence[float]) -> list[tuple[str, float, float]]:
    """Return the name, the smallest and the largest tau of each column."""
    different = sorted(set(thresholds))
    if len(different) <= _MOST_COLUMNS:
        return [(f"{tau:.4g}", tau, tau) for tau in different]
    low, high = logit(different[0]), logit(different[-1])
    ends = [low + (high - low) * i / _MOST_COLUMNS for i in range(_MOST_COLUMNS + 1)]
    taus = [1 / (1 + math.exp(-x)) for x in ends]
    taus[0], taus[-1] = different[0], different[-1]
    return [(f"{a:.3g}", a, b) for a, b in pairwise(taus)]


def trade_off(marks: Sequence[Mark], x_metric: str, y_metric: str) -> str:
    """Plot two metrics against each other, with the Pareto front."""
    values = [(mark.value(x_metric), mark.value(y_metric)) for mark in marks]
    front = pareto_front(values)
    axes = _axes([x for x, _ in values], [y for _, y in values])
    line = sorted(values[index] for index in front)
    parts = [
        axes.draw(f"{heading(x_metric)}, percent", f"{heading(y_metric)}, percent"),
        axes.line([x for x, _ in line], [y for _, y in line], class_=f"line {_FRONT}"),
    ]
    for index, (mark, (x, y)) in enumerate(zip(marks, values, strict=True)):
        style = _CHOSEN if mark.is_chosen else _FRONT if index in front else _OTHER
        tooltip = svg.title(f"{mark.label}: {x:.2f}, {y:.2f}")
        parts.append(_dot(axes, x, y, style, tooltip))
    return svg.figure(
        WIDTH,
        axes.top + axes.height + _BOTTOM,
        *parts,
        label=f"{heading(x_metric)} against {heading(y_metric)}, with the Pareto front",
    )


def cost(marks: Sequence[Mark], metric: str) -> str:
    """Plot a metric against the number of windows T1, to which Steps 1 and 2 owe their time.

    The line connects the best trial of each T1.
    """
    values = [(float(mark.windows.num_windows), mark.value(metric)) for mark in marks]
    different = sorted({x for x, _ in values})
    axes = _axes([0.0, *different], [y for _, y in values])
    best = [max(y for x, y in values if x == at) for at in different]
    parts = [
        axes.draw("windows T1", f"{heading(metric)}, percent"),
        axes.line(different, best, class_=f"line {_FRONT}"),
    ]
    for mark, (x, y) in zip(marks, values, strict=True):
        style = _CHOSEN if mark.is_chosen else _OTHER
        parts.append(_dot(axes, x, y, style, svg.title(f"{mark.label}: {y:.2f}")))
    return svg.figure(
        WIDTH, axes.top + axes.height + _BOTTOM, *parts, label=f"{heading(metric)} over T1"
    )


def parallel(marks: Sequence[Mark], metrics: Sequence[str]) -> str:
    """Draw parallel coordinates: one line per trial across settings and metrics.

    Args:
        marks: Trials.
        metrics: Axes after those of the settings; a higher value of the first makes a line darker.
    """
    keys = list(dict.fromkeys(key for mark in marks for key in mark.point))
    scales = [_Scale.of(key, [mark.point[key] for mark in marks]) for key in keys]
    scales += [_Scale.of(name, [mark.value(name) for mark in marks]) for name in metrics]
    width, height, left, top = 2 * WIDTH, 190, 34, 40
    step = (width - 2 * left) / (len(scales) - 1)
    parts = []
    first_metric = scales[len(keys)]
    for mark in marks:
        values = [*(mark.point[key] for key in keys), *(mark.value(name) for name in metrics)]
        points = [
            f"{left + step * i:.1f},{top + height * (1 - scale.share(value)):.1f}"
            for i, (scale, value) in enumerate(zip(scales, values, strict=True))
        ]
        share = first_metric.share(mark.value(metrics[0]))
        parts.append(
            svg.element(
                "polyline",
                svg.title(mark.label),
                points=" ".join(points),
                class_=f"line {_CHOSEN if mark.is_chosen else _FRONT}",
                stroke_opacity=1.0 if mark.is_chosen else round(0.12 + 0.6 * share, 2),
            )
        )
    for index, scale in enumerate(scales):
        x = left + step * index
        ends = {"x1": x, "x2": x, "y1": top, "y2": top + height}
        parts.append(svg.element("line", **ends, class_="axis"))
        parts.append(svg.text(x, top - 20, scale.name, anchor="middle"))
        for value, name in scale.ticks:
            y = top + height * (1 - scale.share(value))
            parts.append(svg.text(x + 4, y + 4, name, class_="tick"))
    return svg.figure(width, top + height + 16, *parts, label="All trials, setting by setting")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """An axis of `parallel`: numbers, tau on the logit scale, or sorted names."""

    name: str
    low: float
    high: float
    names: tuple[str, ...] = ()
    is_logit: bool = False
    ticks: tuple[tuple[Any, str], ...] = ()

    @classmethod
    def of(cls, key: str, values: Sequence[Any]) -> "_Scale":
        short = {"refine.window": "N", "refine.stride": "s", THRESHOLD: "τ"}
        last = key.rpartition(".")[2]
        name = short.get(key) or (last if "." in key else heading(key))
        different = sorted(set(values), key=lambda v: (isinstance(v, str), v))
        if not all(isinstance(v, int | float) for v in different):
            names = tuple(str(v) for v in different)
            ticks = tuple((v, str(v)) for v in different)
            return cls(name=name, low=0, high=len(names) - 1, names=names, ticks=ticks)
        few = different if len(different) <= 5 else [different[0], different[-1]]
        is_logit = key == THRESHOLD
        change = logit if is_logit else float
        return cls(
            name=name,
            low=change(different[0]),
            high=change(different[-1]),
            is_logit=is_logit,
            ticks=tuple((v, f"{v:.4g}") for v in few),
        )

    def share(self, value: Any) -> float:
        """Return the position of a value on the axis, from 0 to 1."""
        if self.names:
            at = float(self.names.index(str(value)))
        else:
            at = logit(value) if self.is_logit else float(value)
        return (at - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def _axes(xs: Sequence[float], ys: Sequence[float]) -> svg.Axes:
    return svg.Axes(
        left=_LEFT,
        top=_TOP,
        width=WIDTH - _LEFT - 18,
        height=200,
        x_ticks=svg.nice_ticks(min(xs), max(xs)),
        y_ticks=svg.nice_ticks(min(ys), max(ys)),
    )


def _dot(axes: svg.Axes, x: float, y: float, style: str, tooltip: str) -> str:
    circle = {"cx": axes.x(x), "cy": axes.y(y), "r": 4}
    return svg.element("circle", tooltip, **circle, class_=f"dot {style}")
