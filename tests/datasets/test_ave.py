from pathlib import Path

import numpy as np
import pytest

from distributed_avel.config import DataConfig
from distributed_avel.datasets import Problems, VideoSet, inspect_dataset, load_dataset
from distributed_avel.datasets.ave import AVE_CLASSES
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

FACTS = Path(__file__).parents[1] / "data" / "ave"

LINES = [
    "Ukulele&aaa&good&0&10",
    "Bark&bbb&good&2&5",
    "Cat&bbb&good&6&10",
    "Flute&ccc&good&0&0",
    "Goat&ddd&good&1.5&4",
]


def write(root: Path, files: dict[str, list[str] | str]) -> Location:
    for name, lines in files.items():
        text = lines if isinstance(lines, str) else "".join(f"{line}\n" for line in lines)
        (root / name).write_text(text, encoding="utf-8")
    return Location.at(root)


def small(root: Path, **changes: list[str] | str) -> Location:
    """Write a data set of five rows; `changes` replace files, by name without .txt."""
    files = {
        "Annotations": LINES,
        "trainSet": [LINES[0], LINES[2], LINES[3]],
        "valSet": [LINES[1]],
        "testSet": [LINES[4]],
    }
    return write(root, {f"{name}.txt": lines for name, lines in {**files, **changes}.items()})


def load(root: Location) -> VideoSet:
    return load_dataset(DataConfig(dataset="ave", root=str(root)), root)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> VideoSet:
    root = tmp_path_factory.mktemp("ave")
    annotations = (FACTS / "Annotations.txt").read_text(encoding="utf-8")
    lines = annotations.splitlines()
    files: dict[str, list[str] | str] = {"Annotations.txt": annotations}
    for split in ("train", "val", "test"):
        rows = np.loadtxt(FACTS / f"{split}_rows.txt", dtype=int)
        files[f"{split}Set.txt"] = [lines[row] for row in rows]
    return load(write(root, files))


def test_the_published_splits_have_their_published_sizes(published):
    assert [len(published.split(s)) for s in ("train", "val", "test")] == [3339, 402, 402]
    assert published.num_classes == 28
    assert not published.synthetic


def test_classes_are_in_the_order_of_the_published_label_columns(published):
    lines = (FACTS / "Annotations.txt").read_text(encoding="utf-8").splitlines()
    columns = (FACTS / "label_columns.txt").read_text().split()
    for line, column in zip(lines, columns, strict=True):
        assert published.classes[int(column)] == line.split("&")[0]


def test_segments_of_the_test_split_follow_from_the_annotations(published):
    videos = published.split("test")
    segments_VTK = published.segment_labels(videos)

    assert segments_VTK.shape[:2] == (402, 10)
    assert segments_VTK.sum() == 4020  # one label per segment
    assert segments_VTK[:, :, -1].sum() == 715
    # GT-repeat is right in every segment with an event
    assert round(100 * (1 - 715 / 4020), 1) == 82.2


def test_an_id_in_several_rows_gives_several_videos_of_one_file(published):
    again = [v for v in published.videos if "@" in v.video_id]
    by_id = {v.video_id: v for v in published.videos}

    assert len(again) == 4143 - len({v.uri for v in published.videos})
    for video in again:
        first = by_id[video.video_id.split("@")[0]]
        assert first.uri == video.uri == f"AVE/{first.video_id}.mp4"
        assert first.labels != video.labels
    assert sum(v.video_id.endswith("@3") for v in again) == 1


def test_a_row_with_an_empty_span_keeps_its_label_and_has_no_span(published):
    (video,) = [v for v in published.videos if v.video_id == "VWi2ENBuTbw"]

    assert [published.classes[c] for c in video.labels] == ["Church bell"]
    assert video.spans == ()
    assert published.segment_labels([video])[0, :, -1].all()


