"""Media files on disk that are read in place, for files of many gigabytes.

A file is opened once. Each reader has a position of its own, so that pictures and sound can be
decoded side by side. A file of an object store is first copied to an unnamed temporary file, which
the operating system removes even if the process is killed.
"""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from distributed_avel.storage import Location

_BUFFER_BYTES = 2**18


class MediaFile:
    """A media file on disk, opened for reading.

    Args:
        file: The open file; it must stay open as long as this object is used.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self.num_bytes = os.fstat(self._descriptor).st_size

    def open(self) -> IO[bytes]:
        """Return a reader at the start of the file, independent of all others."""
        return io.BufferedReader(_Reader(self._descriptor), _BUFFER_BYTES)

    def read_bytes(self) -> bytes:
        """Read the whole file into memory."""
        with self.open() as reader:
            return reader.read()


class _Reader(io.RawIOBase):
    """Reads an open file from a position of its own; closing it does not close the file."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        content = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        origin = origins.get(whence)
        if origin is None:
            origin = os.fstat(self._descriptor).st_size
        if origin + offset < 0:
            raise OSError(f"negative position {origin + offset}")
        self._position = origin + offset
        return self._position


@contextmanager
def opened_file(location: Location) -> Iterator[MediaFile]:
    """Open a media file; one that is not on a local disk is copied to a temporary file first.

    Raises:
        OSError: The file cannot be opened or copied.
    """
    if location.is_local:
        with Path(location.path).open("rb") as file:
            yield MediaFile(file)
        return
    with tempfile.TemporaryFile() as copy:
        with location.fs.open_input_stream(location.path) as stream:
            shutil.copyfileobj(stream, copy, _BUFFER_BYTES)
        copy.flush()
        yield MediaFile(copy)
