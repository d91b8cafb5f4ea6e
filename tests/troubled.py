"""Extractors that hang or crash when the file says so, and functions to inspect processes."""

import ctypes
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import MediaError
from distributed_avel.features.base import Extractor, Features, FeatureShapes
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.timeline import Timeline

TIMELINE = Timeline(num_segments=2, segment_s=1.0)


def write_order(path: Path, do: str, seconds: float = 0.0, notes: Path | None = None) -> None:
    """Write a file for `Troubled`, which appends the id of its process to `notes.notes`.

    `notes` defaults to the file itself.
    """
    me = str(notes or path)
    order = {"do": do, "number": sum(path.name.encode()), "seconds": seconds, "me": me}
    path.write_text(json.dumps(order))


def preparations(path: Path) -> list[tuple[int, int]]:
    """Return (pid, parent pid) of each process that started to prepare a file."""
    notes = path.with_suffix(".notes")
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(int(pid), int(parent)) for pid, parent in map(str.split, lines)]


class Troubled(Extractor):
    """Performs the action named in a file; the only feature is a number derived from its name."""

    @property
    def shapes(self) -> FeatureShapes:
        num_segments = self.timeline.num_segments
        return FeatureShapes(audio=(num_segments, 3), visual=(num_segments, 2, 1))

    def prepare(self, media: bytes) -> int:
        order = json.loads(media)
        with Path(order["me"]).with_suffix(".notes").open("a") as notes:
            notes.write(f"{os.getpid()} {os.getppid()}\n")
        time.sleep(order["seconds"])
        if order["do"] == "hang":
            while True:
                time.sleep(1)
        elif order["do"] == "hang without a chance for other threads":
            ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the interpreter's lock
        elif order["do"] == "exit":
            os._exit(11)
        elif order["do"] == "segfault":
            ctypes.string_at(0)
        elif order["do"] == "refuse":
            raise MediaError("no sound; record it again")
        elif order["do"] == "divide by zero":
            return order["number"] // 0
        elif order["do"] == "be killed once" and len(preparations(Path(order["me"]))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return order["number"]

    def embed(self, prepared: Sequence[int]) -> list[Features]:
        shapes = self.shapes
        return [
            Features(
                np.full(shapes.audio, number, np.float32),
                np.full(shapes.visual, number, np.float16),
            )
            for number in prepared
        ]


def make_troubled() -> Troubled:
    return Troubled(TIMELINE, ExtractConfig())


class SlowStore(LocalFileSystem):
    """The local file system as `slow://`, where opening a file takes `SLOW_READ_S` seconds."""

    protocol = "slow"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("slow://"))

    def _open(self, path, mode="rb", **options):
        time.sleep(SLOW_READ_S)
        return super()._open(path, mode, **options)


SLOW_READ_S = 2.0
fsspec.register_implementation("slow", SlowStore, clobber=True)  # imported under two names


class Fragile(Descriptors):
    """`Descriptors` for media files, which hangs or crashes on files that say so."""

    def prepare(self, media: bytes):
        if media.startswith(b"hang"):
            time.sleep(10_000)
        if media.startswith(b"crash"):
            ctypes.string_at(0)
        return super().prepare(media)


def make_fragile() -> Fragile:
    return Fragile(TIMELINE, ExtractConfig())


def make_nothing() -> Troubled:
    raise FileNotFoundError("weights.bin")


def is_running(pid: int) -> bool:
    """Return True if a process exists and has not ended; a zombie has ended."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def name_of(pid: int) -> str:
    """Return the command of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def descendants(pid: int) -> set[int]:
    """Return the ids of all descendants of a process."""
    found = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended in the meantime
            for child in map(int, children.read_text().split()):
                found |= {child} | descendants(child)
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} s"
        time.sleep(0.02)
