"""Progress of stages on the terminal: counts, speed and time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Protocol, TypeVar

import ray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from distributed_avel.redaction import redact

_LINE_EVERY_S = 5.0
_MIN_S = 1.0
_WATCH_EVERY_S = 0.5
_LAST_WATCH_S = 10.0

Result = TypeVar("Result")


class ProgressCallback(Protocol):
    """Callback that reports the progress of a stage."""

    def __call__(self, done: int, note: str = "") -> None:
        """Report how many items are done, with an optional note."""
        ...


def messages(actor: Any) -> list[dict[str, Any]]:
    """Take the messages that a `ProgressActor` received since the last call."""
    return ray.get(actor.take.remote())


def watched(call: Callable[[], Result], watch: Callable[[], None]) -> Result:
    """Make a call; call `watch` from another thread until it returns, and once afterwards.

    The call is made in this thread. A thread that waited for Ray could end a job with status 1
    while a signal shuts Ray down.
    """
    returned = Event()

    def keep_watching() -> None:
        while not returned.wait(_WATCH_EVERY_S):
            watch()

    watcher = Thread(target=keep_watching, daemon=True)
    try:
        watcher.start()
        result = call()
    finally:
        returned.set()
        watcher.join(_LAST_WATCH_S)
    watch()
    return result


@contextmanager
def progress(stage: str, total: int, unit: str, *, already: int = 0) -> Iterator[ProgressCallback]:
    """Show a progress bar on a terminal, or print a line every few seconds elsewhere.

    Args:
        total: Number of items of the stage.
        unit: What is counted, such as "videos".
        already: Items done in an earlier run; they do not count towards the speed.
    """
    started = time.monotonic()
    first: tuple[float, int] | None = None  # excludes the start of actors and workers

    def text(done: int, note: str) -> str:
        nonlocal first
        now_s = time.monotonic()
        if first is None:
            first = (now_s, done) if done > already else None
        parts = [f"{done}/{total} {unit}", _duration(now_s - started)]
        if first and now_s > first[0] + _MIN_S and done > first[1]:
            speed = (done - first[1]) / (now_s - first[0])
            parts.append(f"{speed:.1f}/s")
            if done < total:
                parts.append(f"{_duration((total - done) / speed)} left")
        return "  ".join([*parts, note] if note else parts)

    if sys.stderr.isatty():
        bar = Progress(
            TextColumn("{task.fields[stage]:<10}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        task = bar.add_task(stage, total=total, completed=already, stage=stage, text="starting")
        with bar:
            yield lambda done, note="": bar.update(task, completed=done, text=text(done, note))
        return

    last_line_s = started
    unsaid = ""
    say(f"{stage}: {total - already} of {total} {unit} to do")

    def report(done: int, note: str = "") -> None:
        nonlocal last_line_s, unsaid
        unsaid = f"{stage}: {text(done, note)}"
        if time.monotonic() - last_line_s >= _LINE_EVERY_S:
            last_line_s = time.monotonic()
            say(unsaid)
            unsaid = ""

    yield report
    if unsaid:
        say(unsaid)


def say(line: str) -> None:
    """Print one line to stderr, with the secrets of URIs redacted."""
    print(redact(line), file=sys.stderr, flush=True)  # noqa: T201


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class ProgressActor:
    """Receives messages of remote workers for the driver."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []

    def put(self, message: dict[str, Any]) -> None:
        """Add a message."""
        self._messages.append(message)

    def take(self) -> list[dict[str, Any]]:
        """Return and clear the messages."""
        messages, self._messages = self._messages, []
        return messages
