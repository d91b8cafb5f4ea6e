"""Load a configuration from a YAML file and other values; errors list all problems."""

from collections.abc import Hashable, Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from distributed_avel.config.runs import RunConfig
from distributed_avel.config.sections import Config
from distributed_avel.errors import ConfigError

AnyRun = TypeVar("AnyRun", bound=RunConfig)


_BUILT_IN = Path(str(files("distributed_avel") / "configs"))


def built_in_configs() -> tuple[str, ...]:
    """Return the names of the built-in configurations, sorted."""
    return tuple(sorted(path.stem for path in _BUILT_IN.glob("*.yaml")))


def load_values(source: str | Path) -> dict[str, Any]:
    """Read settings without validation (see `validate`).

    Args:
        source: Name of a built-in configuration, such as `synthetic`, or path of a YAML file.

    Raises:
        ConfigError: There is no such configuration, or it is not a YAML mapping.
    """
    path = _BUILT_IN / f"{source}.yaml" if str(source) in built_in_configs() else Path(source)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        names = ", ".join(built_in_configs())
        raise ConfigError(
            f"{path}: the configuration file cannot be read: {error.strerror}; built-in "
            f"configurations: {names}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {type(values).__name__}")
    return values or {}


def load_config(source: str | Path | None = None, **settings: Any) -> RunConfig:
    """Read and validate the settings of a run.

    Args:
        source: Name of a built-in configuration (not `sweep`, which is for `avel tune`), path of a
            YAML file, or None for the defaults.
        settings: Values that override those of `source`; sections are dictionaries, as in
            `load_config("synthetic", seed=1, train={"base_epochs": 10})`.

    Raises:
        ConfigError: The message lists all problems.
    """
    values = load_values(source) if source is not None else {}
    return validate(_overridden(values, settings), str(source or "settings"))


def _overridden(values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in settings.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict):
            merged[key] = _overridden(below, value)
        else:
            merged[key] = value
    return merged


class _UniqueKeys(yaml.SafeLoader):
    """Refuses duplicate keys, of which YAML's own loaders silently use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if isinstance(key, Hashable) and key != "<<" and key in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}", node.value[number][0].start_mark
                )
        return super().construct_mapping(node, deep)


def validate(
    values: dict[str, Any],
    source: str,
    kind: type[AnyRun] = RunConfig,
    problems: Mapping[str, str] = MappingProxyType({}),
) -> AnyRun:
    """Create a configuration from values.

    Args:
        values: Nested settings.
        source: Source of the values, for the error message.
        kind: Class of the configuration.
        problems: Problems found earlier, by key or argument, to report together with the others.

    Raises:
        ConfigError: The values are invalid; the message lists all problems.
    """
    try:
        config = kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(source, error, kind, problems)) from None
    if problems:
        raise ConfigError(_lines(source, {key: [problem] for key, problem in problems.items()}))
    return config


def explain(
    source: str,
    error: ValidationError,
    kind: type[RunConfig] = RunConfig,
    known: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """List all problems of a configuration, one per line with its key; `known` ones come last."""
    problems: dict[str, list[str]] = {}
    for problem in error.errors():
        key, siblings = _key_of(problem["loc"], kind)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "no such key"
            for close in get_close_matches(key.rpartition(".")[2], siblings, n=1):
                message += f"; perhaps {close}"
        if message not in problems.setdefault(key, []):
            problems[key].append(message)
    for key, message in known.items():
        problems[key] = [message]
    return _lines(source, problems)


def _lines(source: str, problems: Mapping[str, list[str]]) -> str:
    lines = [f"{source}: {len(problems)} problem(s)"]
    lines += [f"  {key}: {', or: '.join(messages)}" for key, messages in problems.items()]
    return "\n".join(lines)


def _key_of(location: tuple[int | str, ...], whole: type[RunConfig]) -> tuple[str, list[str]]:
    """Return the key that a problem concerns and the keys of the same section.

    pydantic appends the name of the type to the location for a value with several types.
    """
    section: Any = whole
    for depth, part in enumerate(location, start=1):
        fields = section.model_fields
        kind = fields[part].annotation if part in fields else None
        if not (isinstance(kind, type) and issubclass(kind, Config)):
            return ".".join(map(str, location[:depth])), list(fields)
        section = kind
    return ".".join(map(str, location)), []
