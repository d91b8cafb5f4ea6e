"""Extraction on Ray: damaged files, killed processes and storage failures stay isolated."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media.clips import clip
from threadpoolctl import threadpool_limits
from troubled import (
    TIMELINE,
    descendants,
    is_running,
    make_fragile,
    make_troubled,
    name_of,
    preparations,
    wait_until,
    write_order,
)

from distributed_avel.artifacts import Artifact
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import DemoConfig, ExtractConfig, RunConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.datasets.demo import render_demo
from distributed_avel.errors import ArtifactError, DatasetError, MediaError
from distributed_avel.features.decoder_pool import NO_FILE
from distributed_avel.features.store import FeatureStore
from distributed_avel.stages.extract import (
    FAILURES_FILE,
    RETRY_S,
    extract,
    refuse_too_many_failures,
)
from distributed_avel.stages.stage import Context
from distributed_avel.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

on_cluster = pytest.mark.usefixtures("ray_cluster")

JOB = Path(__file__).parents[2] / "jobs" / "extract.py"


def videos_of(names) -> VideoSet:
    videos = tuple(
        Video(video_id=name, uri=name, split="train", labels=(), spans=()) for name in sorted(names)
    )
    return VideoSet(name="test", classes=("x",), timeline=TIMELINE, videos=videos, synthetic=True)


def failures_in(out: Path) -> dict[str, str]:
    rows = Location.at(out / FAILURES_FILE).read_table().to_pylist()
    assert len({row["video_id"] for row in rows}) == len(rows)  # each once
    return {row["video_id"]: row["error"] for row in rows}


def features_in(out: Path) -> dict[str, tuple[bytes, bytes]]:
    """The features of each video, bit for bit."""
    index = Location.at(out / "index.parquet").read_table()["video_id"].to_pylist()
    assert len(set(index)) == len(index)  # each once
    audio_VTD, visual_VTRD = FeatureStore(Location.at(out)).read(index)
    rows = zip(index, audio_VTD, visual_VTRD, strict=True)
    return {video_id: (audio.tobytes(), visual.tobytes()) for video_id, audio, visual in rows}


# Damaged files ---------------------------------------------------------------------------

WHOLE = 20
DAMAGES = [
    "truncated", "bits flipped", "zeroed", "empty", "text", "no audio", "no video", "one frame",
    "half a second", "a minute", "missing", "pipe", "folder", "hangs", "crashes",
]  # fmt: skip
MUST_FAIL = set(DAMAGES) - {"truncated", "bits flipped", "zeroed", "a minute"}


def damage(path: Path, kind: str, whole: bytes, rng: np.random.Generator) -> None:
    """Write a file that is damaged in one way."""
    media = bytearray(whole)
    if kind == "truncated":
        path.write_bytes(media[: rng.integers(1, len(media))])
    elif kind == "bits flipped":
        for at in rng.integers(len(media), size=int(2 ** rng.uniform(0, 5))):
            media[at] ^= 1 << rng.integers(8)
        path.write_bytes(media)
    elif kind == "zeroed":
        start, length = int(rng.integers(len(media))), int(2 ** rng.uniform(4, 12))
        media[start : start + length] = bytes(len(media[start : start + length]))
        path.write_bytes(media)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        contents = {
            "empty": lambda: b"",
            "text": lambda: b"<html>This video is not available any more</html>" * 40,
            "no audio": lambda: clip(2, audio=False),
            "no video": lambda: clip(2, video=False),
            "one frame": lambda: clip(1 / 8, sound_s=2),
            "half a second": lambda: clip(0.5),
            "a minute": lambda: clip(60),
            "hangs": lambda: b"hang",
            "crashes": lambda: b"crash",
        }
        path.write_bytes(contents[kind]())


def alone(path: Path) -> tuple[bytes, bytes] | str:
    """Extract a file in a plain loop; return its features, or the reason of its failure.

    Runs on one thread, as in a decoding process, because the last bit of a matrix product depends
    on the number of threads.
    """
    try:
        with threadpool_limits(1):
            audio_TD, visual_TRD = make_fragile().prepare(path.read_bytes())
    except MediaError as error:
        return str(error)
    return audio_TD.tobytes(), visual_TRD.tobytes()


def without_details(result: tuple[bytes, bytes] | str) -> tuple[bytes, bytes] | str:
    """Return features, or a reason without FFmpeg's message, which varies."""
    return result.partition(" (")[0] if isinstance(result, str) else result


