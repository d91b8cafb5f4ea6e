"""Locations and artifacts: files and results of stages, on any file system of pyarrow.

A stage writes its files to `<run_dir>/<stage>/<fingerprint>/`, then `manifest.json` with the size
and the sha256 of every file, then the marker `DONE`. The fingerprint hashes everything that the
result depends on and nothing else. A rerun, or another run with the same settings, therefore finds
the result, and reuses it after it has compared all files with the manifest. There are no locks,
because object storage has none: a file has one writer, or several that write the same content.
"""

import errno
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from distributed_avel.errors import ArtifactError, AvelError, FileSystemError, StorageError
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


@dataclass(frozen=True)
class Artifact:
    """Result of a stage: what it depends on, and where it is stored.

    Args:
        run_dir: Folder of the run.
        name: Name of the stage.
        depends: What the result depends on, as JSON: settings, fingerprints of the stages that it
            reads, and the revision of the code that computes it.
    """

    run_dir: Location
    name: str
    depends: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of `depends`, 12 hexadecimal digits."""
        return _hash(self.depends)[:12]

    @property
    def location(self) -> Location:
        """The folder of this result."""
        return self.run_dir / self.name / self.fingerprint

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the result depends on; empty if it depends on none."""
        return self.depends.get("settings", {})

    def seconds(self) -> float:
        """Return the time that computing the result took.

        Raises:
            ArtifactError: See `manifest`.
        """
        return self.manifest()["seconds"]

    def provenance(self) -> Mapping[str, Any]:
        """Return the versions and the commit that computed the result.

        Raises:
            ArtifactError: See `manifest`.
        """
        return self.manifest()["provenance"]

    def siblings(self) -> "Iterator[Artifact]":
        """Yield the other results of this stage in the run directory."""
        for folder in (self.run_dir / self.name).children():
            try:
                depends = (folder / "depends.json").read_json()
            except (OSError, ValueError, AvelError):
                continue  # not a result, or damaged
            if isinstance(depends, dict):
                other = Artifact(self.run_dir, self.name, depends)
                if other.fingerprint == folder.name != self.fingerprint:
                    yield other

    def is_done(self) -> bool:
        """Return True if the result is complete and every file matches the manifest."""
        return self._state()[0] == "done"

    def damage(self) -> str | None:
        """Describe the damage of a finished result; None if it is intact or unfinished."""
        return self._state()[1]

    def begin(self) -> None:
        """Write `depends.json`, so that a later run can report which settings changed.

        The files of a damaged result are removed first. Folders with units stay, because
        `run_units` verifies each unit.
        """
        if self.damage() is not None:
            for name in (_MARKER, _MANIFEST):  # if killed after this, the result is unfinished
                remove_file(self.location / name)
            for path in self._files():
                if "/" not in path:
                    remove_file(self.location / path)
        (self.location / "depends.json").write_json(dict(self.depends))

    def finish(self, manifest: Mapping[str, Any], temporary: Sequence[str] = ()) -> None:
        """Write the manifest, then the marker.

        Args:
            manifest: Facts to add to the manifest.
            temporary: Path prefixes of files, such as checkpoints, that another process may still
                write and remove while it computes the same result.
        """
        paths = sorted(
            path
            for path in self._files().keys() - {_MANIFEST, _MARKER}
            if not path.startswith(tuple(temporary))
        )
        manifest = {
            "stage": self.name,
            "depends": dict(self.depends),
            **manifest,
            "files": digests(self.location, paths),
        }
        (self.location / _MANIFEST).write_json(sealed(manifest))
        (self.location / _MARKER).write_bytes(b"")

    def restore_marker(self) -> bool:
        """Write the marker if only the marker is missing; return True if it was written."""
        is_missing = self._state()[0] == "no marker"
        if is_missing:
            (self.location / _MARKER).write_bytes(b"")
        return is_missing

    def manifest(self) -> dict[str, Any]:
        """Read the manifest of a finished result, without the list of files.

        Raises:
            ArtifactError: The result is not finished, or is damaged.
        """
        state, damage = self._state()
        if state != "done":
            reason = damage or f"no {self.location}/{_MARKER}"
            raise ArtifactError(f"stage {self.name!r} is not complete: {reason}")
        manifest = read_sealed(self.location / _MANIFEST)
        del manifest["files"]
        return manifest

    def why_not_done(self) -> str:
        """Explain in one line why the stage has to run: damage, or changed settings."""
        if damage := self.damage():
            return damage
        if (self.location / "depends.json").exists():
            return "interrupted before"
        depends = json.loads(json.dumps(self.depends))  # tuples become lists, as in the file
        changes = []
        for other in (self.run_dir / self.name).children():
            try:
                changes.append(list(_changes((other / "depends.json").read_json(), depends)))
            except (OSError, ValueError):
                continue  # not a result, or damaged
        if not changes:
            return "not run before"
        return "; ".join(min(changes, key=len))

    def _state(self) -> tuple[Literal["done", "no marker", "damaged", "not done"], str | None]:
        """Return the state of the result, and a description of its damage.

        File contents are read once per process, and again if size or time of a file changes.
        """
        files = self._files()
        if _MANIFEST not in files and _MARKER not in files:
            return "not done", None
        sizes_and_times = tuple(sorted(files.items()))
        if _INTACT.get(self.location.uri) != sizes_and_times:
            if damage := self._compare(files):
                return "damaged", f"{self.location}: {damage}; computed again"
            if _MARKER not in files:
                return "no marker", f"{self.location}: {_MARKER} is missing"
            _INTACT[self.location.uri] = sizes_and_times
        return "done", None

    def _compare(self, files: Mapping[str, tuple[int, Any]]) -> str | None:
        """Describe the first file that differs from the manifest; None if all match."""
        if _MANIFEST not in files:
            return f"{_MANIFEST} is missing"
        if files.get(_MARKER, (0, None))[0]:
            return f"{_MARKER} is not empty"
        try:
            manifest = read_sealed(self.location / _MANIFEST)
            expected: dict[str, dict[str, Any]] = manifest["files"]
            if (
                Artifact(self.run_dir, self.name, manifest["depends"]).fingerprint
                != self.fingerprint
            ):
                return f"{_MANIFEST} belongs to another result"
        except (ArtifactError, KeyError):
            return f"{_MANIFEST} is damaged"
        for path, digest in expected.items():
            if path not in files:
                return f"{path} is missing"
            if files[path][0] != digest["size"]:
                return f"{path} is damaged: {files[path][0]} bytes instead of {digest['size']}"
        try:
            actual = digests(self.location, sorted(expected))
        except FileNotFoundError as error:
            return f"a file is missing: {error}"
        differs = [path for path, digest in actual.items() if digest != expected[path]]
        return f"{differs[0]} is damaged: its sha256 has changed" if differs else None

    def _files(self) -> dict[str, tuple[int, Any]]:
        """Return size and modification time of every file, by its path below the folder."""
        selector = pafs.FileSelector(self.location.path, recursive=True, allow_not_found=True)
        with _verification_errors(self.location):
            try:
                infos = self.location.fs.get_file_info(selector)
            except FileNotFoundError:  # a file was renamed or removed at this moment
                infos = self.location.fs.get_file_info(selector)
        below = f"/{self.name}/{self.fingerprint}/"
        return {
            info.path.partition(below)[2]: (info.size, info.mtime_ns)
            for info in infos
            if info.is_file and not _UNFINISHED.search(info.path)
        }


