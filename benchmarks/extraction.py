"""What Ray costs extraction: rows a second against a plain loop over the same mp4 files.

    python benchmarks/extraction.py

Three ways use the same number of decoding processes and the same extractor, in turn, several
times. Each adds to the one before:

    plain loop            a pool of processes (multiprocessing) that prepare files; nothing kept
    killable processes    each file under a time limit, tables written as Parquet, markers
    Ray                   the same in feature actors that Ray Data feeds, as in the pipeline

"steady" is the speed after the first quarter of the files, "whole" includes the start of
processes. Ratios are medians over the repetitions of the ratio to the plain loop beside it.
CPU ms a row are those of this process and all below it; their ratio is what the ratio of speeds
tends to where all cores are busy, and depends less on who else uses the machine. The videos are
synthetic: the rendered demo.
"""

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from distributed_avel.cluster.actor_pool import UNIT, cut_into_units
from distributed_avel.cluster.session import ray_session
from distributed_avel.config import ClusterConfig, DataConfig, DemoConfig, ExtractConfig
from distributed_avel.datasets import VideoSet, load_dataset
from distributed_avel.features.base import Extractor, ExtractorRecipe
from distributed_avel.stages.extract import ExtractWorker, extract
from distributed_avel.storage import Location


@dataclass(frozen=True)
class Work:
    """What each way does."""

    videos: VideoSet
    root: Location
    config: ExtractConfig
    num_processes: int

    @property
    def recipe(self) -> ExtractorRecipe:
        """The extractor."""
        return ExtractorRecipe(self.videos.timeline, self.config)

    @property
    def units(self) -> list[pa.Table]:
        """Units of (video_id, uri) rows."""
        rows = self.videos.to_table().select(["video_id", "uri"])
        return cut_into_units(rows, self.config.unit_size)


Progress = Iterator[tuple[float, int]]
"""When something was done, in seconds since the epoch, and how many rows it was."""

_extractor: Extractor | None = None


def _set_up(recipe: ExtractorRecipe) -> None:
    global _extractor
    _extractor = recipe()


def _prepare(path: Path) -> Any:
    assert _extractor is not None
    return _extractor.prepare(path.read_bytes())


def plain_loop(work: Work, out: Location) -> Progress:
    """The least that has to be done."""
    extractor = work.recipe()
    paths = [Path((work.root / video.uri).path) for video in work.videos.videos]
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(work.num_processes, _set_up, (work.recipe,)) as pool:
        for prepared in pool.imap_unordered(_prepare, paths):
            extractor.embed([prepared])
            yield time.time(), 1


def killable_processes(work: Work, out: Location) -> Progress:
    """Without Ray, but with everything that an actor does."""
    worker = ExtractWorker(
        work.recipe,
        work.root,
        num_processes=work.num_processes,
        timeout_s=work.config.timeout_s,
    )

    def do(unit: pa.Table) -> int:
        name = unit[UNIT][0].as_py()
        for folder, table in worker(unit.drop_columns(UNIT)).items():
            if table.num_rows:
                (out / folder / f"{name}.parquet").write_table(table)
        (out / "units" / name).write_bytes(b"")
        return unit.num_rows

    with ThreadPoolExecutor(2 * work.num_processes) as threads:
        for future in as_completed([threads.submit(do, unit) for unit in work.units]):
            yield time.time(), future.result()
    worker.close()


def on_ray(work: Work, out: Location) -> Progress:
    """As in the pipeline; the session is there already."""
    extract(work.videos, work.root, work.config, out)
    for unit in work.units:
        marker = Path((out / "units" / unit[UNIT][0].as_py()).path)
        yield marker.stat().st_mtime, unit.num_rows


WAYS: dict[str, Callable[[Work, Location], Progress]] = {
    "plain loop": plain_loop,
    "killable processes": killable_processes,
    "Ray": on_ray,
}


