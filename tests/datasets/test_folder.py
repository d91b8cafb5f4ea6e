"""Data set `folder`: one table of the user's videos, and an error for every mistake in it."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distributed_avel.config import DataConfig
from distributed_avel.datasets import VideoSet, load_dataset
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

HEADER = "uri,split,labels,spans,video_id"
ROWS = [
    "clips/a.mp4,train,dog;bell,,",
    '"clips/b, c.mp4",train,,,quiet',
    "clips/d.mp4,val,bell,bell:0-1.5,",
    "clips/e.mp4,test,dog;bell,dog:2-5;bell:0-1.5;dog:7-8,",
]


def load(root: Path, rows: list[str], header: str = HEADER, **settings) -> VideoSet:
    (root / "videos.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    config = DataConfig(dataset="folder", root=str(root), **settings)
    return load_dataset(config, Location.at(root))


def test_labels_and_spans_of_several_events_are_read(tmp_path):
    videos = load(tmp_path, ROWS)
    by_id = {video.video_id: video for video in videos.videos}

    assert videos.classes == ("bell", "dog")
    assert by_id["clips/a.mp4"].labels == (1, 0)
    assert by_id["clips/a.mp4"].spans is None
    assert by_id["quiet"].uri == "clips/b, c.mp4"
    assert (by_id["quiet"].labels, by_id["quiet"].spans) == ((), ())
    segments_TK = videos.segment_labels([by_id["clips/e.mp4"]])[0]
    assert np.flatnonzero(segments_TK[:, 1]).tolist() == [2, 3, 4, 7]
    assert np.flatnonzero(segments_TK[:, 0]).tolist() == [0, 1]
    assert np.flatnonzero(segments_TK[:, 2]).tolist() == [5, 6, 8, 9]


def test_validation_and_test_videos_need_no_times(tmp_path):
    videos = load(tmp_path, [*ROWS, "f,val,dog,,", "g,test,bell,,", "h,test,,,"])
    by_id = {video.video_id: video for video in videos.videos}

    assert by_id["f"].spans is by_id["g"].spans is None
    assert by_id["h"].spans == ()  # a video without an event has none at any time


def test_parquet_with_lists_equals_csv(tmp_path):
    plain = load(tmp_path, ROWS)
    other = tmp_path / "other"
    other.mkdir()
    spans = [
        None,
        None,
        [{"label": "bell", "start_s": 0.0, "end_s": 1.5}],
        [
            {"label": "dog", "start_s": 2.0, "end_s": 5.0},
            {"label": "bell", "start_s": 0.0, "end_s": 1.5},
            {"label": "dog", "start_s": 7.0, "end_s": 8.0},
        ],
    ]
    table = pa.table(
        {
            "uri": ["clips/a.mp4", "clips/b, c.mp4", "clips/d.mp4", "clips/e.mp4"],
            "split": ["train", "train", "val", "test"],
            "labels": [["dog", "bell"], [], ["bell"], ["dog", "bell"]],
            "spans": spans,
            "video_id": [None, "quiet", None, None],
        }
    )
    pq.write_table(table, other / "videos.parquet")

    root = Location.at(other)
    assert load_dataset(DataConfig(dataset="folder"), root).to_table() == plain.to_table()


def test_number_and_length_of_segments_are_configurable(tmp_path):
    rows = [*ROWS[:2], "c,val,dog,dog:0-1.4,", "d,test,dog,dog:1-2.6,"]
    videos = load(tmp_path, rows, num_segments=13, segment_s=0.2)

    segments_TK = videos.segment_labels(videos.split("test"))[0]
    assert segments_TK.shape == (13, 3)
    assert np.flatnonzero(segments_TK[:, 1]).tolist() == [5, 6, 7, 8, 9, 10, 11, 12]


def test_classes_are_in_the_order_of_the_list(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\n\nbell\nwhistle: high\n", encoding="utf-8")
    rows = [*ROWS[:3], "e,test,whistle: high,whistle: high:0-3,"]
    videos = load(tmp_path, rows)

    assert videos.classes == ("dog", "bell", "whistle: high")
    assert videos.split("test")[0].labels == (2,)


def test_only_three_columns_are_required_and_unknown_ones_are_ignored(tmp_path):
    rows = ["a,train,dog,x", "b,val,,y", "c,test,,z"]
    videos = load(tmp_path, rows, header="uri,split,labels,camera")
    assert [v.spans for v in videos.videos] == [None, (), ()]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (",train,dog,,", r"csv:6, column uri: is empty"),
        ("../f.mp4,train,dog,,", r"csv:6, column uri: '../f.mp4' is not below"),
        ("/etc/f.mp4,train,dog,,", r"csv:6, column uri: .* is not below"),
        ("s3://b/f.mp4,train,dog,,", r"csv:6, column uri: .* is not below"),
        ("f,training,dog,,", r"csv:6, column split: expected train, val or test, got 'training'"),
        ("f,train,dog;dog,,", r"csv:6, column labels: 'dog' appears twice"),
        ("f,train,dog,dog,", r"csv:6, column spans: expected label:start-end"),
        ("f,train,dog,dog:2,", r"csv:6, column spans: expected label:start-end"),
        ("f,train,dog,:2-3,", r"csv:6, column spans: ':2-3': has no label"),
        ("f,train,dog,dog:3-3,", r"csv:6, column spans: .* end after its start"),
        ("f,train,dog,dog:5-3,", r"csv:6, column spans: .* end after its start"),
        ("f,train,dog,dog:0-nan,", r"csv:6, column spans: expected label:start-end"),
        ("f,train,dog,dog:8-11,", r"csv:6, column spans: .* ends after the 10 s of data\.num_seg"),
        (
            "clips/a.mp4,train,dog,,",
            r"csv:6: .*csv:2 has the same name 'clips/a\.mp4'; .*video_id",
        ),
        (
            "clips\\f.mp4,train,dog,,",
            r"csv:6, column uri: .* has backslashes; write 'clips/f\.mp4'",
        ),
        ("C:\\clips\\f.mp4,train,dog,,", r"csv:6, column uri: .* is not below"),
        ("C:/clips/f.mp4,train,dog,,", r"csv:6, column uri: .* is not below"),
        ("clips\\..\\..\\f.mp4,train,dog,,", r"csv:6, column uri: .* is not below"),
        ("f,Train,dog,,", r"csv:6, column split: .* got 'Train'; did you mean 'train'\?"),
        ("f,validation,dog,,", r"csv:6, column split: .* did you mean 'val'\?"),
        ("f,train,Dog,,", r"csv:6, column labels: 'Dog' and 'dog' \(.*csv:2, .* upper and lower"),
        ("f,train,dog,Dog:0-3,", r"csv:6, column spans: 'Dog' and 'dog' .* upper and lower"),
        ("f,train,Background,,", r"csv:6, column labels: 'Background' cannot be a class: .* empty"),
        ("f,train,dog:2-5,,", r"csv:6, column labels: 'dog:2-5' is a label with times"),
        ("f,train,,dog:2-5,", r"csv:6, column labels: is empty, but spans has 'dog'"),
        ('f,train,dog,"dog:0,5-3",', r"csv:6, column spans: .* decimals need a point"),
        (
            'f,train,dog,"dog:0-3,bell:1-2",',
            r"csv:6, column spans: .* several spans are separated by ;",
        ),
        (
            "f,train,dog,dog:0-3|bell:1-2,",
            r"csv:6, column spans: .* several spans are separated by ;",
        ),
        ("f,train,dog,dog:1_0-3,", r"csv:6, column spans: expected label:start-end"),
        ("clips/a.mp4,train,dog;bell,,", r"csv:6: repeats .*csv:2; remove one"),
        ("./clips//a.mp4,train,dog;bell,,", r"csv:6: repeats .*csv:2; remove one"),
        (
            "clips/a.mp4,test,dog,dog:0-3,",
            r"csv:6: 'clips/a\.mp4' is already in train \(.*csv:2\); no video may be in two splits",
        ),
        ("f,train,dog", r"csv:6: 2 field\(s\) fewer than the header"),
        ("f, g,train,dog,,", r"csv:6: 1 field\(s\) more than the header; .* needs quotes"),
    ],
)
def test_a_mistake_is_reported_with_line_column_and_remedy(tmp_path, row, says):
    with pytest.raises(DatasetError, match=says):
        load(tmp_path, [*ROWS, row])


def test_up_to_twenty_mistakes_are_reported_together(tmp_path):
    two = ["../x,nowhere,dog,,", "y,train,dog,dog:1,"]
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, [*ROWS, *two])
    lines = str(caught.value).splitlines()
    assert lines[0] == "folder: 3 problem(s)"
    assert [line.split(" column ")[1].split(":")[0] for line in lines[1:]] == [
        "uri",
        "split",
        "spans",
    ]

    with pytest.raises(DatasetError, match=r"25 problem\(s\)") as caught:
        load(tmp_path, [*ROWS, *[f"x{i},nowhere,dog,," for i in range(25)]])
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "... and 5 more"


def test_a_label_missing_from_the_list_of_classes_is_refused_with_a_suggestion(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\nbell\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"csv:6, column labels: 'dgo' .* did you mean 'dog'"):
        load(tmp_path, [*ROWS, "f,train,dgo,,"])
    with pytest.raises(DatasetError, match=r"csv:6, column spans: 'car' is not in classes\.txt"):
        load(tmp_path, [*ROWS, "f,train,dog,car:0-1,"])
    (tmp_path / "classes.txt").write_text("dog\nbell\ndog\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"classes\.txt:3: 'dog' appears twice"):
        load(tmp_path, ROWS)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("uri,split", "no column 'labels' in the header; it has uri, split"),
        ("", "no column 'uri' in the header"),
        ("uri,split,labels,span", "column 'span': did you mean 'spans'"),
        ("uri,split,labels,uri", "column 'uri' appears twice"),
    ],
)
def test_an_invalid_header_is_refused(tmp_path, header, says):
    with pytest.raises(DatasetError, match=says):
        load(tmp_path, ["a,train,dog,x"], header=header)


def test_a_split_without_a_video_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="column split: no row has 'test'"):
        load(tmp_path, ROWS[:3])


def test_a_table_without_any_label_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no row has a label"):
        load(tmp_path, ["a,train,,,", "b,val,,,", "c,test,,,"])


def test_missing_or_multiple_tables_are_refused(tmp_path):
    config, root = DataConfig(dataset="folder"), Location.at(tmp_path)
    with pytest.raises(DatasetError, match=r"no videos\.csv or videos\.parquet; data\.root must"):
        load_dataset(config, root)
    for name in ("videos.csv", "videos.parquet"):
        (tmp_path / name).write_text("uri\n")
    with pytest.raises(DatasetError, match="keep one of them"):
        load_dataset(config, root)
    (tmp_path / "videos.csv").unlink()
    with pytest.raises(DatasetError, match="not a Parquet file"):
        load_dataset(config, root)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "videos.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"videos\.csv: not UTF-8"):
        load_dataset(DataConfig(dataset="folder"), Location.at(tmp_path))


def test_utf_16_is_refused_with_a_command_that_converts_it(tmp_path):
    text = "\n".join([HEADER, *ROWS])
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "videos.csv").write_bytes(text.encode(encoding))
        with pytest.raises(DatasetError, match=r"videos\.csv: not UTF-8: .*iconv -f UTF-16"):
            load_dataset(DataConfig(dataset="folder"), Location.at(tmp_path))


def test_another_encoding_is_refused_with_the_line(tmp_path):
    text = "\n".join([HEADER, *ROWS, "f,train,caf\u00e9,,"])
    (tmp_path / "videos.csv").write_bytes(text.encode("windows-1252"))
    with pytest.raises(DatasetError, match=r"videos\.csv:6: not UTF-8 .*iconv -f WINDOWS-1252"):
        load_dataset(DataConfig(dataset="folder"), Location.at(tmp_path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_a_byte_order_mark_do_not_matter(tmp_path, end, mark):
    plain = load(tmp_path, ROWS)
    other = tmp_path / "other"
    other.mkdir()
    text = mark + end.join([HEADER, *ROWS, ""])
    (other / "videos.csv").write_bytes(text.encode())

    read = load_dataset(DataConfig(dataset="folder"), Location.at(other))
    assert read.to_table() == plain.to_table()

    (other / "videos.csv").write_bytes((text + f"f,nowhere,dog,,{end}").encode())
    with pytest.raises(DatasetError, match=r"videos\.csv:6, column split"):
        load_dataset(DataConfig(dataset="folder"), Location.at(other))


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
def test_another_delimiter_is_refused_with_a_command_that_converts_it(tmp_path, delimiter, name):
    rows = io.StringIO()
    fields = csv.reader([HEADER, *ROWS])
    csv.writer(rows, delimiter=delimiter).writerows(fields)
    lines = rows.getvalue().splitlines()

    with pytest.raises(
        DatasetError, match=f"columns are separated by {name}, but must be separated by commas"
    ) as caught:
        load(tmp_path, lines[1:], header=lines[0])
    command = re.findall(r"python -c .*", str(caught.value))[0]
    command = command.replace("python", sys.executable, 1)
    command = command.replace("< OLD > NEW", "< videos.csv > new.csv")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    (tmp_path / "new.csv").rename(tmp_path / "videos.csv")
    converted = load_dataset(DataConfig(dataset="folder"), Location.at(tmp_path))
    assert converted.to_table() == load(tmp_path, ROWS).to_table()


def test_the_delimiter_line_of_excel_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"videos\.csv:1: only Excel understands 'sep=;'"):
        load(tmp_path, [HEADER, *ROWS], header="sep=;")


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ('"clips/f.mp4,train,dog,,', 4),  # closed by the quote of the next quoted row, or never
        ('clips/f.mp4,train,"dog,,', 4),
        ('clips/f.mp4,train,dog,,"', 4),
        ('clips/f.mp4,train,"dog"x,,', 4),
    ],
)
@pytest.mark.parametrize("num_below", [0, 1, 3, 5000])
@pytest.mark.parametrize("quoted_below", [False, True])
def test_a_stray_quote_is_reported_for_its_row_and_hides_no_other_mistake(
    tmp_path, broken, line, num_below, quoted_below
):
    below = [f"clips/{i}.mp4,train,dog,," for i in range(num_below)]
    if quoted_below:
        below += ['"clips/g, h.mp4",train,"dog;bell",,']
    rows = [ROWS[2], ROWS[3], broken, *below, "z.mp4,nowhere,dog,,"]

    with pytest.raises(DatasetError, match=r"2 problem\(s\)") as caught:
        load(tmp_path, rows)
    _, quote, split = str(caught.value).splitlines()
    assert f"videos.csv:{line}: a quote" in quote
    assert f"videos.csv:{len(rows) + 1}, column split" in split


def test_two_stray_quotes_that_match_by_chance_are_found(tmp_path):
    rows = [*ROWS, 'f.mp4,train,dog,,"x', "g.mp4,train,dog,,", 'h.mp4,train,dog,,y"']
    with pytest.raises(DatasetError, match=r"videos\.csv:6: a quote"):
        load(tmp_path, rows)


def test_a_quoted_line_break_is_read(tmp_path):
    header = "uri,split,labels,spans,note"
    rows = ['a,train,dog,,"first line\nsecond, line, with, three, commas"', "b,val,dog,dog:0-3,"]
    rows += ["c,test,dog,dog:0-3,", "d,nowhere,dog,,"]
    assert len(load(tmp_path, rows[:-1], header=header).videos) == 3
    with pytest.raises(DatasetError, match=r"videos\.csv:6, column split"):
        load(tmp_path, rows, header=header)


def test_a_header_in_capitals_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(DatasetError, match="column 'SPANS': did you mean 'spans'"):
        load(tmp_path, ["a,train,dog,x"], header="uri,split,labels,SPANS")


def test_similar_spellings_in_the_list_of_classes_are_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("dog\nbell\nDog\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"classes\.txt:3: 'Dog' and 'dog' \(.*classes\.txt:1\)"):
        load(tmp_path, ROWS)
    (tmp_path / "classes.txt").write_text("dog\nbell\nbackground\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"classes\.txt:3: 'background' cannot be a class"):
        load(tmp_path, ROWS)


def test_different_spellings_of_a_path_give_one_uri(tmp_path):
    rows = [*ROWS, "./clips//a.mp4,train,dog,,other"]
    videos = load(tmp_path, rows)
    assert {v.uri for v in videos.videos if v.video_id in ("other", "clips/a.mp4")} == {
        "clips/a.mp4"
    }


def test_the_order_of_rows_does_not_matter(tmp_path):
    assert load(tmp_path, ROWS[::-1]).to_table() == load(tmp_path, ROWS).to_table()
    assert load(tmp_path, ROWS[::-1]).classes == load(tmp_path, ROWS).classes


def test_the_order_of_classes_only_permutes_columns(tmp_path):
    labels = {}
    for order in (("dog", "bell"), ("bell", "dog")):
        (tmp_path / "classes.txt").write_text("\n".join(order), encoding="utf-8")
        videos = load(tmp_path, ROWS)
        columns = [videos.classes.index(name) for name in ("bell", "dog")] + [2]
        labels[order] = (
            videos.video_labels(videos.split("test"))[:, columns],
            videos.segment_labels(videos.split("test"))[..., columns],
        )
    for one, other in zip(*labels.values(), strict=True):
        np.testing.assert_array_equal(one, other)
