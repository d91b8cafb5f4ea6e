"""Command-line interface of all jobs: read settings from YAML and options, and report errors."""

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
    errno.ENOSPC: "free some space; the same command continues from here",
    errno.EDQUOT: "free some space or raise the quota; the same command continues from here",
    errno.EROFS: "use a folder that is writable",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EMFILE: "raise `ulimit -n`",
    errno.EIO: "check the disk or the network; the same command continues from here",
}
"""Errors of the operating system that are not bugs, with their remedies."""

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
    """Read the configuration, run a job, and return the exit status.

    Args:
        job: Called with the configuration; may return an exit status.
        argv: Command-line arguments: `--config PATH` and options that override the file.
        description: Help text of the job.
        kind: Class of the configuration.
    """
    return run_safely(lambda: job(read_config(argv, description, kind)))


def run_safely(
    action: Callable[[], int | None], after_interrupt: str = "the same command continues from here"
) -> int:
    """Run an action and return the exit status; a user's mistake is one line without a traceback.

    Args:
        action: May return an exit status.
        after_interrupt: What a user who interrupts the action has to know.
    """
    sys.excepthook, threading.excepthook = _show_bug, _show_bug_of_thread
    try:
        return action() or 0
    except AvelError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        return _refuse(f"{error}; {_OF_THE_MACHINE[error.errno]}")
    except KeyboardInterrupt:
        print(f"interrupted; {after_interrupt}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _refuse(problem: str) -> int:
    print(f"error: {redact(problem)}", file=sys.stderr)  # noqa: T201
    return USER_ERROR


def _show_bug(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Print a traceback as Python does, with the secrets of URIs redacted."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(redact(text), end="", file=sys.stderr)  # noqa: T201


def _show_bug_of_thread(bug: threading.ExceptHookArgs) -> None:
    if bug.exc_type is not SystemExit:
        _show_bug(bug.exc_type, bug.exc_value, bug.exc_traceback)


def read_config(
    argv: Sequence[str], description: str | None = None, kind: type[AnyRun] = RunConfig
) -> AnyRun:
    """Read a configuration from command-line arguments.

    Raises:
        ConfigError: Keys or values are wrong; the message lists all problems of the file and of the
            command line.
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
    """Create a dataclass with the fields of a configuration section, without validation.

    tyro parses the command line into it, with the values of the file as defaults; the result is
    then validated as a whole. If tyro parsed into the configuration itself, only the first problem
    would be reported, and the file alone would have to be valid.
    """
    given = values if isinstance(values, dict) else {}
    options = []
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            section_options = _options_of(kind, given.get(name))
            factory = dataclasses.field(default_factory=section_options)
            options.append((name, section_options, factory))
        else:
            default = given.get(name, info.default)
            help_text = tyro.conf.arg(help=info.description)
            if kind is bool and isinstance(default, bool):  # a flag, so it has no value to check
                annotated = Annotated[bool, help_text]
            else:
                annotated = Annotated[Any, _unparsed(kind), help_text]
            factory = dataclasses.field(default_factory=partial(_identity, default))
            options.append((name, annotated, factory))
    options_class = dataclasses.make_dataclass(section.__name__, options, frozen=True)
    options_class.__doc__ = section.__doc__
    return options_class


def _identity(value: Any) -> Any:
    return value


def _unparsed(kind: Any) -> PrimitiveConstructorSpec[Any]:
    """Return a tyro rule that keeps the words of an option as text, to be validated later."""
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
    """Return the placeholder of a value in the help text, such as INT or {max,mean}."""
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
    """Merge values recursively; unknown keys of `below` are kept, to be reported later."""
    if not isinstance(below, dict):
        return below
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(above[name], dict):
            merged[name] = _merged(below[name], above[name])
    return merged


def _add_entries(values: dict[str, Any], entries: Mapping[tuple[str, str], Any]) -> None:
    """Insert entries of mappings into the values; others are refused later."""
    for (key, name), value in entries.items():
        section: Any = values
        for part in key.split("."):
            section = section.setdefault(part, {}) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[name] = value


def _add_unknown(values: dict[str, Any], keys: Iterable[str]) -> None:
    """Insert unknown keys into the values, so that validation reports them section by section."""
    for key in keys:
        *sections, name = key.split(".")
        section: Any = values
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault(name, None)
