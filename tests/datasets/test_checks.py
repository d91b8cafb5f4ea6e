"""Findings of the data check in the published data sets, and in examples with known faults."""

import json
from collections import Counter
from pathlib import Path

import pytest

from distributed_avel.commands import check as check_data
from distributed_avel.config import DataConfig
from distributed_avel.datasets import Problems, inspect_dataset, load_dataset
from distributed_avel.datasets.checks import (
    check,
    survey,
    without_leaks,
    write_split,
)
from distributed_avel.datasets.findings import MEANING, CheckReport, render
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location
from tests.datasets.examples import EXAMPLES, FACTS, write_lines, write_published_ave


def report_of(config: DataConfig, root: Path, *, files: bool = False) -> CheckReport:
    problems, location = Problems(), Location.at(root)
    videos = inspect_dataset(config, location, problems)
    return check(videos, problems, survey(videos, location)) if files else check(videos, problems)


def places(report: CheckReport, kind: str) -> list[str]:
    return [finding.where for finding in report.findings if finding.kind == kind]


@pytest.fixture(scope="module")
def ave(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ave")
    write_published_ave(root)
    return root


def test_the_published_ave_has_exactly_these_anomalies(ave):
    report = report_of(DataConfig(dataset="ave"), ave)

    assert report.counts() == {
        "file in two splits": 18,
        "file twice": 28,
        "empty span": 1,
        "label without ground truth": 1,
    }
    shared = Counter(
        " and ".join(part.split(" ")[0] for part in finding.message.split(" and "))
        for finding in report.findings
        if finding.kind == "file in two splits"
    )
    assert shared == {"train and val": 10, "train and test": 8}
    assert places(report, "empty span")[0].endswith("Annotations.txt:27")  # row 26, from 0
    (where,) = places(report, "label without ground truth")
    assert where.endswith("Annotations.txt:27")


def test_statistics_of_the_published_ave(ave):
    report = report_of(DataConfig(dataset="ave"), ave)

    assert report.num_files == 4097
    assert [facts.num_videos for facts in report.splits.values()] == [3339, 402, 402]
    assert report.splits["test"].background_share == pytest.approx(715 / 4020)
    assert report.splits["train"].class_counts["Church bell"] == 152
    assert sum(report.splits["val"].class_counts.values()) == 402


def test_the_published_llp_has_exactly_these_anomalies():
    report = report_of(DataConfig(dataset="llp"), FACTS / "llp")

    assert report.counts() == {
        "empty span": 4,
        "offset before onset": 1,
        "event twice": 8,
        "overlapping spans": 15,
        "label twice": 1,
        "unknown video": 25,
        "label without ground truth": 38,
        "ground truth outside the labels": 65,
    }
    assert report.num_files == 11_849
    assert report.splits["train"].num_annotated == 0
    assert report.splits["train"].background_share is None


def test_a_split_without_leaks_keeps_all_test_videos_and_shares_no_file(ave, tmp_path):
    config, root = DataConfig(dataset="ave"), Location.at(ave)
    before = {file.name: file.read_bytes() for file in root.children()}
    videos = load_dataset(config, root)
    write_split(without_leaks(videos), Location.at(tmp_path / "split"))

    clean = load_dataset(config.model_copy(update={"split": str(tmp_path / "split")}), root)

    assert clean.split("test") == videos.split("test")
    assert clean.split("val") == videos.split("val")  # val and test share no file
    uris = {split: {v.uri for v in clean.split(split)} for split in ("train", "val", "test")}
    assert sum(map(len, uris.values())) == len(set.union(*uris.values()))
    lost = {v.video_id for v in videos.videos} - {v.video_id for v in clean.videos}
    others = uris["val"] | uris["test"]
    assert lost == {v.video_id for v in videos.split("train") if v.uri in others}
    assert {file.name: file.read_bytes() for file in root.children()} == before


def test_a_file_in_all_three_splits_is_kept_in_test_only(tmp_path):
    lines = [
        "uri,split,labels,spans,video_id",
        "a,train,x,,a1",
        "a,val,x,x:0-1,a2",
        "a,test,x,x:0-1,a3",
        "b,train,x,,b1",
        "b,val,x,x:0-1,b2",
        "c,train,x,,c1",
        "twin,train,x,,t1",
    ]
    write_lines(tmp_path / "videos.csv", lines)
    videos = load_dataset(DataConfig(dataset="folder"), Location.at(tmp_path))

    assert without_leaks(videos, {"twin": "b"}) == {"test": ["a3"], "val": ["b2"], "train": ["c1"]}
    assert without_leaks(videos)["train"] == ["c1", "t1"]
    report = check(videos, Problems())
    assert Counter(places(report, "file in two splits")) == {"a": 3, "b": 1}


def test_writing_a_split_refuses_existing_files_and_empty_splits(tmp_path):
    folder = Location.at(tmp_path)
    with pytest.raises(DatasetError, match="no video would be left in 'val'; nothing was written"):
        write_split({"test": ["a"], "val": [], "train": ["b"]}, folder)
    assert folder.children() == []
    (tmp_path / "val.txt").write_text("mine\n")
    with pytest.raises(DatasetError, match=r"val\.txt already exists; use another folder"):
        write_split({"test": ["a"], "val": ["c"], "train": ["b"]}, folder)
    assert [file.name for file in folder.children()] == ["val.txt"]


def test_missing_empty_and_duplicate_files_are_found(tmp_path):
    config = EXAMPLES["folder"](tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"same bytes")
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "d.mp4").write_bytes(b"same bytes")

    report = report_of(config, tmp_path, files=True)

    assert places(report, "missing file") == ["c.mp4"]
    assert places(report, "empty file") == ["b.mp4"]
    assert places(report, "same content") == ["d.mp4"]
    assert places(report, "file in two splits") == ["a.mp4"]
    (tmp_path / "d.mp4").write_bytes(b"othr bytes")
    assert "same content" not in report_of(config, tmp_path, files=True).counts()


