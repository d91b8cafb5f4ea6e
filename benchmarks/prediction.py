"""Memory and speed of predictions for new videos.

    python benchmarks/prediction.py memory
    python benchmarks/prediction.py speed

`memory` runs `avel predict` on files of several lengths, and measures the largest sum of the
resident memory of all its processes, over the whole time and over its first half.
`speed` compares predictions with extraction alone: the same files, extractor and number of decoding
processes, in turn, several times. Ratios above 1 mean that predictions are faster; the ratio of CPU
times depends less on who else uses the machine.

The model has random weights, and the videos are synthetic. Neither changes memory or speed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
import pyarrow as pa
import torch

from distributed_avel import load_model
from distributed_avel.cluster.actor_pool import UNIT, cut_into_units
from distributed_avel.config import DataConfig, DemoConfig, ExtractConfig, ModelConfig, TrainConfig
from distributed_avel.datasets import load_dataset
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.predict.model_folder import write_model_folder
from distributed_avel.stages.extract import ExtractWorker
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline
from distributed_avel.train.checkpoint import weights_to_bytes
from distributed_avel.train.model_recipe import ModelRecipe

TIMELINE = Timeline(num_segments=10, segment_s=1.0)
_READ_EVERY_S = 0.2


def write_model(folder: Path, extract: ExtractConfig, hidden_size: int = 128) -> Path:
    """Write a model folder with random weights; return it."""
    extractor = ExtractorRecipe(TIMELINE, extract)()
    shapes, config = extractor.shapes, ModelConfig(name="ave", hidden_size=hidden_size)
    sizes = {"audio_shape": shapes.audio, "visual_shape": shapes.visual}
    torch.manual_seed(0)
    model = ModelRecipe(config=config, num_classes=28, **sizes)()
    settings = {
        "version": "benchmark",
        "arm": "AVE",
        "dataset": "benchmark",
        "synthetic": True,
        "classes": tuple(f"class {number}" for number in range(28)),
        "num_segments": TIMELINE.num_segments,
        "segment_s": TIMELINE.segment_s,
        "model": config,
        "train": TrainConfig(),
        "extract": extract,
        "extractor_provenance": extractor.provenance(),
        **sizes,
    }
    write_model_folder(Location.at(folder), settings, weights_to_bytes(model), {})
    return folder


def write_video(path: Path, seconds: float, size: str) -> Path:
    """Write an mp4 file of this length: a minute of moving pictures and sound, repeated."""
    minute = path.parent / f"minute-{size}.mp4"
    if not minute.exists():
        ffmpeg(
            *("-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=60"),
            *("-f", "lavfi", "-i", "aevalsrc=0.3*sin(2*PI*t*(300+50*floor(t))):s=44100:d=60"),
            *("-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac", minute),
        )
    loops = max(0, -(-int(seconds) // 60) - 1)
    ffmpeg("-stream_loop", loops, "-i", minute, "-t", seconds, "-c", "copy", path)
    return path


def ffmpeg(*arguments: object) -> None:
    """Run FFmpeg."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


def memory(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Measure `avel predict` on one file of each length."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", ExtractConfig())
        for seconds in arguments.seconds:
            video = write_video(Path(folder) / f"{seconds}.mp4", seconds, arguments.size)
            command = [sys.executable, "-m", "distributed_avel", "predict", str(model), str(video)]
            started = time.monotonic()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            readings = []
            while process.poll() is None:
                readings.append((time.monotonic() - started, _resident_bytes(process.pid)))
                time.sleep(_READ_EVERY_S)
            if process.returncode:
                sys.exit(f"avel predict failed with status {process.returncode}")
            wall_s = time.monotonic() - started
            rows.append(
                {
                    "seconds": seconds,
                    "file_bytes": video.stat().st_size,
                    "wall_s": round(wall_s, 1),
                    "max_rss_mb": round(max(rss for _, rss in readings) / 1e6),
                    "max_rss_mb_of_first_half": round(
                        max(rss for at, rss in readings if at <= wall_s / 2) / 1e6
                    ),
                }
            )
            print(rows[-1], flush=True)
            video.unlink()
    return rows


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process and all below it."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total


def speed(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Compare predictions with extraction alone, both in this process without Ray."""
    num_videos, num_processes = arguments.num_videos, arguments.num_processes
    demo = DemoConfig(num_train=num_videos - 3, num_event_free=1, num_val=1, num_test=1)
    config = ExtractConfig()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Location.at(Path(folder) / "videos")
        videos = load_dataset(DataConfig(demo=demo), root)
        paths = [(root / video.uri).path for video in videos.videos]
        recipe = ExtractorRecipe(videos.timeline, config)
        worker = ExtractWorker(recipe, root, num_processes=num_processes, timeout_s=600.0)
        model = load_model(write_model(Path(folder) / "model", config))
        table = videos.to_table().select(["video_id", "uri"])

        def extract_unit(unit: pa.Table) -> None:
            for kind, part in worker(unit.drop_columns(UNIT)).items():
                if part.num_rows:
                    name = f"{unit[UNIT][0].as_py()}.parquet"
                    (Location.at(folder) / kind / name).write_table(part)

        def extract() -> None:
            with ThreadPoolExecutor(2) as threads:  # two units at once, as in an actor
                list(threads.map(extract_unit, cut_into_units(table, config.unit_size)))

        def predict() -> None:
            for _, result in model.predict_all(paths, num_processes):
                assert not isinstance(result, Exception), result

        for way in (extract, predict):  # the first call starts the processes
            way()
        for repeat in range(arguments.repeats):
            row: dict[str, float] = {"repeat": repeat, "num_videos": len(paths)}
            ways: Sequence[tuple[str, Callable[[], None]]] = [
                ("extraction", extract), ("prediction", predict)
            ]  # fmt: skip
            for name, way in ways if repeat % 2 else ways[::-1]:
                started, started_cpu_s = time.monotonic(), _cpu_seconds()
                way()
                row[f"{name}_videos_per_s"] = round(len(paths) / (time.monotonic() - started), 2)
                cpu_ms = 1000 * (_cpu_seconds() - started_cpu_s) / len(paths)
                row[f"{name}_cpu_ms_per_video"] = round(cpu_ms, 1)
            row["ratio"] = round(row["prediction_videos_per_s"] / row["extraction_videos_per_s"], 3)
            row["ratio_of_cpu_time"] = round(
                row["extraction_cpu_ms_per_video"] / row["prediction_cpu_ms_per_video"], 3
            )
            rows.append(row)
            print(row, flush=True)
        worker.close()
    for name in ("ratio", "ratio_of_cpu_time"):
        print(f"median {name} {median(row[name] for row in rows):.3f}")
    return rows


def _cpu_seconds() -> float:
    """CPU time of this process and all that run below it."""
    here = psutil.Process()
    times = [one.cpu_times() for one in (here, *here.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write a JSON file on request."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["memory", "speed"])
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60, 600, 10_800])
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--num-videos", type=int, default=120)
    parser.add_argument("--num-processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="JSON file to write")
    arguments = parser.parse_args(argv)
    rows = memory(arguments) if arguments.what == "memory" else speed(arguments)
    if arguments.out:
        result = {
            "command": " ".join(["python benchmarks/prediction.py", *(argv or sys.argv[1:])]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
            "torch": torch.__version__,
            "rows": rows,
        }
        Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
