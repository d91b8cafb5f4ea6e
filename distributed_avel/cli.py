"""Command-line entry of all jobs: settings from YAML and options, and readable errors."""

import dataclasses
import errno
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from distributed_avel.config import (
    AnyRun,
    Config,
    RunConfig,
    built_in_configs,
    load_values,
    read_arguments,
    validate,
)
from distributed_avel.errors import AvelError
from distributed_avel.redaction import redact

USER_ERROR = 2
INTERRUPTED = 130

_OF_THE_MACHINE = {
    errno.ENOSPC: "free some space; the same command goes on from here",
    errno.EDQUOT: "free some space or raise the quota; the same command goes on from here",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "see to the permissions",
    errno.EPERM: "see to the permissions",
    errno.EMFILE: "raise `ulimit -n`",
    errno.EIO: "see to the disk or the network; the same command goes on from here",
}
"""Errors of the operating system that are no bug, and their remedies."""

_CONFIG_HELP = (
    "Options can also be given in a YAML file, --config PATH, or in a built-in one, --config NAME: "
    f"{', '.join(built_in_configs())} (sweep is for tune only). "
    "Options on the command line override it."
)


def run_job(
    job: Callable[[AnyRun], int | None],
    argv: Sequence[str],
    description: str | None,
    kind: type[AnyRun] = RunConfig,
) -> int:
    """Read the configuration, run the job, and return the exit status.

    Args:
        job: Takes the configuration; it may return an exit status other than 0.
        argv: `--config PATH` and options that override that file.
        description: The help text of the job.
        kind: The configuration that the job takes.
    """
    sys.excepthook, threading.excepthook = _show_bug, _show_bug_of_thread
    try:
        return job(read_config(argv, description, kind)) or 0
    except AvelError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        return _refuse(f"{error}; {_OF_THE_MACHINE[error.errno]}")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _refuse(problem: str) -> int:
    print(f"error: {redact(problem)}", file=sys.stderr)  # noqa: T201
    return USER_ERROR


def _show_bug(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Print a traceback as Python does, without the secrets of URIs."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(redact(text), end="", file=sys.stderr)  # noqa: T201


def _show_bug_of_thread(bug: threading.ExceptHookArgs) -> None:
    if bug.exc_type is not SystemExit:
        _show_bug(bug.exc_type, bug.exc_value, bug.exc_traceback)


def read_config(
    argv: Sequence[str], description: str | None = None, kind: type[AnyRun] = RunConfig
) -> AnyRun:
    """The configuration that these arguments ask for.

    Raises:
        ConfigError: Keys or values are wrong; the message has all of them, those of the file
            and those of the command line.
    """
    arguments = read_arguments(argv, kind)
    values = load_values(arguments.config) if arguments.config else {}
    _add_entries(values, arguments.entries)
    options = tyro.cli(
        _options_of(kind, values),
        args=arguments.options,
        description=f"{inspect.cleandoc(description or '')}\n\n{_CONFIG_HELP}",
    )
    values = _merged(values, dataclasses.asdict(options))
    _add_unknown(values, arguments.unknown)
    sources = [arguments.config] if arguments.config else []
    has_options = arguments.options or arguments.entries or arguments.problems
    source = " and ".join([*sources, "command line"] if has_options else sources)
    return validate(values, source, kind, arguments.problems)


def _options_of(section: type[Config], values: Any) -> type[Any]:
    """A plain dataclass with the fields of a configuration, and no checks.

    The command line is parsed into it as it stands, over the unchecked values of the file; both
    are checked afterwards, as a whole. Parsed into the configuration itself, only the first
    problem would be told, and a file could not leave to the command line what it lacks.
    """
    given = values if isinstance(values, dict) else {}
    options = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            made = _options_of(kind, given.get(name))
            options.append((name, made, dataclasses.field(default_factory=made)))
        else:
            default = given.get(name, info.default)
            help_text = tyro.conf.arg(help=info.description)
            if kind is bool and isinstance(default, bool):  # a flag, so it has no value to check
                annotated = Annotated[bool, help_text]
            else:
                annotated = Annotated[Any, _as_it_stands(kind), help_text]
            factory = partial(_same, default)
            options.append((name, annotated, dataclasses.field(default_factory=factory)))
    made = dataclasses.make_dataclass(section.__name__, options, frozen=True)
    made.__doc__ = section.__doc__
    return made


def _same(value: Any) -> Any:
    return value


def _as_it_stands(kind: Any) -> PrimitiveConstructorSpec[Any]:
    """Parsing rule of an option that keeps its words unchecked, for validation afterwards."""
    origin = get_origin(kind)

    def read(words: list[str]) -> Any:
        if origin is tuple:
            return tuple(words)
        return None if words[0] == "None" and type(None) in get_args(kind) else words[0]

    def show(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [redact(str(word)) for pair in value.items() for word in pair]
        words = value if isinstance(value, list | tuple) else [value]
        return [redact(str(word)) for word in words]

    return PrimitiveConstructorSpec(
        nargs="*" if origin in (dict, tuple) else 1,
        metavar=_metavar(kind),
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=show,
    )


def _metavar(kind: Any) -> str:
    """What stands for the value in the help text, such as INT or {max,mean}."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _metavar(inner[0])
    if origin is Literal:
        return f"{{{','.join(inner)}}}"
    if origin is dict:
        return "[NAME VALUE ...]"
    if origin is tuple:
        return f"[{_metavar(inner[0])} ...]"
    if inner:
        return "|".join(_metavar(k) for k in inner if k is not type(None))
    return "{True,False}" if kind is bool else kind.__name__.upper()


def _merged(below: Any, above: dict[str, Any]) -> Any:
    """Values of `above`, and those of `below` that it does not know; they are mistakes."""
    if not isinstance(below, dict):
        return below
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(above[name], dict):
            merged[name] = _merged(below[name], above[name])
    return merged


def _add_entries(values: dict[str, Any], entries: Mapping[tuple[str, str], Any]) -> None:
    """Put entries of mappings among the values; one that is no mapping is refused later."""
    for (key, name), value in entries.items():
        section: Any = values
        for part in key.split("."):
            section = section.setdefault(part, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[name] = value


def _add_unknown(values: dict[str, Any], keys: Iterable[str]) -> None:
    """Put keys that there are not among the values, to be refused in the order of sections."""
    for key in keys:
        *sections, name = key.split(".")
        section: Any = values
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault(name, None)
