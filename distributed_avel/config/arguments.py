"""The words of a command line: well-formed options, and what is wrong with the rest.

A parser that skips what it does not understand runs another experiment than the one that was
asked for. Here every word is an option of the job, the value of one, or a problem that is
reported together with all other problems of the configuration.
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
"""What word processors and web pages make of a hyphen."""

_NUMBER = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)
_HELP = ("-h", "--help")
_TAKES_ASSIGNMENTS = "sweep.vary"
"""Its values are written KEY=VALUE."""


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
    """A command line that was read.

    Args:
        config: Path of the YAML file, if one is named.
        options: The well-formed options and their values, as they were given.
        entries: The entries of options that are mappings, by (key, name).
        problems: What is wrong, by the word or key that it concerns.
        unknown: Those of the problems that are keys which the configuration does not have.
    """

    config: str | None = None
    options: list[str] = field(default_factory=list)
    entries: dict[tuple[str, str], Any] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def read_arguments(argv: Sequence[str], section: type[Config]) -> Arguments:
    """Tell the options of `section` from words that are none, without reading their values."""
    known = {CONFIG: _Option(CONFIG, "one"), **dict(_options(section))}
    read = Arguments()
    given: set[str] = set()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in _HELP:
            read.options.append(word)
            continue
        if word == "--":
            after = f": {' '.join(words)}" if words else ""
            read.problems[word] = f"options are not read after it{after}; leave out the two dashes"
            break
        name, equals, value = word.partition("=")
        option = _find(name[2:], known) if name.startswith("--") else None
        if option is None:
            key, problem = _not_an_option(word, known)
            read.problems[key] = problem
            if key != word:
                read.unknown.append(key)
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
            read.problems[option.full_key] = problem
        elif option.key == CONFIG:
            read.config = values[0]
        elif option.values == "pairs" or option.entry:
            texts = values[1::2] if option.values == "pairs" else values
            for entry, text in zip(names, texts, strict=True):
                value, problem = _entry_value(text, option)
                read.entries[option.key, entry] = value
                if problem:
                    read.problems[f"{option.key}.{entry}"] = problem
        else:
            read.options += [word] if equals else [name]
            read.options += values[1:] if equals else values
    return read


def _options(section: type[Config], prefix: str = "") -> Iterator[tuple[str, _Option]]:
    """All options of a section by the name that stands after the two dashes."""
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


def _find(name: str, known: dict[str, _Option]) -> _Option | None:
    """The option of a name, which may be the entry of a mapping: model.options.threshold."""
    if option := known.get(_canonical(name)):
        return option
    mapping, _, entry = name.rpartition(".")
    option = known.get(_canonical(mapping))
    if option is None or option.values != "pairs" or not entry:
        return None
    return replace(option, values="one", entry=entry.replace("-", "_"))


def _entry_value(text: str, option: _Option) -> tuple[Any, str | None]:
    """The value of an entry of a mapping, and what is wrong with it."""
    if option.is_text:
        return text, None
    try:
        return (None if text == "None" else yaml.safe_load(text)), None
    except yaml.YAMLError:
        return None, f"{text!r} is not a value in YAML"


def _canonical(name: str) -> str:
    return name.replace("_", "-")


def _take_values(
    words: list[str],
    known: dict[str, _Option],
    *,
    most: int | None = None,
    assignments: bool = False,
) -> list[str]:
    """Remove from the front of `words`, and return, those that can be values of an option."""
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
    """What is wrong with the values of an option; `after` are the words that follow them."""
    if option.values == "none":
        if values:
            return f"{name} takes no value; give the option alone, or {_opposite(name)}"
        return None
    if not values:
        if after and after[0].startswith("-") and not _is_close_to_an_option(after[0], known):
            value = after.pop(0)
            return f"{name} needs a value; if {value} is meant, write {name}={value}"
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
    """The key under which a word that is no option is refused, and why."""
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
        return word, "not an option; options are --KEY VALUE" + _suggestion(key, known)
    return word, "not an option, and no option before it takes it as a value"


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
