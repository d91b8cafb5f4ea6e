"""A few SVG elements and axes, enough for the figures of a report.

Hand-written, because the figures then weigh a few kilobytes, take their colours from the
page (`figure.css`, light or dark) and keep their text as text. A figure is about 400 units
wide, so that its words can still be read at the width of a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CHARACTER_WIDTH = 7
"""Width to reserve for a character of the 11-unit sans-serif text of the figures, bold too."""


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """An SVG element. Attributes are escaped, with `_` for `-`; children must be markup already."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def text(x: float, y: float, words: str, **attributes: str | float) -> str:
    """Words at a place; `anchor` is start (as it is without one), middle or end."""
    if "anchor" in attributes:
        attributes["text_anchor"] = attributes.pop("anchor")
    return element("text", escape(words), x=x, y=y, **attributes)


def title(words: str) -> str:
    """The tooltip of the element that it stands in."""
    return element("title", escape(words))


def figure(width: float, height: float, *children: str, label: str) -> str:
    """A whole figure; `label` is what a screen reader says in its place."""
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
    """The words, or their beginning and an ellipsis."""
    return words if len(words) <= max_characters else words[: max_characters - 1].rstrip(" ,") + "…"


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that span low..high, `about` many; one number if they are equal."""
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
    """A rectangle of the figure that shows x from x_ends[0] to x_ends[1], and y from the first to
    the last of y_ticks. `x_ends` are by default those of x_ticks; `x_names` stand in place of the
    numbers of x_ticks.
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
        """Where a value lies, from the left of the figure."""
        return self.left + self.width * _share(value, self.x_ends or self.x_ticks)

    def y(self, value: float) -> float:
        """Where a value lies, from the top of the figure."""
        return self.top + self.height * (1 - _share(value, self.y_ticks))

    def draw(self, x_label: str, y_label: str) -> str:
        """Grid, numbers and the names of both axes."""
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
        """A line through the points."""
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
    """Names after a line or dot in their style (`s0`, `s1`, … in the style sheet), row by row."""
    parts = []
    for name, style, (dx, dy) in zip(names, styles, _legend_places(names, width), strict=True):
        at_x, at_y = x + dx, y + dy
        if dots:
            parts.append(element("circle", cx=at_x + 15, cy=at_y - 4, r=4, class_=f"dot s{style}"))
        else:
            ends = {"x1": at_x, "x2": at_x + 20, "y1": at_y - 4, "y2": at_y - 4}
            parts.append(element("line", **ends, class_=f"line s{style}"))
        parts.append(text(at_x + 26, at_y, name))
    return "".join(parts)


def legend_height(names: Sequence[str], width: float) -> float:
    """What `legend` takes of the figure, in units."""
    return max((dy for _, dy in _legend_places(names, width)), default=-LEGEND_ROW) + LEGEND_ROW


def _legend_places(names: Sequence[str], width: float) -> list[tuple[float, float]]:
    places, x, y = [], 0.0, 0.0
    for name in names:
        needed = 40 + CHARACTER_WIDTH * len(name)
        if x and x + needed > width:
            x, y = 0.0, y + LEGEND_ROW
        places.append((x, y))
        x += needed
    return places


def _share(value: float, ticks: Sequence[float]) -> float:
    low, high = ticks[0], ticks[-1]
    return (value - low) / (high - low) if high > low else 0.5


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:.2f}".rstrip("0").rstrip(".")
