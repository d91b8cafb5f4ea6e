"""Sources of `avel predict`: media files, folders, glob patterns, lists, and object-store prefixes.

A list is a CSV or Parquet table with a column of paths or URIs. Relative paths are relative to the
folder of the table.
"""

import csv
import glob
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
from fsspec.utils import glob_translate
from pyarrow import fs as pafs

from distributed_avel.errors import AvelError, DatasetError
from distributed_avel.storage import Location

MEDIA_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".ts", ".webm", ".wmv"}
)
"""Files that are taken from a folder; a file that is named is always taken."""

LIST_SUFFIXES = frozenset({".csv", ".parquet"})

LIST_COLUMNS = ("uri", "path", "video", "file")
"""Columns of a list that may have the paths or URIs; the first that exists is used."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A media file to predict.

    Args:
        address: Path or URI, as a user named it or a folder or list that it is in.
        name: Its path below the source that a user named, or its name; without the suffix, the
            name of its subtitles.
    """

    address: str
    name: str


def find_files(sources: Sequence[str]) -> tuple[list[SourceFile], list[str]]:
    """Find the media files of the sources: files, folders or prefixes, patterns, and lists.

    Returns:
        The files, each once, and the reason of each source or row that cannot be used.
    """
    files: dict[Location, SourceFile] = {}
    failures: list[str] = []
    for source in sources:
        try:
            for file in _files_of(source):
                if isinstance(file, DatasetError):
                    failures.append(str(file))
                else:
                    files.setdefault(Location.at(file.address), file)
        except (AvelError, OSError) as error:
            failures.append(str(error))
        except UnicodeEncodeError:
            failures.append(f"{source!a}: the name is not UTF-8; rename it")
    return list(files.values()), failures


def _files_of(source: str) -> Iterator[SourceFile | DatasetError]:
    """Yield the files of a source, and the reasons of rows of a list that cannot be used."""
    if _is_pattern(source) and not Location.at(source).exists():
        yield from _matching(source)
        return
    location = Location.at(source)
    info = location.fs.get_file_info(location.path)
    if info.type == pafs.FileType.NotFound:
        raise DatasetError(f"{source}: no such file or folder; check the path")
    if info.type == pafs.FileType.Directory:
        yield from _below(source, location)
    elif Path(location.name).suffix.lower() in LIST_SUFFIXES:
        yield from _listed(source, location)
    else:
        yield SourceFile(source, location.name)


def _is_pattern(source: str) -> bool:
    """Whether a source has a wildcard; `?` begins the options of a URI."""
    return any(mark in source for mark in ("*[" if "://" in source else "*?["))


def _matching(pattern: str) -> Iterator[SourceFile]:
    """Yield the files that match a pattern; `**` stands for any number of folders.

    Files of folders that match are not taken, so that no other files than the named are predicted.
    """
    if "://" in pattern:
        address, mark, options = pattern.partition("?")
        fixed = re.split(r"[*\[]", address, maxsplit=1)[0].rpartition("/")[0]
        base = Location.at(f"{fixed}{mark}{options}")
        try:
            matches = re.compile(glob_translate(address[len(fixed) + 1 :])).match
        except (ValueError, re.error) as error:
            raise DatasetError(
                f"{pattern}: {error}; write /**/*.mp4 for the files of all folders below"
            ) from None
        found = [(str(base / name), name) for name, _ in _all_below(base) if matches(name)]
    else:
        paths = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207 (absolute)
        found = [(path, Path(path).name) for path in sorted(paths) if Path(path).is_file()]
    if not found:
        raise DatasetError(f"{pattern}: no file matches; check the pattern, and quote it")
    for address, name in found:
        yield SourceFile(address, name)


def _below(source: str, location: Location) -> Iterator[SourceFile]:
    """Yield the media files of a folder or prefix."""
    found = list(_all_below(location))
    num_unnameable = sum(not is_nameable for _, is_nameable in found)
    names = [name for name, _ in found if Path(name).suffix.lower() in MEDIA_SUFFIXES]
    if not names and not num_unnameable:
        raise DatasetError(f"{source}: no media file in this folder; name a file instead")
    for name in names:
        is_uri = "://" in source
        address = str(location / name) if is_uri else str(Path(source).expanduser() / name)
        yield SourceFile(address, name)
    if num_unnameable:
        raise DatasetError(
            f"{source}: the names of {num_unnameable} files or folders in it are not UTF-8; "
            "rename them"
        )


def _all_below(folder: Location) -> Iterator[tuple[str, bool]]:
    """Yield the paths of all files below a folder, sorted, and False for names that are not UTF-8.

    Raises:
        DatasetError: The folder does not exist.
    """
    prefix = folder.path.rstrip("/") + "/"
    paths, num_unnameable = [], 0
    try:
        infos = folder.fs.get_file_info(pafs.FileSelector(folder.path, recursive=True))
    except FileNotFoundError:
        raise DatasetError(f"{folder}: no such folder; check the path") from None
    for info in infos:
        try:
            paths += [info.path] if info.is_file else []
        except UnicodeDecodeError:
            num_unnameable += 1
    yield from ((path.removeprefix(prefix), True) for path in sorted(paths))
    yield from [("", False)] * num_unnameable


def _listed(source: str, location: Location) -> Iterator[SourceFile | DatasetError]:
    """Yield the files of a list, and the reasons of rows that cannot be used.

    Raises:
        DatasetError: It is damaged, or lacks the column.
    """
    column, addresses = _read_list(source, location)
    if not addresses:
        raise DatasetError(f"{source}: no file in its column {column}")
    for number, address in enumerate(addresses, start=2):
        if not address:
            yield DatasetError(f"{source}: line {number} has no {column}; fill it or remove it")
            continue
        try:
            file = _of_row(source, location, address)
            Location.at(file.address)  # refuses a secret in a URI
        except AvelError as error:
            yield DatasetError(f"{source}: line {number}: {error}")
            continue
        yield file


def _of_row(source: str, location: Location, address: str) -> SourceFile:
    """Return the file of a row of a list.

    Raises:
        ArtifactError: The path is not below the folder of a list in an object store.
    """
    if "://" in address or PurePosixPath(address).is_absolute():
        return SourceFile(address, address.rpartition("/")[2])
    if "://" in source:
        return SourceFile(str(_beside(location, address)), address)
    folder = Path(source.rpartition("/")[0]).expanduser()
    name = address if ".." not in address.split("/") else PurePosixPath(address).name
    return SourceFile(str(folder / address), name)


def _beside(table: Location, address: str) -> Location:
    """The location of a file whose path is relative to the folder of a table."""
    before, mark, options = table.uri.partition("?")
    return Location.at(f"{before.rpartition('/')[0]}{mark}{options}") / address


def _read_list(source: str, location: Location) -> tuple[str, list[str]]:
    try:
        if source.partition("?")[0].lower().endswith(".csv"):
            rows = csv.DictReader(io.StringIO(location.read_bytes().decode("utf-8-sig")))
            names, columns = rows.fieldnames or [], list(rows)
        else:
            table = location.read_table()
            names, columns = table.column_names, table.to_pylist()
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DatasetError(f"{source}: not a readable table ({error}); write it again") from None
    column = next((name for name in LIST_COLUMNS if name in names), None)
    if column is None:
        raise DatasetError(
            f"{source}: a list needs a column {' or '.join(LIST_COLUMNS)} with the paths of the "
            f"files; it has: {', '.join(map(str, names)) or 'none'}"
        )
    return column, [str(row[column] or "").strip() for row in columns]