@on_cluster
@pytest.mark.parametrize("num_damaged", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_each_damaged_file_is_listed_once_and_does_not_affect_the_others(tmp_path, num_damaged):
    rng = np.random.default_rng(0)
    media, out = tmp_path / "media", tmp_path / "out"
    media.mkdir()
    frequent = [kind for kind in DAMAGES if kind not in ("hangs", "crashes")]
    kinds = ["hangs", *["crashes"] * 4]
    kinds += [frequent[i % len(frequent)] for i in range(num_damaged - len(kinds))]
    names = [f"{number:03d} {kind}" for number, kind in enumerate(rng.permutation(kinds))]
    intact = clip(2, fps=12, rate_hz=44_100, channels=2)
    for name in names:
        damage(media / name, name[4:], intact, rng)
    whole = [f"{10 * number:03d} whole" for number in range(20)]
    for number, name in enumerate(whole):
        (media / name).write_bytes(clip(2 + number / 20, fps=8 + number))
    config = ExtractConfig(timeout_s=15, unit_size=16)

    missing = {name for name in names if name[4:] == "missing"}

    counts = extract(
        videos_of(names + whole),
        Location.at(media),
        config,
        Location.at(out),
        make_fragile,
        missing,
    )

    failures, features = failures_in(out), features_in(out)
    assert counts.num_failed == len(failures)
    assert failures.keys() | features.keys() == set(names + whole)
    assert not failures.keys() & features.keys()
    assert {name for name in names if name[4:] in MUST_FAIL} <= failures.keys()
    said_of = {
        "missing": "no such file; put it there or take it out of the annotations",
        "pipe": "a folder, a pipe or a device; replace it by a file",
        "folder": "a folder, a pipe or a device; replace it by a file",
        "hangs": "gave up after 15 s; fetch it again or raise extract.timeout_s",
        "crashes": "the decoder crashed on it, 2 times (SIGSEGV); fetch it again",
    }
    results = failures | features
    for name in names + whole:
        expected = said_of.get(name[4:]) or alone(media / name)
        assert without_details(results[name]) == without_details(expected), name


# Kills -----------------------------------------------------------------------------------


@on_cluster
@pytest.mark.parametrize("victim", ["feature actor", "decoding process"])
def test_a_killed_process_repeats_at_most_the_units_of_one_actor(tmp_path, victim):
    media, out = tmp_path / "media", tmp_path / "out"
    media.mkdir()
    names = [f"{number:02d}" for number in range(40)]
    for name in names:
        write_order(media / name, "work", seconds=0.1)
    killed = []

    def kill() -> None:
        wait_until(lambda: len(list(media.glob("*.notes"))) >= 12, seconds=120)
        begun = [pair for name in names for pair in preparations(media / name)]
        decoder, actor = next(pair for pair in begun[::-1] if is_running(pair[0]))
        killed.append(actor if victim == "feature actor" else decoder)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    config = ExtractConfig(num_actors=2, unit_size=4)
    extract(videos_of(names), Location.at(media), config, Location.at(out), make_troubled)
    killer.join()

    assert killed
    assert not is_running(killed[0])
    assert failures_in(out) == {}
    numbers = {
        name: np.frombuffer(audio, np.float32) for name, (audio, _) in features_in(out).items()
    }
    assert {name: set(value) for name, value in numbers.items()} == {
        name: {sum(name.encode())} for name in names
    }
    times = Counter(name for name in names for _ in preparations(media / name))
    again = [name for name, count in times.items() if count > 1]
    assert max(times.values()) <= 2
    assert len(again) <= (1 if victim == "decoding process" else 2 * config.unit_size)
    orphans = {
        pid for name in names for pid, actor in preparations(media / name) if actor in killed
    }
    wait_until(lambda: not any(map(is_running, orphans)))


# Storage ---------------------------------------------------------------------------------


class Storage:
    """Forty files that are slow to extract, some or all of which become unavailable."""

    def __init__(self, root: Path) -> None:
        self.media, self.notes = root / "media", root / "notes"
        self.stage = Artifact(Location.at(root), "extract", {})
        self.out = Path(self.stage.location.path)
        self.media.mkdir()
        self.notes.mkdir()
        self.names = [f"{number:02d}" for number in range(40)]
        for name in self.names:
            write_order(self.media / name, "work", seconds=0.05, notes=self.notes / name)

    def wait_for(self, count: int) -> None:
        """Wait until extraction of `count` files has started."""
        wait_until(lambda: len(self.times()) >= count, seconds=120)

    def extract(self, retry_s: Sequence[float] = RETRY_S) -> None:
        """Run the stage."""

        def compute(_: object) -> dict[str, Any]:
            manifest = extract(
                videos_of(self.names),
                Location.at(self.media),
                ExtractConfig(num_actors=2, unit_size=4),
                self.stage.location,
                make_troubled,
                retry_s=retry_s,
            )
            return asdict(manifest)

        context = Context(config=RunConfig(), tracker=untracked())
        context.run_or_reuse(self.stage, compute, "avel extract")

    def refused(self) -> list[str]:
        """Run the stage, which must fail, and return the lines of the error message."""
        with pytest.raises(ArtifactError) as raised:
            self.extract(retry_s=(0.1,))
        assert raised.value.__cause__ is None
        assert not self.stage.is_done()
        for file in ("DONE", "manifest.json", "index.parquet", FAILURES_FILE):
            assert not (self.out / file).exists()
        return str(raised.value).splitlines()

    def is_whole(self) -> bool:
        """Return True if the stage is done, with the results of an undisturbed extraction."""
        alone = make_troubled().embed([sum(name.encode()) for name in self.names])
        expected = [(f.audio_TD.tobytes(), f.visual_TRD.tobytes()) for f in alone]
        return (
            self.stage.is_done()
            and failures_in(self.out) == {}
            and features_in(self.out) == dict(zip(self.names, expected, strict=True))
        )

    def finished_units(self) -> set[str]:
        """Return the names of the videos whose units are finished."""
        units = [path.name for path in (self.out / "units").iterdir()]
        return {self.names[n] for unit in units for n in range(int(unit[:7]), int(unit[8:15]))}

    def times(self) -> Counter[str]:
        """Count how often extraction of each file was started."""
        return Counter(name for name in self.names for _ in preparations(self.notes / name))


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(tmp_path)


@on_cluster
@pytest.mark.parametrize("away", [["37", "38"], None], ids=["two files", "the folder"])
def test_a_short_storage_outage_loses_no_video(storage, away):
    moved = [storage.media / name for name in away] if away else [storage.media]
    begun: list[str] = []

    def blink() -> None:
        storage.wait_for(8)
        begun.extend(storage.times())
        for path in moved:
            path.rename(path.with_suffix(".away"))
        time.sleep(2)
        for path in moved:
            path.with_suffix(".away").rename(path)

    blinking = threading.Thread(target=blink)
    blinking.start()
    storage.extract()
    blinking.join()

    assert len(begun) < 30  # the others were read later
    assert not {*begun} & {"37", "38"}
    assert storage.is_whole()


@on_cluster
def test_missing_files_fail_the_stage_and_are_read_when_restored(storage):
    away = [storage.media / name for name in ("05", "31")]
    for path in away:
        path.rename(path.with_suffix(".away"))

    first, *files, last = storage.refused()
    assert first == f"{storage.media}: these files cannot be read, after 1 retries:"
    assert sorted(files) == [f"  {path}: {NO_FILE}" for path in away]
    assert last.startswith(
        "restore them unchanged and run the same command, which continues from here"
    )
    units_of_away = {"04", "05", "06", "07", "28", "29", "30", "31"}
    assert storage.finished_units() == {*storage.names} - units_of_away
    done = storage.times()
    for path in away:
        path.with_suffix(".away").rename(path)
    storage.extract()

    assert storage.is_whole()
    again = {name for name, count in storage.times().items() if count > done[name]}
    assert again == units_of_away


@on_cluster
def test_a_lost_storage_stops_the_stage_and_keeps_finished_units(storage):
    gone = storage.media.with_suffix(".gone")

    def unmount() -> None:
        storage.wait_for(8)
        storage.media.rename(gone)

    unmounting = threading.Thread(target=unmount)
    unmounting.start()
    first, *files, last = storage.refused()
    unmounting.join()
    assert first == f"{storage.media}: these files cannot be read, after 1 retries:"
    assert len(files) == len({*files}) <= 11  # ten files, and a count of the others
    assert last.startswith(
        "restore them unchanged and run the same command, which continues from here"
    )
    finished = storage.finished_units()
    assert len(finished) < 40
    gone.rename(storage.media)
    before = storage.times()
    storage.extract()

    assert storage.is_whole()
    assert all(storage.times()[name] == before[name] for name in finished)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A folder with the demo's videos."""
    root = tmp_path_factory.mktemp("demo")
    render_demo(DEMO, Location.at(root))
    return root


DEMO = DemoConfig(num_train=60, num_event_free=1, num_val=1, num_test=2)


class Job:
    """A driver in a separate process, with its own Ray."""

    def __init__(self, demo: Path, run_dir: Path) -> None:
        self._run_dir = run_dir
        options = {
            "--run-dir": run_dir,
            "--data.root": demo,
            "--tracking.no-enabled": None,
            "--extract.unit-size": 2,
            **{f"--data.demo.{key.replace('_', '-')}": value for key, value in DEMO},
        }
        words = [str(word) for pair in options.items() for word in pair if word is not None]
        self.process = subprocess.Popen(
            [sys.executable, str(JOB), *words], stderr=subprocess.PIPE, text=True
        )

    def finished_units(self) -> dict[str, int]:
        """Return the time at which each unit was finished, by name."""
        return {
            unit.name: unit.stat().st_mtime_ns for unit in self._run_dir.glob("extract/*/units/*")
        }

    def wait_for_units(self, count: int) -> None:
        def enough() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return len(self.finished_units()) >= count

        wait_until(enough, seconds=240)


@pytest.mark.timeout(500)
def test_a_killed_driver_leaves_no_process_and_a_rerun_continues(demo, tmp_path):
    first = Job(demo, tmp_path)
    first.wait_for_units(3)
    # Ray's agents of a node keep reporting to the dead head node for a minute.
    left_behind = [p for p in descendants(first.process.pid) if "Agent" not in name_of(p)]
    assert sum("serve(" in name_of(p) for p in left_behind) == 2
    assert sum("raylet" in name_of(p) for p in left_behind) >= 1

    first.process.kill()
    first.process.wait()

    wait_until(lambda: not any(map(is_running, left_behind)))
    done = first.finished_units()
    assert 3 <= len(done) < 32
    second = Job(demo, tmp_path)
    _, said = second.process.communicate(timeout=300)
    assert second.process.returncode == 0, said
    assert "interrupted before" in said
    assert f"{64 - 2 * len(done)} of 64 videos to do" in said
    units = second.finished_units()
    assert len(units) == 32
    assert {name: units[name] for name in done} == done
    (stage,) = tmp_path.glob("extract/*")
    assert failures_in(stage) == {}
    assert len(features_in(stage)) == 64


@pytest.mark.timeout(500)
def test_a_terminated_driver_reports_it_and_leaves_no_process(demo, tmp_path):
    job = Job(demo, tmp_path)
    job.wait_for_units(1)
    below = descendants(job.process.pid)

    job.process.terminate()
    _, said = job.process.communicate(timeout=120)

    assert job.process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the same command continues from here"
    assert "Traceback" not in said
    wait_until(lambda: not any(map(is_running, below)))


# Settings --------------------------------------------------------------------------------


@on_cluster
def test_results_do_not_depend_on_the_number_of_actors_and_processes(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    names = [f"{number:02d}" for number in range(12)]
    for number, name in enumerate(names):
        (media / name).write_bytes(clip(2, fps=8 + number, height=48 + 2 * number))
    (media / names[7]).write_bytes(b"text")
    results = []
    for num_actors, cpus_per_actor, unit_size in [(1, 2, 5), (3, 1, 1)]:
        config = ExtractConfig(
            num_actors=num_actors, cpus_per_actor=cpus_per_actor, unit_size=unit_size
        )
        out = tmp_path / f"{num_actors}"
        extract(videos_of(names), Location.at(media), config, Location.at(out))
        results.append((features_in(out), failures_in(out)))

    assert results[0] == results[1]
    assert len(results[0][0]) == 11


@on_cluster
def test_too_many_failures_stop_the_job_and_a_higher_limit_reuses_the_results(tmp_path):
    media, out = tmp_path / "media", Location.at(tmp_path / "out")
    media.mkdir()
    for name, do in {"a": "work", "b": "refuse", "c": "refuse", "d": "divide by zero"}.items():
        write_order(media / name, do)
    videos, strict = videos_of("abcd"), ExtractConfig(max_failed_fraction=0.5, unit_size=1)
    extract(videos, Location.at(media), strict, out, make_troubled)

    with pytest.raises(DatasetError) as error:
        refuse_too_many_failures(out, 4, strict)
    extract(videos, Location.at(media), strict, out, make_troubled)  # as after a kill
    refuse_too_many_failures(out, 4, ExtractConfig(max_failed_fraction=0.75))

    lines = str(error.value).splitlines()
    assert lines[0] == "3 of 4 videos failed, more than extract.max_failed_fraction 0.5:"
    assert lines[1] == "  2 x no sound; record it again"
    assert lines[2].startswith("  1 x unexpected ZeroDivisionError")
    assert "raise extract.max_failed_fraction" in lines[3]
    assert failures_in(tmp_path / "out").keys() == {"b", "c", "d"}
    assert all(len(preparations(media / name)) == 1 for name in "abcd")
