"""Checks of media headers, before extraction."""

import dataclasses
import shutil
import time
from pathlib import Path

import pytest
from media.coded import coded, ffmpeg

from distributed_avel.config import DataConfig
from distributed_avel.datasets import Problems, inspect_dataset
from distributed_avel.datasets.checks import check, survey
from distributed_avel.datasets.findings import MEANING, CheckReport, render
from distributed_avel.datasets.media_checks import read_headers
from distributed_avel.errors import MediaError
from distributed_avel.media.audio import read_audio
from distributed_avel.media.video import sample_frames
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline
from tests.datasets.examples import write_lines

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="ffmpeg makes these files; install it to run them"
)

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac")
SIX = Timeline(num_segments=6, segment_s=1.0)
REFUSED = {kind for kind in MEANING if "failures.parquet" in MEANING[kind].consequence}
MEDIA = {*REFUSED, "media file cut off"}


@pytest.fixture(scope="module")
def six_seconds(tmp_path_factory) -> Path:
    return coded(tmp_path_factory.mktemp("media") / "whole.mp4", *X264, seconds=6)


def make(name: str, whole: Path, folder: Path) -> None:
    """Make a file of one kind from a video of six seconds."""
    target, copy = folder / name, ("-c", "copy")
    if name == "silent.mp4":
        ffmpeg("-i", whole, "-an", *copy, target)
    elif name == "blind.m4a":
        ffmpeg("-i", whole, "-vn", *copy, target)
    elif name == "short.mp4":
        ffmpeg("-i", whole, "-t", 4, *copy, target)
    elif name == "short_sound.mkv":
        inputs = ("-i", whole, "-t", 3, "-i", whole)
        ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", *copy, target)
    elif name == "late_pictures.mp4":
        inputs = ("-itsoffset", 2, "-i", whole, "-i", whole)
        ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", *copy, target)
    elif name == "text.mp4":
        target.write_text("no media file\n" * 100)
    elif name == "no_index.mp4":
        target.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif name == "transport.ts":
        ffmpeg("-i", whole, *copy, target)
    else:
        shutil.copy(whole, target)


FOUND = {
    "whole.mp4": [],
    "transport.ts": [],
    "silent.mp4": ["missing track"],
    "blind.m4a": ["missing track"],
    "short.mp4": ["media file too short"] * 2,
    "short_sound.mkv": ["media file too short"],
    "late_pictures.mp4": ["media file too short", "media file cut off"],
    "text.mp4": ["unusable media file"],
    "no_index.mp4": ["unusable media file"],
}


def report_of(
    root: Path, rows: list[str], num_segments: int = 6, *, keeps_short: bool = False
) -> CheckReport:
    """Check videos that are annotated over six seconds, and of which `num_segments` are used."""
    write_lines(root / "videos.csv", ["uri,split,labels,spans", *rows])
    config, problems = DataConfig(dataset="folder", num_segments=6), Problems()
    videos = inspect_dataset(config, Location.at(root), problems)
    assert not problems.errors
    timeline = Timeline(num_segments=num_segments, segment_s=1.0)
    videos = dataclasses.replace(videos, timeline=timeline)
    files = survey(videos, Location.at(root))
    return check(videos, problems, files, keeps_short=keeps_short)


@pytest.mark.parametrize("name", FOUND)
def test_findings_agree_with_what_extraction_refuses(six_seconds, tmp_path, name):
    make(name, six_seconds, tmp_path)

    rows = [f"{name},test,dog,dog:0-2", "a.mp4,train,dog,", "b.mp4,val,dog,dog:0-2"]
    report = report_of(tmp_path, rows)

    assert [f.kind for f in report.findings if f.where == name and f.kind in MEDIA] == FOUND[name]
    media = (tmp_path / name).read_bytes()

    def extracted() -> None:
        sample_frames(media, SIX, 4, (16, 48))
        read_audio(media, SIX, 16_000)

    if REFUSED & {*FOUND[name]}:
        with pytest.raises(MediaError):
            extracted()
    else:
        extracted()


def test_short_files_are_counted_if_they_are_used(six_seconds, tmp_path):
    for name in ("short.mp4", "short_sound.mkv", "whole.mp4", "silent.mp4"):
        make(name, six_seconds, tmp_path)
    rows = [f"{path.name},test,dog,dog:0-2" for path in sorted(tmp_path.iterdir())]
    rows += ["a.mp4,train,dog,", "b.mp4,val,dog,dog:0-2"]  # missing files

    report = report_of(tmp_path, rows, keeps_short=True)

    assert report.num_short == 2
    assert "2 of them are shorter" in render(report)
    assert {f.where for f in report.findings if f.kind in MEDIA} == {"silent.mp4", "a.mp4", "b.mp4"}
    assert report_of(tmp_path, rows).num_short == 0


def test_labels_of_the_part_that_is_cut_off_are_named(six_seconds, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(six_seconds, tmp_path / name)
    rows = ["a.mp4,train,dog;cat,", "b.mp4,test,dog;cat,dog:0-2;cat:3-6", "c.mp4,val,dog,dog:0-2"]

    findings = {
        f.where: f.message for f in report_of(tmp_path, rows, 4).findings if "used" in f.message
    }

    cut = "6.00 s, of which the first 4 s are used"
    assert findings["a.mp4"] == f"{cut}; the labelled event may be in the rest: cat, dog"
    assert findings["b.mp4"] == f"{cut}; annotated events after that: cat"
    assert findings["c.mp4"] == cut


def test_reading_a_header_takes_milliseconds(six_seconds, tmp_path):
    names = [f"{number:03d}.mp4" for number in range(100)]
    for name in names:
        (tmp_path / name).hardlink_to(six_seconds)

    started = time.process_time()
    headers = read_headers(names, Location.at(tmp_path))

    assert len(headers) == 100
    assert time.process_time() - started < 100 * 0.03  # 5 ms on a quiet machine
