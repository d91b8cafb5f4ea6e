"""How every page is made from its template: escaped, and with its style sheet in it."""

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, report: Any, **others: Any) -> str:
    """A page as text.

    Args:
        template: File name of a template that extends `base.html`.
        report: What the page is about; it knows whether its data are `synthetic`.
        others: What else the template names, `sections` (id and name of each) if it sets none.
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
    """Nested settings as `outer.inner` and value."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _style_sheet() -> str:
    """The style sheet of a page: that of its figures, then its own."""
    package = resources.files("distributed_avel.report")
    sheets = (package.joinpath(name) for name in ("figure.css", "page.css"))
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
