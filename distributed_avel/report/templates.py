"""Render HTML pages from Jinja templates, escaped and with an embedded style sheet."""

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, report: Any, **others: Any) -> str:
    """Render a page.

    Args:
        template: File name of a template that extends `base.html`.
        report: Passed to the template as `report`; has an attribute `synthetic`.
        others: Further variables of the template; `sections` (id and name of each) unless the
            template sets it.

    Returns:
        The page as HTML.
    """
    environment = Environment(
        loader=PackageLoader("distributed_avel", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = Markup(_style_sheet())
    return environment.get_template(template).render(report=report, css=css, **others)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted keys, such as `outer.inner`, and values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _style_sheet() -> str:
    """Return the style sheet of the figures followed by that of the page."""
    package = resources.files("distributed_avel.report")
    sheets = (package.joinpath(name) for name in ("figure.css", "page.css"))
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
