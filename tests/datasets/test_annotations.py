"""Times from annotation tools: Label Studio, ELAN, Audacity and tables."""

import csv
import json
from pathlib import Path

import pytest

from distributed_avel.annotate import video_address
from distributed_avel.commands import main
from distributed_avel.config import DataConfig
from distributed_avel.datasets import Span, load_dataset
from distributed_avel.datasets.annotations import (
    Annotation,
    Annotations,
    merge,
    parse_time,
    read_annotations,
)
from distributed_avel.errors import DatasetError
from distributed_avel.predict.prediction import Event, to_audacity
from distributed_avel.storage import Location

TABLE = """uri,split,labels,place
clips/a.mp4,train,dog;bell,street
clips/b 1.mp4,val,dog,"yard, left"
clips/c.mp4,test,bell,
clips/d.mp4,test,,
"""

ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-11-28T10:00:00+00:00" FORMAT="3.0" VERSION="3.0">
    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///home/user/clips/c.mp4" MIME_TYPE="video/mp4"/>
    </HEADER>
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1500"/>
        <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="4250"/>
        <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="6000"/>
        <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="8000"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="bell">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
            <ANNOTATION_VALUE></ANNOTATION_VALUE>
        </ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="default">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
            <ANNOTATION_VALUE>dog</ANNOTATION_VALUE>
        </ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
