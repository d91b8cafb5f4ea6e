"""Decoding processes: a bad file fails alone."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from media.clips import TIMELINE, clip
from troubled import (
    SLOW_READ_S,
    is_running,
    make_nothing,
    make_troubled,
    preparations,
    wait_until,
    write_order,
)

from distributed_avel.config import ExtractConfig
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.features.decoder_pool import MAX_FILE_BYTES, DecodingProcesses, Failed
from distributed_avel.storage import Location

pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(200)]

TESTS = Path(__file__).parents[1]


@pytest.fixture
def processes():
    """One process with a generous time limit, for busy machines."""
    made = DecodingProcesses(make_troubled, num_processes=1, timeout_s=30.0)
    yield made
    made.close()


@pytest.fixture
def impatient():
    """One process with a short time limit."""
    made = DecodingProcesses(make_troubled, num_processes=1, timeout_s=1.0)
    yield made
    made.close()


@pytest.fixture
def order(tmp_path):
    def make(name: str, do: str = "work", seconds: float = 0.0) -> Location:
        write_order(tmp_path / name, do, seconds)
        return Location.at(tmp_path / name)

    return make


def make_sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def pid_of(media: Location) -> int:
    return preparations(Path(media.path))[-1][0]


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("exit", "the decoder crashed on it, 2 times (exit status 11); fetch it again"),
        ("segfault", "the decoder crashed on it, 2 times (SIGSEGV); fetch it again"),
        ("refuse", "no sound; record it again"),
        ("divide by zero", "unexpected ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_prepared_fails_alone(processes, order, do, reason):
    assert fails_alone(processes, order, do).startswith(reason)


@pytest.mark.parametrize("do", ["hang", "hang without a chance for other threads"])
def test_a_file_that_takes_too_long_fails_alone(impatient, order, do):
    reason = "gave up after 1 s; fetch it again or raise extract.timeout_s"
    assert fails_alone(impatient, order, do) == reason


def fails_alone(processes: DecodingProcesses, order, do: str) -> str:
    """Return why a file between two good ones failed."""
    files = [order("before"), order("bad", do), order("after")]
    before, bad, after = [future.result() for future in map(processes.prepare, files)]
    assert isinstance(bad, Failed)
    assert (before, after) == (sum(b"before"), sum(b"after"))
    return bad.reason


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "a folder, a pipe or a device"),
        (os.mkfifo, "a folder, a pipe or a device"),  # opening it would block forever
        (lambda path: make_sparse(path, MAX_FILE_BYTES + 1), "too large: 1.0 GiB"),
    ],
    ids=["folder", "pipe", "too large"],
)
def test_unreadable_kinds_of_files_are_refused_before_reading(processes, tmp_path, make, reason):
    make(tmp_path / "video")

    failed = processes.prepare(Location.at(tmp_path) / "video").result()

    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)
    assert not failed.is_unreadable


@pytest.mark.parametrize("name", ["video", "file/video", "loop"])
def test_storage_errors_are_unreadable_and_not_damaged(processes, tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")

    failed = processes.prepare(Location.at(tmp_path) / name).result()

    assert isinstance(failed, Failed)
    assert failed.is_unreadable, failed
    assert failed.reason.startswith(("no such file; put it there", "cannot be read ("))


def test_an_unresponsive_store_costs_only_the_time_limit(impatient, order):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = Location.at(f"http://127.0.0.1:{silent.getsockname()[1]}") / "video.mp4"

        hangs, after = [impatient.prepare(media) for media in (remote, order("after"))]

        assert hangs.result().reason.startswith("gave up after 1 s of reading; check the storage")
        assert hangs.result().is_unreadable
    assert after.result() == sum(b"after")


@pytest.fixture
def patient():
    """One process whose time limit exceeds a slow read and a slow decoding, but not their sum."""
    limit_s = 1.75 * SLOW_READ_S
    made = DecodingProcesses(make_troubled, num_processes=1, timeout_s=limit_s)
    yield made
    made.close()


def test_reading_and_decoding_have_separate_time_limits(patient, tmp_path):
    write_order(tmp_path / "video", "work", seconds=SLOW_READ_S)

    assert patient.prepare(Location.at(f"slow://{tmp_path}/video")).result() == sum(b"video")


def test_a_decoder_that_hangs_after_a_slow_read_is_not_a_storage_error(patient, tmp_path):
    write_order(tmp_path / "video", "hang")

    failed = patient.prepare(Location.at(f"slow://{tmp_path}/video")).result()

    assert failed.reason == "gave up after 3.5 s; fetch it again or raise extract.timeout_s"
    assert not failed.is_unreadable
    assert failed.seconds > 2.5 * SLOW_READ_S  # decoding had the full time limit


def test_a_slow_read_is_a_storage_error(impatient, order, tmp_path):
    order("video")

    failed = impatient.prepare(Location.at(f"slow://{tmp_path}/video")).result()

    assert failed.is_unreadable
    assert failed.reason == (
        "gave up after 1 s of reading; check the storage or raise extract.timeout_s"
    )
    assert preparations(tmp_path / "video") == []


def test_a_killed_process_loses_no_file(processes, order):
    idle = order("idle")
    assert processes.prepare(idle).result() == sum(b"idle")
    os.kill(pid_of(idle), signal.SIGKILL)
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT  # waits for all threads, not only the first
    wait_until(lambda: os.waitid(os.P_PID, pid_of(idle), ended) is not None)

    busy = order("busy", "be killed once")

    assert processes.prepare(busy).result() == sum(b"busy")
    assert len(preparations(Path(busy.path))) == 2


def test_a_process_that_cannot_be_set_up_is_an_error_of_the_job(order):
    processes = DecodingProcesses(make_nothing, num_processes=1, timeout_s=30.0)

    with pytest.raises(RuntimeError, match=r"cannot be set up: FileNotFoundError: weights\.bin"):
        processes.prepare(order("good")).result()
    processes.close()


def test_each_process_prepares_one_file_at_a_time(order):
    files = [order(f"{i}", seconds=0.2) for i in range(6)]
    processes = DecodingProcesses(make_troubled, num_processes=2, timeout_s=30.0)

    results = [future.result() for future in map(processes.prepare, files)]
    processes.close()

    assert results == [sum(f"{i}".encode()) for i in range(6)]
    assert len({pid_of(file) for file in files}) == 2


@pytest.mark.parametrize("do", ["work", "hang", "hang without a chance for other threads"])
def test_processes_end_with_their_parent(order, do):
    media = order("video", do)
    script = f"""
        import time
        from troubled import make_troubled
        from distributed_avel.storage import Location
        from distributed_avel.features.decoder_pool import DecodingProcesses

        processes = DecodingProcesses(make_troubled, num_processes=1, timeout_s=1000)
        processes.prepare(Location.at({media.path!r}))
        time.sleep(1000)
    """
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, "PYTHONPATH": path}
    )
    wait_until(lambda: preparations(Path(media.path)))

    owner.kill()
    owner.wait()

    wait_until(lambda: not is_running(pid_of(media)))


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    whole = clip()
    (tmp_path / "whole.mp4").write_bytes(whole)
    (tmp_path / "damaged.mp4").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    (tmp_path / "mute.mp4").write_bytes(clip(audio=False))
    recipe = ExtractorRecipe(TIMELINE, ExtractConfig())
    processes = DecodingProcesses(recipe, num_processes=1, timeout_s=30.0)

    def prepare(times: int) -> int:
        """Prepare files, and return the memory of the process afterwards, in bytes."""
        for _ in range(times):
            for name in ("whole.mp4", "damaged.mp4", "mute.mp4"):
                processes.prepare(Location.at(tmp_path / name)).result()
        (process,) = processes._processes
        pages = Path(f"/proc/{process._running[0].pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    warm = prepare(20)
    grown = prepare(100) - warm
    processes.close()

    assert grown < 24 * 2**20  # an audio reader that kept its buffers would keep 60 MiB
