"""Preparing media files in processes that may be killed.

A broken file can make a decoder hang or crash. So files are read and prepared in processes of
their own: one that takes too long is killed, one that crashes is replaced, and only that file
fails. They are plain interpreters that import no more than the extractor needs, and they end
with the process that started them, however that ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from pyarrow import fs as pafs

from distributed_avel.artifacts import Location
from distributed_avel.errors import MediaError, StorageError
from distributed_avel.features.base import Extractor
from distributed_avel.media.warm_up import warm_up

NO_FILE = "no such file; put it there or take it out of the annotations"
"""Reason of a failure."""

MAX_FILE_BYTES = 2**30
"""Files are read whole, one in each process at a time; a larger one is refused."""

_ATTEMPTS = 2  # a process may have been killed for no fault of the file

_END_S = 10.0

# A process works on one thread; whoever wants more cores has more processes.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

_SERVE = (
    "import sys; from distributed_avel.features.decoder_pool import serve; serve(int(sys.argv[1]))"
)
_PR_SET_PDEATHSIG = 1

MakeExtractor = Callable[[], Extractor]


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that could not be prepared.

    Args:
        reason: Why, with a remedy.
        seconds: How long it took.
        is_unreadable: The storage did not give the file, so nothing is known of its content.
    """

    reason: str
    seconds: float
    is_unreadable: bool = False


class DecodingProcesses:
    """Some processes that prepare media files, each one file at a time.

    Args:
        make_extractor: Called once in each process, which must be able to import it.
        timeout_s: A file that takes longer is given up.
    """

    def __init__(
        self, make_extractor: MakeExtractor, *, num_processes: int, timeout_s: float
    ) -> None:
        self._processes = [_Process(make_extractor, timeout_s) for _ in range(num_processes)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        # Linux ends a process with the *thread* that started it; these stay as long as we do.
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="decoding")
        for process in self._processes:
            self._threads.submit(self._start, process)

    def prepare(self, media: Location) -> "Future[Any | Failed]":
        """What `Extractor.prepare` makes of a file, or `Failed`; files are taken in order.

        Raises:
            RuntimeError: From the future, where a process cannot be set up.
        """
        return self._threads.submit(self._prepare, media)

    def close(self) -> None:
        """Finish the files in hand, give up the others, and end the processes."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.stop()

    def _start(self, process: "_Process") -> None:
        """Start a process before the first file comes; what goes wrong is said then."""
        try:
            process.start()
        finally:
            self._idle.put(process)

    def _prepare(self, media: Location) -> Any:
        process = self._idle.get()
        started = time.monotonic()
        try:
            return process.prepare(media)
        except MediaError as error:
            return Failed(str(error), time.monotonic() - started)
        except StorageError as error:
            return Failed(str(error), time.monotonic() - started, is_unreadable=True)
        finally:
            self._idle.put(process)


class _CrashError(Exception):
    """A process ended while it had a file."""


class _Process:
    """One process, started anew whenever it has ended."""

    def __init__(self, make_extractor: MakeExtractor, timeout_s: float) -> None:
        self._make_extractor = make_extractor
        self._timeout_s = timeout_s
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None
        self._is_ready = False

    def prepare(self, media: Location) -> Any:
        """What the extractor makes of a file.

        Raises:
            MediaError: The file cannot be used, or it hangs or crashes the process.
            StorageError: The file cannot be read.
            RuntimeError: The process cannot be set up.
        """
        how = ""
        for _ in range(_ATTEMPTS):
            try:
                answer, value = self._ask(media)
            except (EOFError, ConnectionError):
                how = self.stop()
            else:
                if answer is _Answer.PREPARED:
                    return value
                raise StorageError(value) if answer is _Answer.UNREADABLE else MediaError(value)
        raise MediaError(f"the decoder crashed on it, {_ATTEMPTS} times ({how}); fetch it again")

    def start(self) -> Connection:
        """Start it, and return before it is ready."""
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._running, self._is_ready = (process, ours), False
        ours.send(self._make_extractor)
        return ours

    def stop(self) -> str:
        """Kill it if it still runs, and say how it ended."""
        if self._running is None:
            return "not started"
        process, connection = self._running
        self._running = None
        connection.close()
        process.kill()
        try:
            status = process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:  # it waits for a disk that is gone: leave it behind
            return "does not end"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _ask(self, media: Location) -> "tuple[_Answer, Any]":
        connection = self._ready_connection()
        connection.send(media)
        end = time.monotonic() + self._timeout_s
        if_late, remedy = _Answer.UNREADABLE, " of reading; see to the storage"
        while connection.poll(max(end - time.monotonic(), 0.0)):
            answer, value = connection.recv()
            if answer is _Answer.READ:
                if_late, remedy = _Answer.REFUSED, "; fetch it again"
                end = time.monotonic() + self._timeout_s  # decoding has its own time
                continue
            if answer is _Answer.BROKEN:
                self.stop()
                answer = if_late
                value = f"unexpected {value}; fetch it again (the worker's log has the whole error)"
            return answer, value
        self.stop()
        return if_late, f"gave up after {self._timeout_s:g} s{remedy} or raise extract.timeout_s"

    def _ready_connection(self) -> Connection:
        """A process that can take a file at once: its start is no file's time."""
        if self._running and self._is_ready and self._running[0].poll() is not None:
            self.stop()  # it ended while it was idle, so no file is to blame
        connection = self._running[1] if self._running else self.start()
        if not self._is_ready:
            answer, value = connection.recv()
            if answer is _Answer.BROKEN:
                self.stop()
                raise RuntimeError(f"a decoding process cannot be set up: {value}")
            self._is_ready = True
        return connection