_MANIFEST, _MARKER = "manifest.json", "DONE"

_INTACT: dict[str, tuple[Any, ...]] = {}
"""Sizes and times of the files of each result that this process has verified, by location."""

_CHUNK_BYTES = 1 << 22


def digests(folder: Location, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compute size and sha256 of files, by their paths below a folder, with several threads.

    Raises:
        FileNotFoundError: A file is missing.
        StorageError: A file cannot be read.
    """
    with ThreadPoolExecutor() as threads:
        return dict(
            zip(paths, threads.map(lambda path: _digest(folder / path), paths), strict=True)
        )


def _digest(location: Location) -> dict[str, Any]:
    sha256, size = hashlib.sha256(), 0
    with _verification_errors(location), location.fs.open_input_stream(location.path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            size += len(chunk)
    return {"size": size, "sha256": sha256.hexdigest()}


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Add a hash of its content to a value for a JSON file; `read_sealed` is the inverse."""
    return {**value, "sha256": _hash(value)}


def read_sealed(location: Location) -> dict[str, Any]:
    """Read a JSON file with a value of `sealed`, and verify its hash.

    Raises:
        FileNotFoundError: The file does not exist.
        StorageError: It cannot be read.
        ArtifactError: Its content has changed.
    """
    with _verification_errors(location):
        content = location.read_bytes()
    try:
        value = json.loads(content)
        if value.pop("sha256") == _hash(value):
            return value
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ArtifactError(f"{location}: damaged: its content has changed")


@contextmanager
def _verification_errors(location: Location) -> Iterator[None]:
    """Turn file-system errors of reading into `StorageError`, except for a missing file."""
    try:
        with storage_errors("read", location):
            yield
    except FileSystemError as error:
        raise StorageError(str(error)) from None
    except NotADirectoryError as error:
        raise StorageError(str(storage_error("read", location, error))) from None


def _hash(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


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


def _changes(old: Any, new: Any, key: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _changes(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key} was {old}, is {new}"
