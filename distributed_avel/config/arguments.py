"""Split a command line into well-formed options and problems.

A parser that ignores what it does not understand would run another experiment than the requested
one. Here, every word is an option, the value of an option, or a problem, which is reported together
with all other problems of the configuration.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import yaml

from distributed_avel.config.sections import Config

CONFIG = "config"
"""The option that names a YAML file; it is not a key of the configuration."""

_DASHES = "-\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"
"""Characters that word processors and web pages substitute for a hyphen."""

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)
_HELP = ("-h", "--help")
_TAKES_ASSIGNMENTS = "sweep.vary"
"""Option whose values have the form KEY=VALUE."""


_Values = Literal["none", "one", "several", "pairs"]


@dataclass(frozen=True, slots=True)
class _Option:
    """An option, or an entry of one that is a mapping.

    Args:
        is_text: The values of a mapping are text; otherwise they are read as YAML.
        entry: Name of the entry, of an option such as --model.options.threshold.
    """

    key: str
    values: _Values
    is_text: bool = True
    entry: str = ""

    @property
    def full_key(self) -> str:
        """The key, with the name of the entry."""
        return f"{self.key}.{self.entry}" if self.entry else self.key


@dataclass(slots=True)
class Arguments:
    """A parsed command line.

    Args:
        config: Value of --config, if given.
        options: Well-formed options and their values, as given.
        entries: Entries of options that are mappings, by (key, name).
        problems: Problems, by the word or key that they concern.
        unknown: Keys among `problems` that the configuration does not have.
    """

    config: str | None = None
    options: list[str] = field(default_factory=list)
    entries: dict[tuple[str, str], Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def read_arguments(argv: Sequence[str], section: type[Config]) -> Arguments:
    """Separate the options of `section` from other words, without converting their values."""
    known = {CONFIG: _Option(CONFIG, "one"), **dict(_options(section))}
    arguments = Arguments()
    given: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in _HELP:
            arguments.options.append(word)
            continue
        if word == "--":
            after = f": {' '.join(words)}" if words else ""
            arguments.problems[word] = (
                f"options after it are not read{after}; remove the two dashes"
            )
            break
        name, equals, value = word.partition("=")
        option = _find(name[2:], known) if name.startswith("--") else None
        if option is None:
            key, problem = _not_an_option(word, known)
            arguments.problems[key] = problem
            if key != word:
                arguments.unknown.append(key)
            if word.startswith(tuple(_DASHES)) and not equals:
                _take_values(words, known)
            continue
        values = [value] if equals else []
        if option.values in ("several", "pairs"):
            values += _take_values(words, known, assignments=option.key == _TAKES_ASSIGNMENTS)
        elif option.values == "one" and not equals:
            values += _take_values(words, known, most=1)
        problem = _problem(name, option, values, words, known)
        names = values[::2] if option.values == "pairs" else [option.entry]
        keys = {option.full_key, *(f"{option.key}.{of}" for of in names if of)}
        if keys & given or len(set(names)) < len(names):
            problem = f"{name} is given more than once; give it once"
        given |= keys
        if problem:
            arguments.problems[option.full_key] = problem
        elif option.key == CONFIG:
            arguments.config = values[0]
        elif option.values == "pairs" or option.entry:
            texts = values[1::2] if option.values == "pairs" else values
            for entry, text in zip(names, texts, strict=True):
                value, problem = _entry_value(text, option)
                arguments.entries[option.key, entry] = value
                if problem:
                    arguments.problems[f"{option.key}.{entry}"] = problem
        else:
            arguments.options += [word] if equals else [name]
            arguments.options += values[1:] if equals else values
    return arguments


def _options(section: type[Config], prefix: str = "") -> Iterator[tuple[str, _Option]]:
    """Yield all options of a section by name, as written after the two dashes."""
    for name, info in section.model_fields.items():
        kind, key = info.annotation, f"{prefix}{name}"
        if isinstance(kind, type) and issubclass(kind, Config):
            yield from _options(kind, f"{key}.")
        elif kind is bool:
            yield _canonical(key), _Option(key, "none")
            yield _canonical(f"{prefix}no_{name}"), _Option(key, "none")
        else:
            several: dict[Any, _Values] = {dict: "pairs", tuple: "several"}
            values = several.get(get_origin(kind), "one")
            yield _canonical(key), _Option(key, values, is_text=Any not in get_args(kind))


def option_choices(section: type[Config]) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """Yield each option of a section and the values to choose from, for shell completion.

    The values are empty if there are too many to list, and None if the option takes no value.
    """
    for name, info in section.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            for inner, choices in option_choices(kind):
                yield f"{_canonical(name)}.{inner}", choices
        elif kind is bool:
            yield _canonical(name), None
            yield f"no-{_canonical(name)}", None
        else:
            literals = [kind, *get_args(kind)] if get_origin(kind) is not Literal else [kind]
            choices = [get_args(of) for of in literals if get_origin(of) is Literal]
            yield _canonical(name), tuple(str(value) for of in choices for value in of)


def _find(name: str, known: dict[str, _Option]) -> _Option | None:
    """Find an option by name; the name may include an entry, as in model.options.threshold."""
    if option := known.get(_canonical(name)):
        return option
    mapping, _, entry = name.rpartition(".")
    option = known.get(_canonical(mapping))
    if option is None or option.values != "pairs" or not entry:
        return None
    return replace(option, values="one", entry=entry.replace("-", "_"))


def _entry_value(text: str, option: _Option) -> tuple[Any, str | None]:
    """Convert the value of an entry; the second result is its problem, if any."""
    if option.is_text:
        return text, None
    try:
        return (None if text == "None" else yaml.safe_load(text)), None
    except yaml.YAMLError:
        return None, f"{text!r} is not a valid YAML value"


def _canonical(name: str) -> str:
    return name.replace("_", "-")


def _take_values(
    words: list[str],
    known: dict[str, _Option],
    *,
    most: int | None = None,
    assignments: bool = False,
) -> list[str]:
    """Remove the first words that can be values of an option from `words`, and return them."""
    taken: list[str] = []
    while words and (most is None or len(taken) < most):
        word = words[0]
        if word.startswith(tuple(_DASHES)) and not _NUMBER.match(word):
            break
        name, equals, _ = word.partition("=")
        if equals and _find(name, known) and not assignments:
            break
        taken.append(words.pop(0))
    return taken


def _problem(
    name: str, option: _Option, values: list[str], after: list[str], known: dict[str, _Option]
) -> str | None:
    """Describe the problem of the values of an option, if any; `after` are the next words."""
    if option.values == "none":
        if values:
            return f"{name} takes no value; use the option without one, or {_opposite(name)}"
        return None
    if not values:
        if after and after[0].startswith("-") and not _is_close_to_an_option(after[0], known):
            value = after.pop(0)
            return f"{name} needs a value; if you mean {value}, write {name}={value}"
        return f"{name} needs a value"
    if "" in values:
        return f"{name} has an empty value"
    if option.values == "pairs" and len(values) % 2:
        return f"{name} needs pairs of a name and a value"
    return None


def _is_close_to_an_option(word: str, known: dict[str, _Option]) -> bool:
    name = _canonical(word.lstrip(_DASHES).partition("=")[0])
    return word == "--" or word in _HELP or bool(get_close_matches(name, known, n=1, cutoff=0.8))


def _opposite(name: str) -> str:
    *sections, last = name.split(".")
    other = last.removeprefix("no-") if last.startswith("no-") else f"no-{last}"
    return ".".join([*sections, other])


def _not_an_option(word: str, known: dict[str, _Option]) -> tuple[str, str]:
    """Return key and problem of a word that is not an option."""
    name, equals, value = word.lstrip(_DASHES).partition("=")
    option = _find(name, known)
    if option is not None:
        example = f"--{_canonical(name)}"
        if value and option.values != "none":
            example += f" {value}"
        return word, f"not an option; write {example}"
    if word.startswith("--") or (word.startswith(tuple(_DASHES)) and name):
        key = name.replace("-", "_")
        return key, "no such key" + _suggestion(key, known)
    if equals:
        key = name.replace("-", "_")
        return word, "not an option; options have the form --KEY VALUE" + _suggestion(key, known)
    return word, "not an option, and not the value of the option before it"


def _suggestion(key: str, known: dict[str, _Option]) -> str:
    section, _, last = key.rpartition(".")
    keys = [option.key for option in known.values()]
    siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == section]
    for close in get_close_matches(last, siblings, n=1):
        return f"; perhaps {close}"
    for close in get_close_matches(key, keys, n=1):
        return f"; perhaps {close}"
    elsewhere = [k for k in keys if k.rpartition(".")[2] == last]
    return f"; perhaps {elsewhere[0]}" if len(elsewhere) == 1 else ""
