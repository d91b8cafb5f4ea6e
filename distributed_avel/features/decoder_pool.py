"""A pool of processes that read and decode media files.

A broken file can make a decoder hang or crash. Files are therefore decoded in separate processes:
a process that exceeds the time limit is killed, a crashed process is replaced, and only that file
fails. The processes are plain interpreters that import only what the extractor needs. They end
when the process that started them ends, even if that process is killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from pyarrow import fs as pafs

from distributed_avel.errors import MediaError, StorageError
from distributed_avel.features.base import Extractor
from distributed_avel.media.files import MediaFile, opened_file
from distributed_avel.media.warm_up import warm_up
from distributed_avel.storage import Location

NO_FILE = "no such file; put it there or take it out of the annotations"
"""Reason of a failure: the file does not exist."""

MAX_FILE_BYTES = 2**30
"""Largest file that is accepted. Each process reads one whole file at a time into memory."""

_ATTEMPTS = 2  # the system may have killed a process for reasons unrelated to the file

_END_S = 10.0

# Parallelism comes from the number of processes; more threads each would oversubscribe the CPUs.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

_SERVE = (
    "import sys; from distributed_avel.features.decoder_pool import serve; serve(int(sys.argv[1]))"
)
_PR_SET_PDEATHSIG = 1


class Decoder(Protocol):
    """Decoder of a process: an extractor, or an object that decodes with one."""

    def prepare(self, media: bytes) -> Any:
        """See `Extractor.prepare`."""
        ...


@runtime_checkable
class PieceDecoder(Protocol):
    """A decoder of long files, which are not read into memory."""

    def timeout_factor(self, media: MediaFile) -> float:
        """Return what the time limit of the first piece is multiplied by."""
        ...

    def pieces(self, media: MediaFile) -> Iterator[Any]:
        """Decode the pieces of a file, in order; the same file always has the same pieces.

        Raises:
            MediaError: The file cannot be used. This may be known only after some pieces.
        """
        ...


MakeDecoder = Callable[[], Decoder | PieceDecoder]
MakeExtractor = Callable[[], Extractor]


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that could not be prepared.

    Args:
        reason: The reason, with a remedy.
        seconds: Time until the failure.
        is_unreadable: Whether the file could not be read from storage; its content is unknown.
    """

    reason: str
    seconds: float
    is_unreadable: bool = False