</ANNOTATION_DOCUMENT>
"""  # noqa: E501


def task(video: str, *regions: tuple[str, float, float], cancelled: bool = False) -> dict:
    """A task as Label Studio exports it."""
    result = [
        {
            "id": f"r{number}",
            "from_name": "events",
            "to_name": "audio",
            "type": "labels",
            "original_length": 10.0,
            "value": {"start": start_s, "end": end_s, "channel": 0, "labels": [label]},
        }
        for number, (label, start_s, end_s) in enumerate(regions)
    ]
    return {
        "id": 1,
        "data": {"video": video},
        "predictions": [],
        "annotations": [{"id": 2, "was_cancelled": cancelled, "result": result}],
    }


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    (root / "videos.csv").write_text(TABLE, encoding="utf-8")
    return root


def imported(root: Path, name: str, content: str, folder: Path) -> dict[str, tuple | None]:
    """Import one file, and return the spans of the data set, by uri."""
    (folder / name).write_text(content, encoding="utf-8")
    assert main(["import-annotations", str(folder / name), "--to", str(root)]) == 0
    videos = load_dataset(DataConfig(dataset="folder"), Location.at(root))
    assert videos.classes == ("bell", "dog")
    return {video.uri: video.spans for video in videos.videos}


BELL, DOG = 0, 1


@pytest.mark.parametrize(
    "video",
    [
        "clips/b 1.mp4",
        "/data/local-files/?d=clips/b%201.mp4",
        "/data/upload/3/0a1b2c3d-b 1.mp4",
        "https://example.org/media/b%201.mp4",
        "C:\\media\\b 1.mp4",
    ],
)
def test_label_studio_is_read_whatever_the_address_of_the_video(root, tmp_path, video):
    tasks = [
        task(video, ("dog", 7, 8.5), ("dog", 2, 5.25)),
        task("clips/a.mp4", ("dog", 0, 1), cancelled=True),  # skipped by the annotator
    ]

    spans = imported(root, "project.json", json.dumps(tasks), tmp_path)

    assert spans["clips/b 1.mp4"] == (Span(DOG, 2.0, 5.25), Span(DOG, 7.0, 8.5))
    assert spans["clips/a.mp4"] is spans["clips/c.mp4"] is None


def test_elan_is_read_by_values_or_else_tiers_and_new_events_are_added_to_the_labels(
    root, tmp_path, capsys
):
    spans = imported(root, "any name.eaf", ELAN, tmp_path)

    assert spans["clips/c.mp4"] == (Span(BELL, 1.5, 4.25), Span(DOG, 6.0, 8.0))
    assert "clips/c.mp4: added to its labels: dog" in capsys.readouterr().out


def test_labels_of_audacity_are_read_as_avel_predict_writes_them(root, tmp_path):
    event = Event("dog", "audio-visual", 1.0, 3.0, 0.87)
    text = to_audacity([event]) + "4.5\t6\tbell\n\\\t100\t200\n"

    spans = imported(root, "a.txt", text, tmp_path)

    assert spans["clips/a.mp4"] == (Span(DOG, 1.0, 3.0), Span(BELL, 4.5, 6.0))


def test_a_table_has_seconds_or_minutes_and_other_columns_and_times_are_kept(root, tmp_path):
    first = "uri,label,start,end\nclips/a.mp4,dog,1,2\nclips/a.mp4,bell,0:03.5,00:00:04.25\n"
    imported(root, "first.csv", first, tmp_path)

    spans = imported(root, "second.csv", "uri,label,start,end\nb 1,dog,1,2\n", tmp_path)

    assert spans["clips/a.mp4"] == (Span(DOG, 1.0, 2.0), Span(BELL, 3.5, 4.25))
    assert spans["clips/b 1.mp4"] == (Span(DOG, 1.0, 2.0),)
    rows = list(csv.DictReader((root / "videos.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["place"] for row in rows] == ["street", "yard, left", "", ""]
    assert "clips/a.mp4" in (root / "videos.csv.bak").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("1:02.5", 62.5), ("01:00:01", 3601.0), ("0:0.25", 0.25), (" 3 ", 3.0)],
)
def test_a_time_is_in_seconds_or_minutes_or_hours(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "1:60", "1:2:3:4", "1,5", "a:1", "-1:2", "1:-2", "nan"])
def test_a_text_that_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="not a"):
        parse_time(text)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.json", "{}", "not an export of Label Studio; export the project as JSON"),
        ("p.json", "[", "not JSON; export the project as JSON"),
        ("p.json", '[{"video": "a"}]', r"task 1: no data or no annotations; .* not as JSON-MIN"),
        ("p.json", json.dumps([task("a.mp4", ("dog", 3, 1))]), "task 1: dog: from 3 to 1 s; an ev"),
        ("p.eaf", "<a>", "not a file of ELAN"),
        ("p.eaf", ELAN.replace(' TIME_VALUE="6000"', ""), "'dog' has no times; align it in ELAN"),
        ("p.txt", "1 2 dog\n", r"p\.txt:1: expected start, end and label, separated by tabs"),
        ("p.txt", "1,5\t2\tdog\n", r"p\.txt:1: '1,5' is not a time; .* decimal point"),
        ("p.csv", "uri,label,start,end\na.mp4,dog,5,1:x\n", r"p\.csv:2: '1:x' is not a time"),
        ("p.csv", "uri,label,start\n", "no column 'end' in the header"),
        ("p.vtt", "", r"not a file of annotations; these are read: \.json, \.eaf"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(tmp_path, name, content, says):
    (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(DatasetError, match=says):
        read_annotations(Location.at(tmp_path / name))


def test_a_video_without_a_row_changes_nothing(root, tmp_path, capsys):
    (tmp_path / "p.csv").write_text("uri,label,start,end\na,dog,1,2\nz,dog,1,2\n")

    assert main(["import-annotations", str(tmp_path / "p.csv"), "--to", str(root)]) == 2

    assert "no row for the video 'z'; add its row first" in capsys.readouterr().err
    assert (root / "videos.csv").read_text(encoding="utf-8") == TABLE
    assert not (root / "videos.csv.bak").exists()


def test_a_video_that_is_annotated_without_its_event_is_noted_and_unchanged(root, tmp_path, capsys):
    spans = imported(root, "p.json", json.dumps([task("clips/c.mp4")]), tmp_path)

    assert spans["clips/c.mp4"] is None
    assert "annotated without an event; its labels still are bell" in capsys.readouterr().out


def test_a_video_that_is_annotated_without_its_event_loses_its_old_times(root, tmp_path, capsys):
    old = "uri,split,labels,spans\nclips/c.mp4,test,bell,bell:1-2\n"
    (root / "videos.csv").write_text(old, encoding="utf-8")

    (tmp_path / "p.json").write_text(json.dumps([task("clips/c.mp4")]), encoding="utf-8")
    assert main(["import-annotations", str(tmp_path / "p.json"), "--to", str(root)]) == 0

    rows = csv.DictReader((root / "videos.csv").read_text(encoding="utf-8").splitlines())
    assert {row["uri"]: row["spans"] for row in rows}["clips/c.mp4"] == ""
    assert "without an event; its times were removed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a&b.mp4", "a#1.mp4", "a?d=1.mp4", "a%20b.mp4", "a+b c.mp4"])
@pytest.mark.parametrize("media", ["/data/local-files/?d=", "https://example.org/", "", "/mnt/"])
def test_an_exported_address_is_found_again_whatever_the_name(tmp_path, name, media):
    table = tmp_path / "videos.csv"
    table.write_text(f"uri,split,labels\na.mp4,test,dog\na,test,dog\n{name},test,dog\n")
    video = video_address(media, name)

    merged = merge(
        Location.at(table), Annotations(videos=(video,), events=(Annotation(video, "dog", 1, 2),))
    )

    assert f"{name},test,dog,dog:1.000-2.000\n" in merged.text
    assert merged.text.count("1.000") == 1


@pytest.mark.parametrize(
    ("video", "says"),
    [
        ("/data/local-files/?d=clips/a&b.mp4", "with a fragment or a query"),
        ("/data/local-files/?d=clips/a#1.mp4", "with a fragment or a query"),
        ("/data/local-files/?x=clips/a.mp4", "with a fragment or a query"),
        ("https://example.org/clips/a?b.mp4", "with a fragment or a query"),
        ("http://[x/a.mp4", "is not an address"),
    ],
)
def test_an_address_that_cannot_be_read_for_certain_is_refused(root, video, says):
    with pytest.raises(DatasetError, match=says):
        merge(Location.at(root / "videos.csv"), Annotations(videos=(video,), events=()))


def test_an_ambiguous_name_is_refused(root, tmp_path, capsys):
    (root / "videos.csv").write_text(TABLE + "other/c.mp4,train,dog,\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("1\t2\tbell\n")

    assert main(["import-annotations", str(tmp_path / "c.txt"), "--to", str(root)]) == 2

    assert "'c' is the name of 2 rows; use the uri or a video_id" in capsys.readouterr().err
