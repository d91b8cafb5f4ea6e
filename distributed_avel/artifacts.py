"""Artifacts: results of stages, found again by what they depend on, and verified.

A stage writes its files to `<run_dir>/<stage>/<fingerprint>/`, then `manifest.json` with the size
and the sha256 of every file, then the marker `DONE`. The fingerprint hashes everything that the
result depends on and nothing else. A rerun, or another run with the same settings, therefore finds
the result, and reuses it after it has compared all files with the manifest.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pyarrow import fs as pafs

from distributed_avel.errors import ArtifactError, AvelError, FileSystemError, StorageError
from distributed_avel.storage import (
    Location,
    is_unfinished,
    remove_file,
    storage_error,
    storage_errors,
)


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
            if info.is_file and not is_unfinished(info.path)
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


def _changes(old: Any, new: Any, key: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _changes(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key} was {old}, is {new}"