class DecodingProcesses:
    """A pool of processes, each of which prepares one media file at a time.

    Args:
        make_decoder: Factory that is called once in each process; must be picklable and
            importable there.
        num_processes: Number of processes.
        timeout_s: Time limit for reading a file, and for decoding it.
    """

    def __init__(self, make_decoder: MakeDecoder, *, num_processes: int, timeout_s: float) -> None:
        self._processes = [_Process(make_decoder, timeout_s) for _ in range(num_processes)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        # PR_SET_PDEATHSIG kills a process when the *thread* that started it ends. These threads
        # live as long as the pool.
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="decoding")
        for process in self._processes:
            self._threads.submit(self._start, process)

    def prepare(self, media: Location) -> "Future[Any | Failed]":
        """Submit a file; files are processed in the order of submission.

        Returns:
            A future of the result of `Extractor.prepare`, or of `Failed`.

        Raises:
            RuntimeError: From the future, if a process cannot be set up.
        """
        return self._threads.submit(self._prepare, media)

    def stream(self, media: Location, receive: Callable[[Any], None]) -> "Future[Failed | None]":
        """Submit a file to processes that run a `PieceDecoder`.

        Args:
            media: The file.
            receive: Called with each piece, in order, in a thread of the pool. The process waits
                with the next piece until it returns. `StopStream` ends the file.

        Returns:
            A future of None after the last piece, or of `Failed`, also after some pieces.

        Raises:
            RuntimeError: From the future, if a process cannot be set up.
        """
        return self._threads.submit(self._prepare, media, receive)

    def close(self) -> None:
        """Finish the files in progress, cancel the others, and end the processes."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.stop()

    def _start(self, process: "_Process") -> None:
        """Start a process before the first file arrives. The first file reports any error."""
        try:
            process.start()
        finally:
            self._idle.put(process)

    def _prepare(self, media: Location, receive: Callable[[Any], None] | None = None) -> Any:
        process = self._idle.get()
        started = time.monotonic()
        try:
            return process.prepare(media, receive)
        except StopStream:
            process.stop()  # it is in the middle of the file
            return None
        except MediaError as error:
            return Failed(str(error), time.monotonic() - started)
        except StorageError as error:
            return Failed(str(error), time.monotonic() - started, is_unreadable=True)
        finally:
            self._idle.put(process)


class StopStream(Exception):  # noqa: N818 (no error)
    """Raised by the receiver of the pieces of a file that needs no more of them."""


class _Process:
    """One process of the pool, restarted if it has ended."""

    def __init__(self, make_decoder: MakeDecoder, timeout_s: float) -> None:
        self._make_decoder = make_decoder
        self._timeout_s = timeout_s
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._is_ready = False

    def prepare(self, media: Location, receive: Callable[[Any], None] | None = None) -> Any:
        """Prepare a file; pass its pieces to `receive`, if it is decoded in pieces.

        Raises:
            MediaError: The file cannot be used, exceeds the time limit, or crashes the process.
            StorageError: The file cannot be read.
            RuntimeError: The process cannot be set up.
            StopStream: From `receive`.
        """
        exit_reason = ""
        received: list[None] = []  # one entry per piece that `receive` has, over all attempts
        for _ in range(_ATTEMPTS):
            try:
                reply, value = self._request(media, received, receive)
            except (EOFError, ConnectionError):
                exit_reason = self.stop()
            else:
                if reply is _Reply.PREPARED:
                    return value
                raise StorageError(value) if reply is _Reply.UNREADABLE else MediaError(value)
        raise MediaError(
            f"the decoder crashed on it, {_ATTEMPTS} times ({exit_reason}); fetch it again"
        )

    def start(self) -> Connection:
        """Start the process; return without waiting until it is ready."""
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._running, self._is_ready = (process, ours), False
        ours.send(self._make_decoder)
        return ours

    def stop(self) -> str:
        """Kill the process if it is running, and describe how it ended."""
        if self._running is None:
            return "not started"
        process, connection = self._running
        self._running = None
        connection.close()
        process.kill()
        try:
            status = process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:  # blocked in the kernel by a failed disk: abandon it
            return "does not end"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _request(
        self,
        media: Location,
        received: list[None],
        receive: Callable[[Any], None] | None,
    ) -> "tuple[_Reply, Any]":
        connection = self._ready_connection()
        connection.send(media)
        limit_s = self._timeout_s
        end = time.monotonic() + limit_s
        on_timeout, remedy = _Reply.UNREADABLE, " of reading; check the storage"
        num_pieces = 0
        while connection.poll(max(end - time.monotonic(), 0.0)):
            reply, value = connection.recv()
            if reply is _Reply.READ:
                on_timeout, remedy = _Reply.REFUSED, "; fetch it again"
                limit_s = value * self._timeout_s  # decoding has its own time limit
                end = time.monotonic() + limit_s
                continue
            if reply is _Reply.PIECE:
                num_pieces += 1
                if receive is not None and num_pieces > len(received):
                    received.append(None)
                    receive(value)
                limit_s = self._timeout_s  # each piece has its own time limit
                end = time.monotonic() + limit_s
                continue
            if reply is _Reply.BROKEN:
                self.stop()
                reply = on_timeout
                value = f"unexpected {value}; fetch it again (the worker's log has the whole error)"
            return reply, value
        self.stop()
        return on_timeout, f"gave up after {limit_s:g} s{remedy} or raise extract.timeout_s"

    def _ready_connection(self) -> Connection:
        """Wait until the process is ready, so that its start does not count as a file's time."""
        if self._running and self._is_ready and self._running[0].poll() is not None:
            self.stop()  # it ended while it was idle, so no file caused it
        connection = self._running[1] if self._running else self.start()
        if not self._is_ready:
            reply, value = connection.recv()
            if reply is _Reply.BROKEN:
                self.stop()
                raise RuntimeError(f"a decoding process cannot be set up: {value}")
            self._is_ready = True
        return connection


