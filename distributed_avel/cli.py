"""What all jobs share: settings from YAML and the command line, and errors a person can read."""

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from distributed_avel.config import Config, RunConfig, load_values, validate
from distributed_avel.errors import AvelError, ConfigError

USER_ERROR = 2
INTERRUPTED = 130

_CONFIG_HELP = "Every option may also stand in a YAML file: --config PATH. Options override it."


def run_job(job: Callable[[RunConfig], None], argv: list[str], description: str | None) -> int:
    """Read the configuration, run the job, and return the exit status.

    Args:
        argv: `--config PATH` and options that override that file.
        description: The help text of the job.
    """
    try:
        job(read_config(argv, description))
    except AvelError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    return 0


def read_config(argv: list[str], description: str | None = None) -> RunConfig:
    """The configuration that these arguments ask for.

    Raises:
        ConfigError: Keys or values are wrong; the message has all of them.
    """
    path, overrides = split_config_option(argv)
    defaults = validate(load_values(path), str(path)) if path else RunConfig()
    options = tyro.cli(
        _options_of(defaults),
        args=overrides,
        description=f"{(description or '').strip()}\n\n{_CONFIG_HELP}",
    )
    return validate(dataclasses.asdict(options), "command line")


def split_config_option(argv: list[str]) -> tuple[Path | None, list[str]]:
    """Take `--config PATH` or `--config=PATH` out of the arguments.

    Raises:
        ConfigError: The path is missing.
    """
    for at, argument in enumerate(argv):
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")), [*argv[:at], *argv[at + 1 :]]
        if argument == "--config":
            if at + 1 == len(argv):
                raise ConfigError("--config needs a path")
            return Path(argv[at + 1]), [*argv[:at], *argv[at + 2 :]]
    return None, argv


def _options_of(defaults: Config) -> type[Any]:
    """A plain dataclass with the fields of a configuration, and no checks.

    Parsed into it, the command line is checked as a whole afterwards; parsed into the
    configuration itself, only the first problem would be told.
    """
    fields = []
    for name, info in type(defaults).model_fields.items():
        value = getattr(defaults, name)
        if isinstance(value, Config):
            section = _options_of(value)
            fields.append((name, section, dataclasses.field(default_factory=section)))
        else:
            kind = Annotated[info.annotation, tyro.conf.arg(help=info.description)]
            fields.append((name, kind, dataclasses.field(default_factory=partial(_same, value))))
    made = dataclasses.make_dataclass(type(defaults).__name__, fields, frozen=True)
    made.__doc__ = type(defaults).__doc__
    return made


def _same(value: Any) -> Any:
    return value