class _Answer(Enum):
    """What a process says: that it is ready, then `READ` and one answer a file."""

    READY = auto()
    READ = auto()
    PREPARED = auto()
    REFUSED = auto()
    UNREADABLE = auto()
    BROKEN = auto()


def serve(descriptor: int) -> None:
    """Body of a process: prepare the files that come through a connection until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it
    if sys.platform == "linux":  # elsewhere it ends after the file in hand
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Connection(descriptor) as connection, ExitStack() as ending:
        ending.push(partial(_tell_end, connection))
        extractor = connection.recv()()
        warm_up()
        connection.send((_Answer.READY, None))
        while (media := _next(connection)) is not None:
            connection.send(_answer(extractor, media, connection))


def _tell_end(
    connection: Connection,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Tell the parent which error ends the process; it goes its way, into the worker's log."""
    if kind is not None:
        connection.send((_Answer.BROKEN, f"{kind.__name__}: {error}"))


def _next(connection: Connection) -> Location | None:
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        return None


def _answer(extractor: Extractor, media: Location, connection: Connection) -> tuple[_Answer, Any]:
    try:
        content = _read(media)
        connection.send((_Answer.READ, None))
        return _Answer.PREPARED, extractor.prepare(content)
    except MediaError as error:
        return _Answer.REFUSED, str(error)
    except StorageError as error:
        return _Answer.UNREADABLE, str(error)


def _read(media: Location) -> bytes:
    """Read the whole file.

    Raises:
        MediaError: It is too large, or no file.
        StorageError: There is none, or it cannot be read.
    """
    try:
        info = media.fs.get_file_info(media.path)
        if info.type == pafs.FileType.NotFound:
            raise StorageError(NO_FILE)
        if info.type != pafs.FileType.File:
            raise MediaError("a folder, a pipe or a device; put a file there")
        if (info.size or 0) > MAX_FILE_BYTES:
            raise MediaError(
                f"too large: {info.size / 2**30:.1f} GiB, and a file is read whole, up to "
                f"{MAX_FILE_BYTES / 2**30:g} GiB; cut out the seconds that are annotated"
            )
        with media.fs.open_input_stream(media.path) as stream:
            return stream.read()
    except FileNotFoundError:
        raise StorageError(NO_FILE) from None
    except OSError as error:
        raise StorageError(
            f"cannot be read ({error}); see to its permissions or the network"
        ) from None
