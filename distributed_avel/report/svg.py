"""SVG elements, axes and legends for the figures of a report.

Written by hand instead of with a plotting library: a figure takes a few kilobytes, uses the
colours of the page (`figure.css`, light or dark) and keeps its text selectable. A figure is about
400 units wide, so that its text is legible at the width of a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CHARACTER_WIDTH = 7
"""Width to reserve for a character of the 11-unit sans-serif text of figures, regular or bold."""


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """Return an SVG element.

    Args:
        tag: Name of the element.
        children: Markup; not escaped.
        attributes: Escaped; `_` in a name becomes `-`, a trailing `_` is removed.
    """
    attribute_text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
    )
    if not children:
        return f"<{tag}{attribute_text}/>"
    return f"<{tag}{attribute_text}>{''.join(children)}</{tag}>"


def text(x: float, y: float, words: str, **attributes: str | float) -> str:
    """Return a text element at (x, y); `anchor` is "start" (the default), "middle" or "end"."""
    if "anchor" in attributes:
        attributes["text_anchor"] = attributes.pop("anchor")
    return element("text", escape(words), x=x, y=y, **attributes)


def title(words: str) -> str:
    """Return a tooltip for the element that contains it."""
    return element("title", escape(words))


def figure(width: float, height: float, *children: str, label: str) -> str:
    """Return a complete SVG figure; `label` describes it to screen readers."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def shorten(words: str, max_characters: int) -> str:
    """Truncate `words` to `max_characters`, ending in an ellipsis."""
    return words if len(words) <= max_characters else words[: max_characters - 1].rstrip(" ,") + "…"


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about `about` round numbers that span low..high, or [low] if they are equal."""
    if not high > low:
        return [low]
    power = 10.0
    while power > (high - low) / about:
        power /= 10
    while power * 10 <= (high - low) / about:
        power *= 10
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if (high - low) / (power * k) <= about)
    first, last = int(low // step), -int(-high // step)
    return [round(k * step, 10) for k in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Axes of a plot in a rectangle of the figure.

    Args:
        left: Left edge of the rectangle, in SVG units.
        top: Top edge.
        width: Width.
        height: Height.
        x_ticks: Values of the ticks on the x axis, ascending.
        y_ticks: Values of the ticks on the y axis; the axis spans the first to the last.
        x_ends: Values at the ends of the x axis; by default the first and the last tick.
        x_names: Labels of the x ticks; by default their values.
    """

    left: float
    top: float
    width: float
    height: float
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_ends: tuple[float, float] | None = None
    x_names: Sequence[str] = ()

    def x(self, value: float) -> float:
        """Convert a value to an x coordinate of the figure."""
        return self.left + self.width * _fraction(value, self.x_ends or self.x_ticks)

    def y(self, value: float) -> float:
        """Convert a value to a y coordinate of the figure."""
        return self.top + self.height * (1 - _fraction(value, self.y_ticks))

    def draw(self, x_label: str, y_label: str) -> str:
        """Draw the grid, the tick labels and the labels of both axes."""
        bottom, middle = self.top + self.height, self.left + self.width / 2
        parts = []
        for tick in self.y_ticks:
            y = self.y(tick)
            parts.append(
                element("line", x1=self.left, x2=self.left + self.width, y1=y, y2=y, class_="grid")
            )
            parts.append(text(self.left - 6, y + 4, f"{tick:g}", anchor="end", class_="tick"))
        names = self.x_names or [f"{tick:g}" for tick in self.x_ticks]
        for tick, name in zip(self.x_ticks, names, strict=True):
            parts.append(text(self.x(tick), bottom + 15, name, anchor="middle", class_="tick"))
        parts.append(
            element(
                "line", x1=self.left, x2=self.left + self.width, y1=bottom, y2=bottom, class_="axis"
            )
        )
        parts.append(text(middle, bottom + 32, x_label, anchor="middle"))
        parts.append(text(self.left, self.top - 9, y_label))
        return "".join(parts)

    def line(self, xs: Sequence[float], ys: Sequence[float], **attributes: str | float) -> str:
        """Draw a line through the points."""
        points = " ".join(
            f"{_value(self.x(x))},{_value(self.y(y))}" for x, y in zip(xs, ys, strict=True)
        )
        return element("polyline", points=points, **attributes)


LEGEND_ROW = 16
"""Height of one row of a legend."""


def legend(
    names: Sequence[str],
    styles: Sequence[int],
    x: float,
    y: float,
    width: float,
    *,
    dots: bool = False,
) -> str:
    """Draw a legend with a line (or dot) and a name per entry, in rows of at most `width`.

    Args:
        names: Names of the entries.
        styles: Style number of each entry (`s0`, `s1`, … in the style sheet).
        x: Left edge.
        y: Baseline of the first row.
        width: Maximum width of a row.
        dots: Draw dots instead of lines.
    """
    parts = []
    for name, style, (dx, dy) in zip(names, styles, _legend_offsets(names, width), strict=True):
        at_x, at_y = x + dx, y + dy
        if dots:
            parts.append(element("circle", cx=at_x + 15, cy=at_y - 4, r=4, class_=f"dot s{style}"))
        else:
            ends = {"x1": at_x, "x2": at_x + 20, "y1": at_y - 4, "y2": at_y - 4}
            parts.append(element("line", **ends, class_=f"line s{style}"))
        parts.append(text(at_x + 26, at_y, name))
    return "".join(parts)


def legend_height(names: Sequence[str], width: float) -> float:
    """Return the height of a legend, in SVG units."""
    return max((dy for _, dy in _legend_offsets(names, width)), default=-LEGEND_ROW) + LEGEND_ROW


def _legend_offsets(names: Sequence[str], width: float) -> list[tuple[float, float]]:
    offsets, x, y = [], 0.0, 0.0
    for name in names:
        needed = 40 + CHARACTER_WIDTH * len(name)
        if x and x + needed > width:
            x, y = 0.0, y + LEGEND_ROW
        offsets.append((x, y))
        x += needed
    return offsets


def _fraction(value: float, ticks: Sequence[float]) -> float:
    low, high = ticks[0], ticks[-1]
    return (value - low) / (high - low) if high > low else 0.5


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")