def test_a_split_line_selects_its_row_and_segment_labels_follow_the_span(tmp_path):
    videos = load(small(tmp_path))
    by_id = {v.video_id: v for v in videos.videos}

    assert videos.classes == AVE_CLASSES
    assert by_id["bbb"].split == "val"
    assert by_id["bbb@2"].split == "train"
    cat = AVE_CLASSES.index("Cat")
    segments_TK = videos.segment_labels([by_id["bbb@2"]])[0]
    assert np.flatnonzero(segments_TK[:, cat]).tolist() == [6, 7, 8, 9]
    assert np.flatnonzero(segments_TK[:, -1]).tolist() == [0, 1, 2, 3, 4, 5]


def test_headers_blank_lines_line_endings_and_a_byte_order_mark_are_tolerated(tmp_path):
    header = "Category&VideoID&Quality&StartTime&EndTime"
    plain = load(small(tmp_path))
    other = tmp_path / "other"
    other.mkdir()

    root = small(
        other,
        Annotations="\ufeff" + "\r\n".join([header, "", *LINES, "", ""]),
        trainSet=[header, LINES[0], "", f" {LINES[2]} ", LINES[3]],
        valSet=["Video ID", "", *LINES[1:2]],
    )

    assert load(root).to_table() == plain.to_table()


def test_a_split_line_with_only_an_id_selects_all_its_rows(tmp_path):
    videos = load(small(tmp_path, trainSet=["aaa", "bbb"], valSet=["ccc"]))

    assert [v.video_id for v in videos.split("train")] == ["aaa", "bbb", "bbb@2"]
    assert [v.video_id for v in videos.split("val")] == ["ccc"]


def test_two_events_of_one_class_in_one_file_are_two_videos(tmp_path):
    twice = ["Bark&eee&good&0&3", "Bark&eee&good&6&9"]
    videos = load(small(tmp_path, Annotations=LINES + twice, trainSet=twice))

    starts = {v.video_id: v.spans[0].start_s for v in videos.split("train") if v.spans}
    assert starts == {"eee": 0.0, "eee@2": 6.0}
    problems = Problems()
    inspect_dataset(DataConfig(dataset="ave"), Location.at(tmp_path), problems)
    (oddity,) = [o for o in problems.oddities if o.kind == "class in two rows of a file"]
    assert oddity.where.endswith("Annotations.txt:7")
    assert "from 6 to 9 s, and in Annotations.txt:6 from 0 to 3 s" in oddity.message


def test_the_order_of_lines_in_split_files_does_not_matter(published, tmp_path):
    text = (FACTS / "Annotations.txt").read_text(encoding="utf-8")
    lines, rng = text.splitlines(), np.random.default_rng(0)
    files: dict[str, list[str] | str] = {"Annotations.txt": text}
    for split in ("train", "val", "test"):
        rows = rng.permutation(np.loadtxt(FACTS / f"{split}_rows.txt", dtype=int))
        files[f"{split}Set.txt"] = [lines[row] for row in rows]
    assert load(write(tmp_path, files)).to_table() == published.to_table()


def test_event_free_videos_join_the_training_split(tmp_path):
    videos = load(small(tmp_path, eventFreeSet=["free_1", "", "free_2"]))
    free = [v for v in videos.videos if not v.labels]

    assert [(v.video_id, v.split, v.spans) for v in free] == [
        ("free_1", "train", ()),
        ("free_2", "train", ()),
    ]
    assert videos.video_labels(free)[:, -1].all()
    assert videos.segment_labels(free)[:, :, -1].all()


