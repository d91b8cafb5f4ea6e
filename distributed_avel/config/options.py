"""Options of a single model or extractor, in addition to the settings that all of them share."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from distributed_avel.config.sections import Config
from distributed_avel.errors import ConfigError

AnyOptions = TypeVar("AnyOptions", bound=Config)


def read_options(
    kind: type[AnyOptions], values: Mapping[str, Any], key: str, owner: str
) -> AnyOptions:
    """Validate options and fill in the defaults of those that are left out.

    Args:
        kind: Declares the options.
        values: The options that are given, by name.
        key: The setting that holds them, for messages, such as `model.options`.
        owner: What the options belong to, for messages, such as "base model psp".

    Raises:
        ConfigError: The message lists all problems, one per line.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors():
            name, message = str(problem["loc"][0]), problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
                message = _no_such_option(name, owner, list(kind.model_fields))
            full = ".".join([key, *map(str, problem["loc"])])
            lines.setdefault(full, f"{full}: {message}")
        raise ConfigError("\n".join(lines.values())) from None


def _no_such_option(name: str, owner: str, known: list[str]) -> str:
    if not known:
        return f"{owner} has no options; leave it out"
    close = [f"perhaps {match}; " for match in get_close_matches(name, known, n=1)]
    return f"{owner} has no such option; {''.join(close)}there are: {', '.join(sorted(known))}"