def test_the_check_looks_for_feature_files_if_features_are_given(tmp_path):
    config = EXAMPLES["llp_features"](tmp_path)
    assert "missing file" not in report_of(config, tmp_path, files=True).counts()
    (tmp_path / "res152" / "ccccccccccc.npy").unlink()
    report = report_of(config, tmp_path, files=True)
    assert places(report, "missing file") == ["res152/ccccccccccc.npy"]


def test_events_outside_labels_or_video_and_untrained_classes_are_found(tmp_path):
    lines = ["Bark&a&good&0&10", "Bark&b&good&0&12", "Cat&c&good&0&10"]
    write_lines(tmp_path / "Annotations.txt", lines)
    for split, line in zip(("train", "val", "test"), lines, strict=True):
        write_lines(tmp_path / f"{split}Set.txt", [line])
    report = report_of(DataConfig(dataset="ave"), tmp_path)
    assert report.counts() == {"event outside the video": 1, "class without training videos": 1}
    assert places(report, "class without training videos") == ["Cat"]

    rows = ["uri,split,labels,spans", "a,train,x,y:0-3", "b,val,y,y:0-1", "c,test,y,y:0-0.2"]
    other = tmp_path / "other"
    other.mkdir()
    write_lines(other / "videos.csv", rows)
    report = report_of(DataConfig(dataset="folder"), other)
    assert report.counts() == {
        "label without ground truth": 2,
        "ground truth outside the labels": 1,
        "class without training videos": 1,
    }
    found = places(report, "label without ground truth")
    assert found == [f"{other}/videos.csv:2", f"{other}/videos.csv:4"]  # 0.2 s is no segment


def test_the_report_contains_everything_that_the_pipeline_would_refuse(tmp_path):
    config = EXAMPLES["ave"](tmp_path)
    lines = (tmp_path / "Annotations.txt").read_text().splitlines()
    write_lines(tmp_path / "Annotations.txt", [*lines, "Bark&e&good&5&2", "Bark&f&good&x&2"])
    report = report_of(config, tmp_path)

    assert report.counts()["unusable"] == 2
    text = render(report)
    assert "Annotations.txt:5: start must be" in text
    assert "Annotations.txt:6: start and end must be numbers" in text


