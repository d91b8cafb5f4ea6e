"""Locations and artifacts: files and the results of stages, on any file system of pyarrow.

A stage writes into `<run_dir>/<stage>/<fingerprint>/`: its data, then `manifest.json` with the
size and the sha256 of every file, then the marker `DONE`. The fingerprint hashes what the result
depends on and nothing else, so a rerun, or another run with the same settings, finds and reuses
what exists, once it has compared all files with the manifest. There are no locks: object storage
has none. A file has one writer, or writers that would write the same.
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
    """A file or folder: what a user named, and the path of this one below it.

    The two stay apart, because a URI gives some characters a meaning that they do not have in
    the name of a file.

    Args:
        root: A URI or an absolute local path.
        below: A path with `/`; empty for the root itself.
    """

    root: str
    below: str = ""

    @classmethod
    def at(cls, uri: str | Path) -> Self:
        """The place that a user names: a URI, or a path that may be relative.

        Raises:
            ArtifactError: A URI holds a secret.
        """
        text = str(uri)
        if "://" not in text:
            return cls(str(Path(text).expanduser().absolute()))
        if problem := secret_problem(text):
            raise ArtifactError(problem)
        return cls(text)

    @property
    def uri(self) -> str:
        """A URI or absolute local path for people to read."""
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
            ArtifactError: `name` is absolute or climbs out with `..`.
        """
        if name.startswith("/") or ".." in name.split("/") or "://" in name or "\\" in name:
            raise ArtifactError(f"{name!r} would lie outside {self.uri}")
        return Location(self.root, f"{self.below}/{name}" if self.below else name)

    @property
    def fs(self) -> pafs.FileSystem:
        """The file system.

        Raises:
            ArtifactError: There is none for such a URI.
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
        """True on the local file system, where other programs can open `path` too."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def exists(self) -> bool:
        """Return True if the file or folder exists.

        Raises:
            FileSystemError: The file system does not say.
        """
        try:
            with storage_errors("read", self):
                return self.fs.get_file_info(self.path).type != pafs.FileType.NotFound
        except NotADirectoryError:  # some file systems say so of what lies below a file
            return False

    def children(self) -> list["Location"]:
        """Files and folders directly below, by name; none where there is no folder.

        What a killed process left half written is not among them.

        Raises:
            FileSystemError: The file system does not say, or this is a file.
        """
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        with storage_errors("read", self):
            try:
                found = self.fs.get_file_info(selector)
            except FileNotFoundError:  # pyarrow's answer where the folder is made at this moment
                found = self.fs.get_file_info(selector)
            except NotADirectoryError as error:
                raise storage_error("read", self, error) from None
        names = sorted(info.base_name for info in found)
        return [self / name for name in names if not _UNFINISHED.search(name)]

    def read_bytes(self) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: There is none.
            FileSystemError: It cannot be read.
        """
        with storage_errors("read", self), self.fs.open_input_stream(self.path) as stream:
            return stream.read()

    def write_bytes(self, content: bytes | pa.Buffer) -> None:
        """Write a file so that nobody ever sees half of it.

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
        """The content of a JSON file."""
        return json.loads(self.read_bytes())

    def write_json(self, value: Any) -> None:
        """Write a JSON file, keys in their order."""
        self.write_bytes(json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")

    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file.

        Raises:
            ArtifactError: A column is of a type that Ray Data would unpickle.
        """
        with storage_errors("read", self), self.fs.open_input_file(self.path) as file:
            table = pq.read_table(file, columns=columns)
        for field in table.schema:
            if _has_foreign_type(field.type):
                raise ArtifactError(
                    f"{self}: column {field.name!r} is of the type {field.type}, which is none of "
                    "this package; remove the file"
                )
        return table

    def write_table(self, table: pa.Table) -> None:
        """Write a Parquet file so that nobody ever sees half of it."""
        whole = pa.BufferOutputStream()  # a writer that fails half way would close a short file
        pq.write_table(table, whole, compression="zstd")
        self.write_bytes(whole.getvalue())


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
    """Describe a file-system error to the user: place, reason and remedy, each once."""
    reason = redact(_reason(error, location.path))[:_MAX_REASON_CHARS]
    remedy = "see to its permissions, the disk, the network or the credentials"
    if error.errno in _NO_SPACE or "No space left" in reason:
        remedy = "free some space, or name another place; the same command continues from here"
    made = FileSystemError(f"{location}: cannot be {what} ({reason}); {remedy}")
    made.errno = error.errno
    return made


def _reason(error: OSError, path: str) -> str:
    """The text of an error, without `path`, which the message names already.

    pyarrow puts the path and the number of the error around the text, some of them twice.
    """
    text = " ".join(str(error).split())
    own = re.compile(rf" ?'{re.escape(path)}({_UNFINISHED_SUFFIX})?'")
    without = own.sub("", text)
    if error.errno and not re.search(r"'[^']+'", without):
        return os.strerror(error.errno)
    return without


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_MAX_REASON_CHARS = 300


@lru_cache(maxsize=256)
def _open(root: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or path, and the path within it."""
    if "://" not in root:
        return pafs.LocalFileSystem(), root
    try:
        return pafs.FileSystem.from_uri(root.replace(" ", "%20"))
    except pa.ArrowInvalid:
        pass  # not one of pyarrow's own
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
    """Object stores show a file when it is closed; elsewhere it is renamed into place."""

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
    """One stage's result: what it depends on, and where it lies.

    Args:
        depends: What the result depends on, as JSON: settings, the fingerprints of the
            stages before it, and the revision of the code that computes it.
    """

    run_dir: Location
    name: str
    depends: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits that stand for all of `depends`."""
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
        """Yield the other results of this stage in the run directory, whatever they depend on."""
        for folder in (self.run_dir / self.name).children():
            try:
                depends = (folder / "depends.json").read_json()
            except (OSError, ValueError, AvelError):
                continue  # no result, or one that is damaged
            if isinstance(depends, dict):
                other = Artifact(self.run_dir, self.name, depends)
                if other.fingerprint == folder.name != self.fingerprint:
                    yield other

    def is_done(self) -> bool:
        """Return True if the result is complete and every file matches the manifest."""
        return self._state()[0] == "done"

    def damage(self) -> str | None:
        """Describe the damage of a finished result; None if it is intact or not finished."""
        return self._state()[1]

    def begin(self) -> None:
        """Say what is being made here, so that a later run can tell what changed.

        What a damaged result left is removed first. Units of work in folders stay: `run_units`
        checks each of them.
        """
        if self.damage() is not None:
            for name in (_MARKER, _MANIFEST):  # a kill from here on leaves an unfinished stage
                remove_file(self.location / name)
            for path in self._files():
                if "/" not in path:
                    remove_file(self.location / path)
        (self.location / "depends.json").write_json(dict(self.depends))

    def finish(self, manifest: Mapping[str, Any], temporary: Sequence[str] = ()) -> None:
        """Write the manifest, and the marker last.

        Args:
            temporary: Beginnings of the paths of files that another process, which computes the
                same, may still write and remove, such as checkpoints.
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
        """Write a marker that alone is missing; returns whether that was so."""
        is_missing = self._state()[0] == "no marker"
        if is_missing:
            (self.location / _MARKER).write_bytes(b"")
        return is_missing

    def manifest(self) -> dict[str, Any]:
        """The manifest of a complete result, without the list of files.

        Raises:
            ArtifactError: The stage has not been run with these settings, or is damaged.
        """
        state, damage = self._state()
        if state != "done":
            why = damage or f"no {self.location}/{_MARKER}"
            raise ArtifactError(f"stage {self.name!r} is not complete: {why}")
        manifest = read_sealed(self.location / _MANIFEST)
        del manifest["files"]
        return manifest

    def why_not_done(self) -> str:
        """Explain in one line why the stage has to run: its damage, or the changed settings."""
        if damage := self.damage():
            return damage
        if (self.location / "depends.json").exists():
            return "interrupted before"
        depends = json.loads(json.dumps(self.depends))  # lists for tuples, as in the file
        changes = []
        for other in (self.run_dir / self.name).children():
            try:
                changes.append(list(_changes((other / "depends.json").read_json(), depends)))
            except (OSError, ValueError):
                continue  # no result, or one that is damaged
        if not changes:
            return "not run before"
        return "; ".join(min(changes, key=len))

    def _state(self) -> tuple[Literal["done", "no marker", "damaged", "not done"], str | None]:
        """State of the result, and a description of its damage.

        Contents are read once in a process, and again when size or time of a file changes.
        """
        found = self._files()
        if _MANIFEST not in found and _MARKER not in found:
            return "not done", None
        seen = tuple(sorted(found.items()))
        if _INTACT.get(self.location.uri) != seen:
            if damage := self._compare(found):
                return "damaged", f"{self.location}: {damage}; computed again"
            if _MARKER not in found:
                return "no marker", f"{self.location}: {_MARKER} is missing"
            _INTACT[self.location.uri] = seen
        return "done", None

    def _compare(self, found: Mapping[str, tuple[int, Any]]) -> str | None:
        """Describe the first file that differs from the manifest; None if all match."""
        if _MANIFEST not in found:
            return f"{_MANIFEST} is missing"
        if found.get(_MARKER, (0, None))[0]:
            return f"{_MARKER} is not empty"
        try:
            manifest = read_sealed(self.location / _MANIFEST)
            expected: dict[str, dict[str, Any]] = manifest["files"]
            if (
                Artifact(self.run_dir, self.name, manifest["depends"]).fingerprint
                != self.fingerprint
            ):
                return f"{_MANIFEST} is that of another result"
        except (ArtifactError, KeyError):
            return f"{_MANIFEST} is damaged"
        for path, digest in expected.items():
            if path not in found:
                return f"{path} is missing"
            if found[path][0] != digest["size"]:
                return f"{path} is damaged: {found[path][0]} bytes instead of {digest['size']}"
        try:
            actual = digests(self.location, sorted(expected))
        except FileNotFoundError as error:
            return f"a file is missing: {error}"
        differs = [path for path, digest in actual.items() if digest != expected[path]]
        return f"{differs[0]} is damaged: its sha256 has changed" if differs else None

    def _files(self) -> dict[str, tuple[int, Any]]:
        """Size and time of every file of the result, by its path below the folder."""
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
"""Sizes and times of the files of the results that this process has compared."""

_CHUNK_BYTES = 1 << 22


def digests(folder: Location, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of files, by their paths below a folder; several are read at once.

    Raises:
        FileNotFoundError: One is not there.
        StorageError: One cannot be read.
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
    """A value for a JSON file, with a hash of all of it; `read_sealed` is the inverse."""
    return {**value, "sha256": _hash(value)}


def read_sealed(location: Location) -> dict[str, Any]:
    """The value in a JSON file that `sealed` made.

    Raises:
        FileNotFoundError: There is no such file.
        StorageError: It cannot be read.
        ArtifactError: It is not what was written.
    """
    with _verification_errors(location):
        content = location.read_bytes()
    try:
        value = json.loads(content)
        if value.pop("sha256") == _hash(value):
            return value
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ArtifactError(f"{location}: damaged: it is not what was written")


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
    """Remove a file, if it is there.

    Raises:
        FileSystemError: It cannot be removed.
    """
    with storage_errors("removed", location), suppress(FileNotFoundError):
        location.fs.delete_file(location.path)


def remove_folder(location: Location) -> None:
    """Remove a folder with all that is in it, if it is there.

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
