"""Check class names: different spellings of one class, background as a class, wrong separators.

Readers pass every class name with the place of its first use. Names that would give wrong results
are errors; names that only look like a mistake are oddities, which `avel check` reports.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import combinations

from distributed_avel.datasets.problems import Problems

MERGED, UNUSUAL, SIMILAR = "several labels in one", "unusual characters", "similar labels"

BACKGROUND = "background"
_NOTHING = {"none", "nan", "null", "n/a", "<na>", "no event"}
_SEPARATORS = re.compile(r"[,|/&+\t]")
_TIMES = re.compile(r":\s*\d+([.,]\d+)?\s*[-\u2013]\s*\d")
_LISTS = re.compile(r"""^[\[({]\s*["'].*["']\s*[\])}]$""")
_QUOTES = "\"'`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"


def check_names(places: Mapping[str, str], problems: Problems, *, can_be_empty: str) -> None:
    """Report wrong and suspicious class names.

    Args:
        places: Place of the first use of each name, such as `videos.csv:7, column labels`.
        problems: Collects errors and oddities.
        can_be_empty: How to mark a video without an event, for the remedy.
    """
    spellings: dict[str, list[str]] = defaultdict(list)
    for name, place in places.items():
        spellings[_same(name)].append(name)
        if _same(name) in {BACKGROUND, *_NOTHING}:
            problems.error(
                f"{place}: {name!r} cannot be a class: background is added automatically where "
                f"there is no event; {can_be_empty}"
            )
        elif has_times(name):
            problems.error(
                f"{place}: {name!r} is a label with times; write only the label in labels, and "
                f"label:start-end in spans, separated by ;"
            )
        elif _LISTS.match(name):
            problems.error(f"{place}: {name!r} is a list; write labels separated by ;: dog;bell")
        elif _same(name) == "":
            problems.error(f"{place}: {name!r} has no visible character; write a name")
    for first, *others in spellings.values():
        for other in others:
            problems.error(
                f"{places[other]}: {_shown(other)} and {_shown(first)} ({places[first]}) differ "
                f"only in {_difference(first, other)}, so that one class would become two; use "
                f"one spelling"
            )
    _note_oddities({names[0]: places[names[0]] for names in spellings.values()}, problems)


def first_places(mentions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the first place of each name, in the order of the mentions (name, place)."""
    places: dict[str, str] = {}
    for name, place in mentions:
        places.setdefault(name, place)
    return places


def has_times(name: str) -> bool:
    """Return True if a name contains times, as in `dog:2-5`, and is therefore a span."""
    return _TIMES.search(name) is not None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is probably meant: another spelling of `name` or a similar one."""
    known = list(known)
    same = (other for other in known if _same(other) == _same(name))
    return next(same, next(iter(get_close_matches(name, known, n=1)), None))


def _note_oddities(places: Mapping[str, str], problems: Problems) -> None:
    users_of_part: dict[str, set[str]] = defaultdict(set)
    for name in places:
        for part in _parts(name):
            users_of_part[part].add(name)
    whole = {_same(name): name for name in places}
    first_with: dict[str, str] = {}
    for name, place in places.items():
        shared = [
            other
            for part in _parts(name)
            for other in [whole.get(part), *sorted(users_of_part[part])]
            if other is not None and other != name
        ]
        if shared:
            problems.oddity(MERGED, place, f"{name!r}, in addition to {shared[0]!r}")
        odd = _odd_characters(name)
        if odd:
            problems.oddity(UNUSUAL, place, f"{_shown(name)} has {odd}")
        letters = "".join(c for c in _same(name) if c.isalnum())
        if letters and first_with.setdefault(letters, name) != name:
            problems.oddity(SIMILAR, place, f"{name!r} and {first_with[letters]!r}")


def _parts(name: str) -> list[str]:
    """Split a name at separators; return no parts if there is no separator."""
    parts = [_same(part) for part in _SEPARATORS.split(name)]
    return [part for part in parts if part] if len(parts) > 1 else []


def _odd_characters(name: str) -> str:
    """Describe characters of a name that are invisible or look like others."""
    odd = []
    if "  " in name:
        odd.append("two consecutive spaces")
    others = sorted({c for c in name if c.isspace() and c != " "})
    odd += [f"white space U+{ord(c):04X}" for c in others]
    odd += [f"invisible U+{ord(c):04X}" for c in sorted(_invisible(name))]
    if '"' in name or "\ufffd" in name:
        odd.append("a quote" if '"' in name else "a character that was lost in a conversion")
    for word in name.split():
        scripts = {_script(c) for c in word if c.isalpha()} & {"Latin", "Cyrillic", "Greek"}
        if len(scripts) > 1:
            odd.append(f"letters of two alphabets ({' and '.join(sorted(scripts))})")
    return ", ".join(odd)


def _invisible(name: str) -> set[str]:
    """Return control and format characters, except joiners inside non-ASCII words."""
    return {
        c
        for before, c, after in zip(f" {name}", name, f"{name[1:]} ", strict=False)
        if unicodedata.category(c) in ("Cc", "Cf")
        and not c.isspace()
        and not (c in "\u200c\u200d" and before > "\x7f" and after > "\x7f")
    }


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0].capitalize()


# Differences between two spellings of a class. Each fold is applied to the result of the previous.
_FOLDS = {
    "white space": lambda name: " ".join(name.split()),
    "Unicode normalization": lambda name: " ".join(unicodedata.normalize("NFKC", name).split()),
    "invisible characters": lambda name: " ".join(
        "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf")).split()
    ),
    "quotes": lambda name: "".join(c for c in name if c not in _QUOTES).strip(),
    "the kind of dash": lambda name: "".join(
        "-" if unicodedata.category(c) == "Pd" else c for c in name
    ),
    "upper and lower case": lambda name: unicodedata.normalize("NFKC", name.casefold()),
}


def _same(name: str, folds: Iterable[str] = tuple(_FOLDS)) -> str:
    """Normalize a name with these folds; all spellings of one name have the same result."""
    for kind in folds:
        name = _FOLDS[kind](name)
    return name


def _difference(first: str, second: str) -> str:
    """Return the smallest set of differences that explains two spellings of one name."""
    for size in range(1, len(_FOLDS) + 1):
        for folds in combinations(_FOLDS, size):
            if _same(first, folds) == _same(second, folds):
                return " and ".join(folds)
    raise ValueError(f"{first!r} and {second!r} are not spellings of one name")


def _shown(name: str) -> str:
    """Format a name; if it has non-ASCII characters, add a version with escapes."""
    return repr(name) if name.isascii() else f"{name!r} (written {name!a})"