@dataclass(frozen=True)
class Speed:
    """Rows a second and CPU seconds a row after the first quarter; rows a second with the start."""

    steady: float
    steady_cpu_s: float
    whole: float
    start_s: float


def measure(way: Callable[[Work, Location], Progress], work: Work) -> Speed:
    """Run one way once, in an empty folder, when what ran before has ended."""
    time.sleep(5)
    with tempfile.TemporaryDirectory() as out, Meter() as meter:
        started = time.time()
        steps = sorted(way(work, Location.at(out)))
        ended = time.time()
    total = sum(rows for _, rows in steps)
    done = np.cumsum([rows for _, rows in steps])
    quarter = int(np.searchsorted(done, total / 4))
    first, last, left = steps[quarter][0], steps[-1][0], total - int(done[quarter])
    return Speed(
        steady=left / (last - first),
        steady_cpu_s=(meter.at(last) - meter.at(first)) / left,
        whole=total / (ended - started),
        start_s=steps[0][0] - started,
    )


class Meter:
    """Reads `cpu_seconds` now and then, in a thread."""

    def __enter__(self) -> "Meter":
        self._readings: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def at(self, when: float) -> float:
        """The reading at a time, in seconds since the epoch."""
        times, readings = zip(*self._readings, strict=True)
        # A process whose parent ended before it takes its time with it: the sum may fall.
        return float(np.interp(when, times, np.maximum.accumulate(readings)))

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._readings.append((time.time(), cpu_seconds()))


def cpu_seconds() -> float:
    """CPU time of this process and all that are or were below it."""
    ticks, waiting = 0, [os.getpid()]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:15]))
            for children in process.glob("task/*/children"):
                waiting += map(int, children.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile, and its parent has its time
    return ticks / os.sysconf("SC_CLK_TCK")


def report(speeds: dict[str, list[Speed]]) -> None:
    """Print medians, and the median ratios to the plain loop beside."""
    print(f"{'':20} {'steady/s':>9} ratio   CPU ms ratio   whole/s ratio  start s")
    for way, runs in speeds.items():
        beside = list(zip(runs, speeds["plain loop"], strict=True))
        columns = [
            f"{median(run.steady for run in runs):9.1f}",
            f"{median(run.steady / plain.steady for run, plain in beside):5.2f}",
            f"{1000 * median(run.steady_cpu_s for run in runs):8.1f}",
            f"{median(plain.steady_cpu_s / run.steady_cpu_s for run, plain in beside):5.2f}",
            f"{median(run.whole for run in runs):9.1f}",
            f"{median(run.whole / plain.whole for run, plain in beside):5.2f}",
            f"{median(run.start_s for run in runs):8.1f}",
        ]
        print(f"{way:20}", *columns)


def main() -> None:
    """Render, run all ways in turn, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-videos", type=int, default=360)
    parser.add_argument("--num-processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", help="a folder with the rendered demo (default: render it)")
    arguments = parser.parse_args()
    demo = DemoConfig(num_train=arguments.num_videos - 3, num_event_free=1, num_val=1, num_test=1)
    config = ExtractConfig(num_actors=arguments.num_processes)
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # as in decoding processes
    with tempfile.TemporaryDirectory() as rendered, ray_session(ClusterConfig()):
        root = Location.at(arguments.root or rendered)
        work = Work(
            load_dataset(DataConfig(demo=demo), root), root, config, arguments.num_processes
        )
        speeds: dict[str, list[Speed]] = {way: [] for way in WAYS}
        for repeat in range(arguments.repeats):
            for way, run in WAYS.items():
                speeds[way].append(measure(run, work))
                print(f"{repeat + 1}/{arguments.repeats} {way}: {speeds[way][-1]}", flush=True)
        print(
            f"\n{len(work.videos.videos)} synthetic videos, {work.config.extractor}, "
            f"{arguments.num_processes} decoding processes, {os.cpu_count()} cores; "
            f"medians of {arguments.repeats}"
        )
        report(speeds)


if __name__ == "__main__":
    main()