class _Reply(Enum):
    """Messages of a process: `READY` once; for each file `READ`, any `PIECE`s, one other reply.

    The value of `READ` is the factor of the time limit of decoding. It may be sent again.
    """

    READY = auto()
    READ = auto()
    PIECE = auto()
    PREPARED = auto()
    REFUSED = auto()
    UNREADABLE = auto()
    BROKEN = auto()


def serve(descriptor: int) -> None:
    """Main function of a process: prepare files from a connection until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    if sys.platform == "linux":  # on other systems the process ends after the current file
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Connection(descriptor) as connection, ExitStack() as on_exit:
        on_exit.push(partial(_report_error, connection))
        decoder = connection.recv()()
        warm_up()
        connection.send((_Reply.READY, None))
        while (media := _next(connection)) is not None:
            connection.send(_prepare(decoder, media, connection))


def _report_error(
    connection: Connection,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Send the error that ends the process to the parent. The traceback is logged."""
    if kind is not None:
        connection.send((_Reply.BROKEN, f"{kind.__name__}: {error}"))


def _next(connection: Connection) -> Location | None:
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        return None


def _prepare(
    decoder: Decoder | PieceDecoder, media: Location, connection: Connection
) -> tuple[_Reply, Any]:
    try:
        if isinstance(decoder, PieceDecoder):
            with _opened(media) as file:
                connection.send((_Reply.READ, 1.0))
                connection.send((_Reply.READ, decoder.timeout_factor(file)))
                for piece in decoder.pieces(file):
                    connection.send((_Reply.PIECE, piece))
            return _Reply.PREPARED, None
        content = _read(media)
        connection.send((_Reply.READ, 1.0))
        return _Reply.PREPARED, decoder.prepare(content)
    except MediaError as error:
        return _Reply.REFUSED, str(error)
    except StorageError as error:
        return _Reply.UNREADABLE, str(error)


@contextmanager
def _opened(media: Location) -> Iterator[MediaFile]:
    """Open the file without reading it into memory.

    Raises:
        MediaError: The path is not a file.
        StorageError: The file does not exist or cannot be read.
    """
    with ExitStack() as on_exit:
        with _read_errors():
            _size(media)
            file = on_exit.enter_context(opened_file(media))
        yield file


def _read(media: Location) -> bytes:
    """Read the whole file.

    Raises:
        MediaError: The file is too large, or the path is not a file.
        StorageError: The file does not exist or cannot be read.
    """
    with _read_errors():
        size = _size(media)
        if size > MAX_FILE_BYTES:
            raise MediaError(
                f"too large: {size / 2**30:.1f} GiB, the limit is "
                f"{MAX_FILE_BYTES / 2**30:g} GiB; cut out the annotated seconds"
            )
        with media.fs.open_input_stream(media.path) as stream:
            return stream.read()


def _size(media: Location) -> int:
    """Return the number of bytes of a file.

    Raises:
        MediaError: The path is not a file.
        StorageError: The file does not exist.
    """
    info = media.fs.get_file_info(media.path)
    if info.type == pafs.FileType.NotFound:
        raise StorageError(NO_FILE)
    if info.type != pafs.FileType.File:
        raise MediaError("a folder, a pipe or a device; replace it by a file")
    return info.size or 0


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise StorageError(NO_FILE) from None
    except OSError as error:
        raise StorageError(
            f"cannot be read ({error}); check its permissions or the network"
        ) from None
