"""Hooks of the documentation build (`mkdocs.yml`).

They generate the configuration reference, the table of arms and the list of the public API from the
code, copy results from the README and examples from their files, convert equations to MathML, and
refuse a page that would load anything from the network.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from pydantic.fields import FieldInfo

import distributed_avel
from distributed_avel.arms import ARMS, arm_description, arm_label
from distributed_avel.config import Config, ReproduceConfig, RunConfig, TuneConfig
from distributed_avel.features.base import extractor_class, extractor_names
from distributed_avel.models import model_class, model_names
from distributed_avel.stages.cache_keys import NEUTRAL

SETTINGS = "<!-- generated: settings -->"
PUBLIC_NAMES = "<!-- generated: public names -->"
ARM_TABLE = "<!-- generated: arms -->"
RESULTS = "<!-- generated: the section Results of README.md -->"

_ROOT = Path(__file__).parent.parent

_FILE = re.compile(r"<!-- file: (\S+) -->")
_BLOCK_EQUATION = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE_EQUATION = re.compile(r"\$`([^`]+)`\$")
_REMOTE_ASSET = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>"
    r"|<link\b[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
)
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert what is generated from the code, and convert equations to MathML."""
    markdown = markdown.replace(SETTINGS, settings_reference())
    markdown = markdown.replace(PUBLIC_NAMES, public_names())
    markdown = markdown.replace(ARM_TABLE, arm_table())
    markdown = markdown.replace(RESULTS, readme_section("Results"))
    markdown = _FILE.sub(lambda file: code_block(file[1]), markdown)
    markdown = _BLOCK_EQUATION.sub(
        lambda equation: f"\n{convert(equation[1].strip(), display='block')}\n", markdown
    )
    # In a span, because Markdown takes a line that begins with <math> for a block.
    return _INLINE_EQUATION.sub(lambda equation: f"<span>{convert(equation[1])}</span>", markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that loads scripts, styles or pictures from another server.

    Raises:
        PluginError: The message names the page and the element.
    """
    if remote := _REMOTE_ASSET.search(output):
        raise PluginError(f"{page.file.src_uri}: loads a remote asset: {remote[0][:200]}")
    return output


def public_names() -> str:
    """Return the directives of mkdocstrings for the public names of the package."""
    return "\n\n".join(f"::: distributed_avel.{name}" for name in distributed_avel.__all__)


def code_block(path: str) -> str:
    """Return the content of a file of the project as a block of code."""
    language = {"py": "python"}.get(path.rpartition(".")[2], path.rpartition(".")[2])
    return f"```{language}\n{(_ROOT / path).read_text(encoding='utf-8').strip()}\n```"


def readme_section(title: str) -> str:
    """Return the text of a section of the README, with links as in the folder of the pages."""
    _, _, after = (_ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n## {title}\n")
    section, _, _ = after.partition("\n## ")
    return section.replace("](docs/", "](")


def arm_table() -> str:
    """Return a table of the ablation arms as results describe them."""
    rows = []
    for arm, plan in ARMS.items():
        model = "han" if plan.needs_modalities else "ave"
        rows.append(f"| `{arm}` | {arm_label(model, arm)} | {arm_description(model, arm)} |")
    return "\n".join(["| arm | in tables | description |", "| --- | --- | --- |", *rows])


def settings_reference() -> str:
    """Return the tables of all settings, of the options of models, and of those of extractors."""
    parts = [
        "## Run",
        "Every command accepts these settings.",
        *_sections(RunConfig),
        "## Sweeps: `avel tune`",
        "In addition to the settings of a run:",
        *_tables("sweep", TuneConfig.model_fields["sweep"].annotation),
        "## Tables of the paper: `avel reproduce`",
        "In addition to the settings of a run:",
        _table(
            (name, info)
            for name, info in ReproduceConfig.model_fields.items()
            if name not in RunConfig.model_fields
        ),
        "These settings say which runs there are. Each run has the cache keys of its own settings.",
        "## Options of models",
        "Options of one base model, set by `model.options`. Models that are not listed have none.",
        *_options("model.options", {name: model_class(name).Config for name in model_names()}),
        "## Options of extractors",
        "Options of one extractor, set by `extract.options`. The extractors of this package have "
        "none unless they are listed here; an extractor of a plug-in may have some.",
        *_options(
            "extract.options", {name: extractor_class(name).Config for name in extractor_names()}
        ),
    ]
    return "\n\n".join(parts)


def _sections(kind: type[Config]) -> Iterator[str]:
    """Yield the settings outside any section, then the tables of all sections."""
    yield _table(
        (name, info) for name, info in kind.model_fields.items() if not _is_section(info.annotation)
    )
    for name, info in kind.model_fields.items():
        if _is_section(info.annotation):
            yield from _tables(name, info.annotation)


def _tables(key: str, section: Any) -> Iterator[str]:
    """Yield heading, description and table of a section, and those of the sections in it."""
    fields: dict[str, FieldInfo] = section.model_fields
    yield f"### `{key}`"
    yield " ".join((section.__doc__ or "").split())
    settings = {n: info for n, info in fields.items() if not _is_section(info.annotation)}
    yield _table((f"{key}.{name}", info) for name, info in settings.items())
    for name, info in fields.items():
        if name not in settings:
            yield from _tables(f"{key}.{name}", info.annotation)


def _options(key: str, configs: dict[str, type[Config]]) -> Iterator[str]:
    """Yield a table for each model or extractor that has options."""
    for name, config in configs.items():
        if config.model_fields:
            yield f"### `{name}`"
            yield _table((f"{key}.{n}", info) for n, info in config.model_fields.items())


def _table(settings: Any) -> str:
    """Return a table of settings, given their keys and fields."""
    lines = ["| key | type | default | meaning | cache key |", "| --- | --- | --- | --- | --- |"]
    for key, info in settings:
        default = json.dumps(info.default, ensure_ascii=False)
        cells = [
            f"`{key}`",
            type_text(info.annotation, info.metadata),
            "required" if info.is_required() else f"`{default}`",
            " ".join((info.description or "").split()),
            _cache_text(key),
        ]
        lines.append(f"| {' | '.join(map(_escaped, cells))} |")
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    """Escape what Markdown would read as a column or as HTML; code keeps its characters."""
    cell = cell.replace("|", "&#124;")
    return cell if cell.startswith("`") else cell.replace("<", "&lt;")


def _cache_text(key: str) -> str:
    """Say whether a setting is part of the cache key, and if it is not, why."""
    for name in (key, key.partition(".")[0]):
        if name in NEUTRAL:
            return f"neutral: {NEUTRAL[name]}"
    return "hashed"


def type_text(kind: Any, constraints: Any = ()) -> str:
    """Describe the type of a setting, such as "int > 0" or "`max` or `mean`"."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_text(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(type_text(part) for part in inner)
    if origin is tuple:
        return f"list of {type_text(inner[0])}"
    if origin is dict:
        return f"mapping of names to {'values' if inner[1] is Any else type_text(inner[1])}"
    if kind is NoneType:
        return "null"
    bounds = [
        f"{sign} {getattr(constraint, bound):g}"
        for constraint in constraints
        for bound, sign in _BOUNDS.items()
        if getattr(constraint, bound, None) is not None
    ]
    return " ".join([kind.__name__, " and ".join(bounds)]).strip()


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Config)
