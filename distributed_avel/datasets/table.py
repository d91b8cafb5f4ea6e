"""Read a user's table, CSV or Parquet, as rows with their file and line.

CSV files are read strictly, record by record: otherwise an unclosed quote would silently consume
the rows after it.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.text import read_text
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ":": "colons"}
_CONVERT = (
    "must be separated by commas: save the table as 'CSV UTF-8 (comma delimited)', or convert it: "
    "python -c "
    '"import csv, sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter={!r}))" '
    "< OLD > NEW"
)
_QUOTE = (
    'a quote (") opens a value in this row and is not closed at the end of the value; remove it, '
    'or write two ("") for a quote that belongs to the value'
)
# A quoted value with more lines than this is treated as an unclosed quote.
_MAX_LINES = 100
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def read_table(
    file: Location,
    problems: Problems,
    *,
    required: Sequence[str],
    optional: Sequence[str],
    is_row: Callable[[Mapping[str, str]], bool],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row with its place: `FILE:LINE` in a CSV, `FILE, row N` in Parquet.

    Unreadable rows are reported in `problems` and skipped.

    Args:
        file: The table.
        problems: Collects errors.
        required: Columns that the table must have.
        optional: Columns that the table may have; others are ignored.
        is_row: Whether the values of the columns are certainly a row of this table. It
            distinguishes a line break in a quoted value from a row after an unclosed quote.

    Raises:
        DatasetError: The file cannot be read as a table, or a column is missing or ambiguous.
    """
    if file.name.endswith(".parquet"):
        try:
            table = file.read_table()
        except pa.ArrowInvalid as error:
            raise DatasetError(f"{file}: not a Parquet file: {error}") from None
        _check_columns(file, table.column_names, required, optional)
        for number, row in enumerate(table.to_pylist(), start=1):
            yield f"{file}, row {number}", row
        return
    records = _records(_LINE.findall(read_text(file)), is_row)
    header = next(([f.strip() for f in fields or []] for _, fields in records if fields != []), [])
    _check_delimiter(file, header, required)
    _check_columns(file, header, required, optional)
    known = [header.index(name) for name in (*required, *optional) if name in header]
    for line, fields in records:
        where = f"{file}:{line}"
        if fields is None:
            problems.error(f"{where}: {_QUOTE}")
            continue
        surplus = len(fields) - len(header)
        if not any(field.strip() for field in fields):
            continue
        if surplus:
            problems.error(
                f"{where}: {abs(surplus)} field(s) {'more' if surplus > 0 else 'fewer'} than the "
                f'header; a value with a comma needs quotes: "a, b.mp4"'
            )
        elif any("\n" in fields[i] or "\r" in fields[i] for i in known):
            problems.error(f"{where}: {_QUOTE}")
        else:
            yield where, dict(zip(header, fields, strict=True))


def _records(
    lines: list[str], is_row: Callable[[Mapping[str, str]], bool]
) -> Iterator[tuple[int, list[str] | None]]:
    """Yield the first line (1-based) and the fields of each record; None for wrong quotes.

    After a record with wrong quotes, reading continues with its second line. A record may span
    lines (a line break in a column of notes), unless a line inside it is itself a row: that row
    follows an unclosed quote.
    """
    header: list[str] = []
    start = 0
    while start < len(lines):
        reader = csv.reader(iter(lines[start : start + _MAX_LINES]), strict=True)
        try:
            fields = next(reader)
        except csv.Error:  # a quote is not closed, or is closed before the value ends
            fields = None
        end = start + (reader.line_num if fields is not None else 1)
        for line in lines[start + 1 : end]:
            inner = line.rstrip("\r\n").split(",")
            if len(inner) == len(header) and is_row(dict(zip(header, inner, strict=True))):
                fields, end = None, start + 1
                break
        header = header or [name.strip() for name in fields or []]
        yield start + 1, fields
        start = end


def _check_delimiter(file: Location, header: list[str], required: Sequence[str]) -> None:
    """Refuse a table whose fields are not separated by commas."""
    line = ",".join(header)
    if line.lower().startswith("sep="):
        raise DatasetError(f"{file}:1: only Excel understands {line!r}; remove this line")
    for delimiter, name in _DELIMITERS.items():
        names = [part.strip(' "') for part in line.split(delimiter)]
        if {*required} <= {*names} and not {*required} <= {*header}:
            raise DatasetError(
                f"{file}: columns are separated by {name}, but " + _CONVERT.format(delimiter)
            )


def _check_columns(
    file: Location, names: list[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    """Refuse columns that are missing, duplicate or misspelt."""
    missing = [name for name in required if name not in names]
    if missing:
        raise DatasetError(
            f"{file}: no column {missing[0]!r} in the header; it has {', '.join(names) or 'none'}, "
            f"and needs {', '.join(required)}"
        )
    expected = (*required, *optional)
    for name in names:
        if names.count(name) > 1 and name in expected:
            raise DatasetError(f"{file}: column {name!r} appears twice in the header; remove one")
        if name not in expected:
            absent = [n for n in optional if n not in names]
            near = get_close_matches(name.lower(), absent, n=1)
            if near:
                raise DatasetError(
                    f"{file}: column {name!r}: did you mean {near[0]!r}? rename the column"
                )