def test_other_categories_become_sorted_classes(tmp_path):
    lines = ["saw&a&good&0&10", "drum&b&good&0&10", "Bark&c&good&0&10"]
    root = small(tmp_path, Annotations=lines, trainSet=["a"], valSet=["b"], testSet=["c"])

    assert load(root).classes == ("Bark", "drum", "saw")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Annotations": [*LINES, "Bark&eee&good&5&2"]}, r"Annotations\.txt:6: start must be"),
        ({"Annotations": [*LINES, "Bark&eee&good&-1&2"]}, r"Annotations\.txt:6: start must be"),
        (
            {"Annotations": [*LINES, "Bark&eee&good&0&inf"]},
            r"Annotations\.txt:6: .* numbers of sec",
        ),
        ({"Annotations": [*LINES, "Bark&eee&good&0&x"]}, r"Annotations\.txt:6: .* numbers of sec"),
        ({"Annotations": [*LINES, "Bark&eee&good&0&1,5"]}, r"txt:6: .*decimals need a point"),
        ({"Annotations": ["Bark&eee&good&&", *LINES]}, r"Annotations\.txt:1: .* numbers"),
        ({"Annotations": ["Bark&eee&good&0&ten", *LINES]}, r"Annotations\.txt:1: .* numbers"),
        ({"Annotations": [*LINES, "Bark&eee&0&5"]}, r"Annotations\.txt:6: expected category&vid"),
        ({"Annotations": [*LINES, "&eee&good&0&5"]}, r"Annotations\.txt:6: the category is empty"),
        ({"Annotations": [*LINES, "Bark&../e&good&0&5"], "trainSet": ["../e"]}, "valid file name"),
        ({"Annotations": ""}, "has no line in Annotations.txt"),
        ({"trainSet": ["zzz"]}, r"trainSet\.txt:1: 'zzz' has no line in Annotations\.txt; add"),
        ({"trainSet": ["Cat&aaa&good&0&10"]}, r"trainSet\.txt:1: .*another category or span"),
        ({"trainSet": ["Ukulele&aaa&good&0&9"]}, r"trainSet\.txt:1: .*another category or span"),
        ({"trainSet": ["aaa", "aaa"]}, r"trainSet\.txt:2: 'aaa' is already in trainSet\.txt"),
        ({"testSet": ["aaa"]}, r"testSet\.txt:1: 'aaa' is already in trainSet\.txt"),
        ({"valSet": ["", ""]}, r"valSet\.txt: lists no video"),
        ({"eventFreeSet": ["aaa"]}, r"eventFreeSet\.txt:1: 'aaa' has an event in Annotations"),
        ({"Annotations": [*LINES, "bark&eee&good&0&5"]}, r"txt:6: 'bark' .*upper and lower case"),
        ({"Annotations": [*LINES, "Background&e&good&0&5"]}, r"6: 'Background' cannot be a class"),
        ({"eventFreeSet": [LINES[0]]}, r"eventFreeSet\.txt:1: expected only a video id"),
    ],
)
def test_invalid_rows_are_refused_with_file_line_and_reason(tmp_path, changes, says):
    with pytest.raises(DatasetError, match=says):
        load(small(tmp_path, **changes))


@pytest.mark.parametrize("name", ["Annotations.txt", "trainSet.txt", "valSet.txt", "testSet.txt"])
def test_a_missing_file_is_named_with_the_expected_content_of_the_root(tmp_path, name):
    root = small(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match=f"{name}: no such file; data.root must be the folder"):
        load(root)


def test_a_misspelt_ave_category_is_refused_with_a_suggestion(tmp_path):
    lines = [f"{name}&id{i}&good&0&10" for i, name in enumerate(AVE_CLASSES[:20])]
    lines[3] = lines[3].replace("Fixed-wing", "Fixed wing")
    with pytest.raises(DatasetError, match=r"Annotations\.txt:4: .*did you mean 'Fixed-wing air"):
        load(small(tmp_path, Annotations=lines))


def test_annotations_that_no_split_uses_are_reported_as_an_oddity(tmp_path):
    problems = Problems()
    root = small(tmp_path, Annotations=[*LINES, "Goat&unused&good&0&5"])
    inspect_dataset(DataConfig(dataset="ave"), root, problems)

    (oddity,) = [o for o in problems.oddities if o.kind == "video in no split"]
    assert oddity.where.endswith("Annotations.txt:6")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    root = small(tmp_path)
    (tmp_path / "valSet.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"valSet\.txt: not UTF-8"):
        load(root)
