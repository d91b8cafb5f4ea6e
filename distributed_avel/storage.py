"""Locations: files and folders on any file system of pyarrow.

Files are written atomically. There are no locks, because object storage has none: a file has one
writer, or several that write the same content.
"""

import errno
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from distributed_avel.errors import ArtifactError, FileSystemError
from distributed_avel.redaction import redact, secret_problem


@dataclass(frozen=True)
class Location:
    """A file or folder: the URI or path that the user gave, and a path below it.

    The two are stored separately, because some characters are special in a URI but not in a file
    name.

    Args:
        root: A URI or an absolute local path.
        below: Path below the root, with `/`; empty for the root itself.
    """

    root: str
    below: str = ""

    @classmethod
    def at(cls, uri: str | Path) -> Self:
        """Create a location from a URI or a path, which may be relative.

        Raises:
            ArtifactError: The URI contains a secret.
        """
        text = str(uri)
        if "://" not in text:
            return cls(str(Path(text).expanduser().absolute()))
        if problem := secret_problem(text):
            raise ArtifactError(problem)
        return cls(text)

    @property
    def uri(self) -> str:
        """The URI or absolute local path, for messages."""
        if not self.below:
            return self.root
        is_uri = "://" in self.root
        address, mark, options = self.root.partition("?") if is_uri else (self.root, "", "")
        return f"{address.rstrip('/')}/{self.below}{mark}{options}"

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Location":
        """Return a file or folder below this one.

        Raises:
            ArtifactError: `name` is absolute or contains `..`.
        """
        if name.startswith("/") or ".." in name.split("/") or "://" in name or "\\" in name:
            raise ArtifactError(f"{name!r} is outside {self.uri}")
        return Location(self.root, f"{self.below}/{name}" if self.below else name)

    @property
    def fs(self) -> pafs.FileSystem:
        """The file system.

        Raises:
            ArtifactError: No file system supports the URI.
        """
        return _open(self.root)[0]

    @property
    def path(self) -> str:
        """The path within `fs`."""
        path = _open(self.root)[1]
        return f"{path.rstrip('/')}/{self.below}" if self.below else path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Return True on the local file system, where other programs can open `path`."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def exists(self) -> bool:
        """Return True if the file or folder exists.

        Raises:
            FileSystemError: The file system cannot be read.
        """
        try:
            with storage_errors("read", self):
                return self.fs.get_file_info(self.path).type != pafs.FileType.NotFound
        except NotADirectoryError:  # some file systems raise it for a path below a file
            return False

    def children(self) -> list["Location"]:
        """Return the files and folders directly below, sorted by name; empty if it does not exist.

        Unfinished files of killed processes are not included.

        Raises:
            FileSystemError: The folder cannot be read, or this is a file.
        """
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        with storage_errors("read", self):
            try:
                infos = self.fs.get_file_info(selector)
            except FileNotFoundError:  # pyarrow raises it while the folder is being created
                infos = self.fs.get_file_info(selector)
            except NotADirectoryError as error:
                raise storage_error("read", self, error) from None
        names = sorted(info.base_name for info in infos)
        return [self / name for name in names if not _UNFINISHED.search(name)]

    def read_bytes(self) -> bytes:
        """Read the whole file.

        Raises:
            FileNotFoundError: The file does not exist.
            FileSystemError: It cannot be read.
        """
        with storage_errors("read", self), self.fs.open_input_stream(self.path) as stream:
            return stream.read()

    def write_bytes(self, content: bytes | pa.Buffer) -> None:
        """Write a file atomically: readers never see a part of it.

        Raises:
            FileSystemError: It cannot be written.
        """
        with (
            storage_errors("written", self),
            _Write(self) as (fs, path),
            fs.open_output_stream(path) as stream,
        ):
            stream.write(content)

    def read_json(self) -> Any:
        """Read a JSON file."""
        return json.loads(self.read_bytes())

    def write_json(self, value: Any) -> None:
        """Write a JSON file; keys keep their order."""
        self.write_bytes(json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file.

        Args:
            columns: Columns to read; all by default.

        Raises:
            ArtifactError: A column has a type that Ray Data would unpickle.
        """
        with storage_errors("read", self), self.fs.open_input_file(self.path) as file:
            table = pq.read_table(file, columns=columns)
        for field in table.schema:
            if _has_foreign_type(field.type):
                raise ArtifactError(
                    f"{self}: column {field.name!r} has the type {field.type}, which this package "
                    "does not write; remove the file"
                )
        return table

    def write_table(self, table: pa.Table) -> None:
        """Write a Parquet file atomically."""
        buffer = pa.BufferOutputStream()  # a failing Parquet writer would leave a truncated file
        pq.write_table(table, buffer, compression="zstd")
        self.write_bytes(buffer.getvalue())


def _has_foreign_type(kind: pa.DataType) -> bool:
    """Return True if a type is or contains an extension type, such as Ray's pickled objects."""
    if isinstance(kind, pa.BaseExtensionType):
        return not isinstance(kind, pa.FixedShapeTensorType)
    if pa.types.is_dictionary(kind):
        return _has_foreign_type(kind.value_type)
    return any(_has_foreign_type(kind.field(i).type) for i in range(kind.num_fields))


_Action = Literal["read", "written", "removed"]


@contextmanager
def storage_errors(what: _Action, location: Location) -> Iterator[None]:
    """Turn file-system errors into `FileSystemError`, except for a missing file to read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if what == "read":
            raise
        raise storage_error(what, location, error) from None
    except FileSystemError:
        raise
    except OSError as error:
        raise storage_error(what, location, error) from None


def storage_error(what: _Action, location: Location, error: OSError) -> FileSystemError:
    """Describe a file-system error to the user: location, reason and remedy."""
    reason = redact(_reason(error, location.path))[:_MAX_REASON_CHARS]
    remedy = "check its permissions, the disk, the network or the credentials"
    if error.errno in _NO_SPACE or "No space left" in reason:
        remedy = "free some space, or use another folder; the same command continues from here"
    described = FileSystemError(f"{location}: cannot be {what} ({reason}); {remedy}")
    described.errno = error.errno
    return described


def _reason(error: OSError, path: str) -> str:
    """Return the text of an error without `path`, which the message already contains.

    pyarrow adds the path and the number of the error to the text, sometimes twice.
    """
    text = " ".join(str(error).split())
    quoted_path = re.compile(rf" ?'{re.escape(path)}({_UNFINISHED_SUFFIX})?'")
    without_path = quoted_path.sub("", text)
    if error.errno and not re.search(r"'[^']+'", without_path):
        return os.strerror(error.errno)
    return without_path


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_MAX_REASON_CHARS = 300


@lru_cache(maxsize=256)
def _open(root: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI or path, and the path within it."""
    if "://" not in root:
        return pafs.LocalFileSystem(), root
    try:
        return pafs.FileSystem.from_uri(root.replace(" ", "%20"))
    except pa.ArrowInvalid:
        pass  # not a file system of pyarrow itself
    except OSError as error:
        raise ArtifactError(redact(f"{root}: {error}")) from None
    try:
        filesystem, path = fsspec.core.url_to_fs(root)
    except (ValueError, ImportError) as error:
        raise ArtifactError(redact(f"{root}: no such file system: {error}")) from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


_UNFINISHED_SUFFIX = r"\.tmp-[0-9a-f]{8}"
_UNFINISHED = re.compile(rf"{_UNFINISHED_SUFFIX}$")


def is_unfinished(path: str) -> bool:
    """Return True for the file of a write that has not ended, or never will."""
    return _UNFINISHED.search(path) is not None


class _Write:
    """Atomic write: object stores publish a file on close; elsewhere it is renamed into place."""

    def __init__(self, target: Location) -> None:
        self._target = target
        self._renames = not isinstance(target.fs, pafs.S3FileSystem | pafs.GcsFileSystem)
        self._path = f"{target.path}.tmp-{uuid.uuid4().hex[:8]}" if self._renames else target.path

    def __enter__(self) -> tuple[pafs.FileSystem, str]:
        fs = self._target.fs
        fs.create_dir(self._target.path.rpartition("/")[0], recursive=True)
        return fs, self._path

    def __exit__(self, failed: object, *_: object) -> None:
        fs = self._target.fs
        if not self._renames:
            return
        if failed:
            if fs.get_file_info(self._path).type != pafs.FileType.NotFound:
                fs.delete_file(self._path)
        else:
            fs.move(self._path, self._target.path)


def remove_file(location: Location) -> None:
    """Remove a file if it exists.

    Raises:
        FileSystemError: It cannot be removed.
    """
    with storage_errors("removed", location), suppress(FileNotFoundError):
        location.fs.delete_file(location.path)


def remove_folder(location: Location) -> None:
    """Remove a folder and its content if it exists.

    Raises:
        FileSystemError: It cannot be removed.
    """
    with storage_errors("removed", location), suppress(FileNotFoundError):
        location.fs.delete_dir(location.path)
