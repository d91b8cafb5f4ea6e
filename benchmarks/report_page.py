"""Measure the report page of many videos: time to write it, its size, and time to open it.

    python benchmarks/report_page.py [--videos 10000]

The predictions are random, in AVE's shape: 28 classes, 10 segments, three arms and a baseline. With
playwright and Chromium, the page is opened in a browser, sorted and searched.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from distributed_avel.datasets import Span, Video, VideoSet
from distributed_avel.report.page import page_files
from distributed_avel.report.page_data import Pictures, Report
from distributed_avel.report.predictions import LocalizationPredictions
from distributed_avel.schema import predictions_schema
from distributed_avel.timeline import Timeline

ARMS = ("AVE", "AVE+LR", "AVE+A+LR")
NUM_CLASSES, NUM_SEGMENTS = 28, 10


def main(argv: list[str]) -> int:
    """Print the measurements; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure the report page of many videos.")
    parser.add_argument("--videos", type=int, default=10_000)
    args = parser.parse_args(argv)
    predictions = random_predictions(args.videos)
    start = time.perf_counter()
    report = predictions.report(ARMS, 12, lambda _: Pictures(), results={})
    print(f"metrics and intervals: {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    files = page_files(report, "report.html")
    print(f"pages: {time.perf_counter() - start:.1f} s")
    for name in ("report.html", "report_single.html"):
        if name in files:
            print(f"{name}: {len(files[name].encode()) / 1e6:.1f} MB")
    data = [len(text.encode()) for name, text in files.items() if name.endswith(".js")]
    if data:
        print(f"data files: {len(data)} of up to {max(data) / 1e3:.0f} kB")
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for name in files:
            if name.endswith(".html"):
                visit(Path(folder) / name, report)
    return 0


def random_predictions(num_videos: int) -> LocalizationPredictions:
    """Make up a data set and predictions."""
    rng = np.random.default_rng(0)
    videos = []
    for number in range(num_videos):
        start, end = sorted(rng.choice(NUM_SEGMENTS + 1, size=2, replace=False).tolist())
        label = int(rng.integers(NUM_CLASSES))
        videos.append(
            Video(
                video_id=f"video_{number:05d}",
                uri=f"video_{number:05d}.mp4",
                split="test",
                labels=(label,),
                spans=(Span(label, float(start), float(end)),),
            )
        )
    data = VideoSet(
        name="random",
        classes=tuple(f"class {number}" for number in range(NUM_CLASSES)),
        timeline=Timeline(num_segments=NUM_SEGMENTS, segment_s=1.0),
        videos=tuple(videos),
        synthetic=True,
    )
    truth_N = data.segment_labels(videos).argmax(axis=-1).ravel()
    ids = np.repeat([video.video_id for video in videos], NUM_SEGMENTS)
    tables = []
    for arm in ("GT-repeat", *ARMS):
        logits_NK = rng.normal(size=(len(truth_N), NUM_CLASSES + 1)).astype(np.float32)
        logits_NK[np.arange(len(truth_N)), truth_N] += 3
        prob_NK = np.exp(logits_NK)
        prob_NK /= prob_NK.sum(axis=1, keepdims=True)
        scores = pa.FixedSizeListArray.from_arrays(pa.array(prob_NK.ravel()), NUM_CLASSES + 1)
        columns = [
            pa.array([arm] * len(truth_N)),
            pa.array(ids),
            pa.array(np.tile(np.arange(NUM_SEGMENTS, dtype=np.int32), num_videos)),
            pa.array(truth_N.astype(np.int32)),
            pa.array(prob_NK.argmax(axis=1).astype(np.int32)),
            scores,
        ]
        tables.append(pa.Table.from_arrays(columns, schema=predictions_schema(NUM_CLASSES)))
    return LocalizationPredictions(pa.concat_tables(tables), data)


def visit(path: Path, report: Report) -> None:
    """Open a page, sort and search it, and print the times."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        print("no browser: install playwright, and Chromium or Chrome")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.locator(".timeline input[type=range]").first.wait_for()
        opened = time.perf_counter()
        page.get_by_label("Sort by").select_option(label=f"disagreement, {ARMS[0]} and {ARMS[-1]}")
        page.get_by_label("descending").check()
        page.wait_for_timeout(1)
        sorted_at = time.perf_counter()
        page.get_by_label("Search").fill(report.videos[-1].video_id)
        page.locator("output", has_text=f"1 of {len(report.videos):,} videos").wait_for()
        print(
            f"{path.name}: opened in {opened - start:.2f} s, sorted twice in "
            f"{sorted_at - opened:.2f} s, found in {time.perf_counter() - sorted_at:.2f} s"
        )
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