def test_the_text_shows_examples_and_a_count_of_each_kind(ave):
    text = render(report_of(DataConfig(dataset="ave"), ave), shown=2)

    meaning = MEANING["file in two splits"]
    assert f"file in two splits (18)\n  consequence: {meaning.consequence}\n" in text
    assert f"  remedy: {meaning.remedy}\n" in text
    assert "... and 16 more, with --json" in text
    assert "17.8 %" in text
    assert "48 finding(s)" in text


def job(capsys, *argv: object) -> tuple[int, str, str]:
    status = check_data([str(argument) for argument in argv])
    return status, *capsys.readouterr()


def test_the_exit_status_tells_if_there_are_findings(ave, tmp_path, capsys):
    options = ("--data.dataset", "ave", "--data.root", ave, "--no-files")
    status, out, err = job(capsys, *options, "--json", "--write-split", tmp_path / "split")
    assert status == 1
    assert len(json.loads(out)["findings"]) == 48
    assert f"not searched: --data.split {tmp_path / 'split'}" in err

    status, out, _ = job(capsys, *options, "--data.split", tmp_path / "split")
    assert status == 1
    assert "file in two splits" not in out

    root = tmp_path / "sound"
    root.mkdir()
    write_lines(root / "videos.csv", ["uri,split,labels,spans"])
    with (root / "videos.csv").open("a") as file:
        file.write("a,train,x,\nb,val,x,x:0-1\nc,test,x,x:0-1\n")
    status, out, _ = job(capsys, "--data.dataset", "folder", "--data.root", root, "--no-files")
    assert (status, "No problems found." in out) == (0, True)


@pytest.mark.parametrize(
    ("rows", "kind", "status_of_pipeline"),
    [
        (["a,train,dog,", "b,train,Dog,"], "unusable", 2),
        (["a,train,dog,", "b,train,background,"], "unusable", 2),
        (["a,train,dog,", 'b,train,"dog,bell",'], "several labels in one", 0),
        (["a,train,dog,", "b,train,dog|bell,"], "several labels in one", 0),
        (["a,train,dog bark,", "b,train,dog_bark,"], "similar labels", 0),
        (["a,train,dog;ca\u200bt,"], "unusual characters", 0),
        (["a,train,dog,dog:0-3;dog:2-4"], "overlapping spans", 0),
        (["a,train,dog,", "v,val,cat,cat:0-3"], "class without training videos", 0),
        (["a,train,dog,", "t,test,cat,cat:0-3"], "class without training videos", 0),
        (["a,train,dog,", "v,val,dog,cat:0-3"], "ground truth outside the labels", 0),
        (["a,train,dog,", '"b,train,dog,'], "unusable", 2),
    ],
)
def test_a_mistake_in_a_table_is_reported_with_row_consequence_and_remedy(
    tmp_path, capsys, rows, kind, status_of_pipeline
):
    sound = ["y,val,dog,dog:0-3", "z,test,dog,dog:0-3"]
    write_lines(tmp_path / "videos.csv", ["uri,split,labels,spans", *sound, *rows])
    options = ("--data.dataset", "folder", "--data.root", tmp_path, "--no-files")

    status, out, _ = job(capsys, *options)

    assert status == 1
    shown = out[out.index(f"\n{kind} (1)\n") :].split("\n\n")[0]
    assert f"consequence: {MEANING[kind].consequence}\n" in shown
    assert f"remedy: {MEANING[kind].remedy}\n" in shown
    assert f"videos.csv:{len(rows) + 3}" in shown
    config = DataConfig(dataset="folder")
    if status_of_pipeline == 0:
        assert load_dataset(config, Location.at(tmp_path)).videos
    else:
        with pytest.raises(DatasetError, match=rf"videos\.csv:{len(rows) + 3}"):
            load_dataset(config, Location.at(tmp_path))


def test_the_job_reports_a_data_set_that_cannot_be_read(tmp_path, capsys):
    options = ("--data.dataset", "ave", "--data.root", tmp_path)
    status, out, _ = job(capsys, *options)
    assert status == 1
    assert "Annotations.txt: no such file; data.root must be" in out
    status, _, err = job(capsys, *options, "--write-split", tmp_path / "split")
    assert (status, "no split was written" in err) == (2, True)


def test_the_job_refuses_an_unknown_option(capsys):
    status, _, err = job(capsys, "--write-splt", "x", "--data.root", "y")
    assert (status, "write_splt: no such key" in err) == (2, True)
