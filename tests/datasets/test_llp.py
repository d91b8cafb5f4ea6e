"""LLP: its published annotations, and synthetic feature files of the published shapes."""

import csv
import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from distributed_avel.config import DataConfig
from distributed_avel.datasets import Problems, VideoSet, feature_source, load_dataset
from distributed_avel.datasets.base import Span
from distributed_avel.datasets.llp import LLP_CLASSES, overlaps, read_llp
from distributed_avel.errors import DatasetError
from distributed_avel.storage import Location

FACTS = Path(__file__).parents[1] / "data" / "llp"

FILES = {
    "AVVP_train.csv": ["aaaaaaaaaaa_0_10\tSpeech,Dog", "b_b-bbbbbbb_20_30\tCat"],
    "AVVP_val_pd.csv": ["ccccccccccc_0_10\tCar"],
    "AVVP_test_pd.csv": ["ddddddddddd_0_10\tDog,Speech"],
    "AVVP_eval_audio.csv": [
        "ccccccccccc_0_10\t0\t10\tCar",
        "ddddddddddd_0_10\t1\t3\tDog",
        "ddddddddddd_0_10\t3\t6\tDog",
        "ddddddddddd_0_10\t8\t10\tSpeech",
    ],
    "AVVP_eval_visual.csv": [
        "ddddddddddd_0_10\t2\t5\tDog",
        "ddddddddddd_0_10\t0\t7\tSpeech",
    ],
}


def write(root: Path, **changes: list[str]) -> Location:
    """Write a data set of four videos; `changes` replace files, by the last part of their name."""
    for name, lines in FILES.items():
        fields = "filename\tonset\toffset\tevent_labels" if "eval" in name else "filename\tlabels"
        for part, other in changes.items():
            lines = other if part in name else lines
        (root / name).write_text("\n".join([fields, *lines]) + "\n", encoding="utf-8")
    return Location.at(root)


def load(root: Location, dataset: str = "llp") -> VideoSet:
    return load_dataset(DataConfig(dataset=dataset, root=str(root)), root)


@pytest.fixture(scope="module")
def published() -> VideoSet:
    return load(Location.at(FACTS))


def rows(name: str) -> list[dict[str, str]]:
    with (FACTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_published_splits_have_their_published_sizes(published):
    assert [len(published.split(s)) for s in ("train", "val", "test")] == [10_000, 649, 1200]
    assert published.num_classes == 25
    assert all(v.spans is None and v.audio_spans is None for v in published.split("train"))
    assert all(v.spans is not None for v in published.split("val") + published.split("test"))


def test_segment_labels_of_the_test_split_equal_the_authors_evaluation(published):
    videos = published.split("test")
    heard_VTC, seen_VTC = published.modality_labels(videos)
    row_of = {video.video_id: row for row, video in enumerate(videos)}

    for events_VTC, modality in ((heard_VTC, "audio"), (seen_VTC, "visual")):
        truth_VTC = np.zeros((1200, 10, 25), dtype=bool)
        for event in rows(f"AVVP_eval_{modality}.csv"):
            if event["filename"] in row_of:
                span = slice(int(event["onset"]), int(event["offset"]))
                label = LLP_CLASSES.index(event["event_labels"])
                truth_VTC[row_of[event["filename"]], span, label] = True
        np.testing.assert_array_equal(events_VTC, truth_VTC)
    both_VTC = published.segment_labels(videos)[:, :, :-1]
    np.testing.assert_array_equal(both_VTC, heard_VTC & seen_VTC)


def test_every_video_has_its_own_file_named_by_its_first_eleven_characters(published):
    uris = [video.uri for video in published.videos]
    assert len(set(uris)) == len(uris) == 11_849
    assert all(v.uri == f"video/{v.video_id[:11]}.mp4" for v in published.videos)


def test_oddities_of_the_published_files_are_reported_and_are_not_errors():
    problems = Problems()
    root = Location.at(FACTS)
    read_llp(DataConfig(dataset="llp"), root, problems, folder="video", ending="mp4")

    assert problems.errors == []
    assert Counter(oddity.kind for oddity in problems.oddities) == {
        "unknown video": 25,
        "event twice": 8,
        "empty span": 4,
        "offset before onset": 1,
        "label twice": 1,
    }
    (reversed_one,) = [o for o in problems.oddities if o.kind == "offset before onset"]
    assert reversed_one.where.endswith("AVVP_eval_audio.csv:3770")
    assert "8DF2PxdT5tE_390_400: Cheering from 9 to 0 s" in reversed_one.message


def test_audio_visual_events_are_the_overlap_of_both_modalities(tmp_path):
    videos = load(write(tmp_path))
    by_id = {video.video_id: video for video in videos.videos}
    dog = LLP_CLASSES.index("Dog")

    assert by_id["ddddddddddd_0_10"].spans == (Span(dog, 2.0, 5.0),)
    assert by_id["ccccccccccc_0_10"].spans == ()
    assert by_id["aaaaaaaaaaa_0_10"].spans is None
    assert by_id["b_b-bbbbbbb_20_30"].uri == "video/b_b-bbbbbbb.mp4"
    table = videos.to_table()
    again = VideoSet.from_table(
        table, name="llp", classes=videos.classes, timeline=videos.timeline, synthetic=False
    )
    assert again.to_table() == table
    assert again.split("test") == videos.split("test")


def test_overlaps_equal_a_comparison_of_every_tenth_of_a_second():
    rng = np.random.default_rng(0)

    def draw() -> list[Span]:
        bounds = np.sort(rng.integers(0, 101, size=(6, 2)), axis=1) / 10
        return [Span(int(rng.integers(2)), a, b) for a, b in bounds.tolist() if a < b]

    def grid(spans) -> np.ndarray:
        on = np.zeros((2, 100), dtype=bool)
        for span in spans:
            on[span.label, round(span.start_s * 10) : round(span.end_s * 10)] = True
        return on

    for _ in range(200):
        audio, visual = draw(), draw()
        np.testing.assert_array_equal(grid(overlaps(audio, visual)), grid(audio) & grid(visual))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": ["a_0_10\tSpech"]}, r"train\.csv:2: unknown event 'Spech'.* 'Speech'\?"),
        (
            {"train": ["a_0_10 Speech"]},
            r"train\.csv:2: expected 2 non-empty fields separated by tabs",
        ),
        ({"train": ["a_0_10\t"]}, r"train\.csv:2: expected 2 non-empty fields"),
        ({"train": ["../a_0_10\tDog"]}, r"train\.csv:2: .* is not a valid file name"),
        ({"train": []}, r"train\.csv: lists no video"),
        ({"val": FILES["AVVP_train.csv"][:1]}, r"val_pd\.csv:2: .* is already in .*train\.csv:2"),
        (
            {"train": ["a_0_10\tDog", "a_10_20\tCar"]},
            r"train\.csv:3: 'a_10_20' and 'a_0_10' are excerpts of one video and share the file",
        ),
        (
            {"audio": ["ccccccccccc\t0\t10\tCar"]},
            r"audio\.csv: has no event of any video in the spl",
        ),
        ({"visual": []}, r"visual\.csv: has no event of any video in the splits; use all files"),
        (
            {"audio": ["ddddddddddd_0_10\t0\t10\tCar"]},
            r"AVVP_val_pd\.csv: none of its videos has an ev",
        ),
        ({"audio": ["ccccccccccc_0_10\t0\tten\tCar"]}, r"audio\.csv:2: onset and offset must"),
        ({"audio": ["ccccccccccc_0_10\t-1\t2\tCar"]}, r"audio\.csv:2: onset and offset must"),
        ({"visual": ["ccccccccccc_0_10\t0\t2\tcar"]}, r"visual\.csv:2: unknown event 'car'"),
    ],
)
def test_invalid_rows_are_refused_with_file_line_and_reason(tmp_path, changes, says):
    with pytest.raises(DatasetError, match=says):
        load(write(tmp_path, **changes))


def test_problems_of_all_files_are_reported_together(tmp_path):
    root = write(tmp_path, train=["a_0_10\tSpech"], audio=["x\t1\t2\tDgo"], visual=["y"])
    with pytest.raises(DatasetError, match=r"3 problem\(s\)") as caught:
        load(root)
    assert all(f"{name}.csv:2" in str(caught.value) for name in ("train", "audio", "visual"))


def test_a_missing_file_is_named_with_the_expected_content_of_the_root(tmp_path):
    root = write(tmp_path)
    (tmp_path / "AVVP_eval_visual.csv").unlink()
    with pytest.raises(DatasetError, match=r"AVVP_eval_visual\.csv: no such file; data\.root must"):
        load(root)


def with_features(root: Path, folder: str = "") -> dict[str, tuple[np.ndarray, ...]]:
    """Write feature files of the published shapes for three of the four videos."""
    write(root)
    rng, made = np.random.default_rng(0), {}
    for video_id in ("aaaaaaaaaaa", "ccccccccccc", "ddddddddddd"):
        arrays = tuple(
            rng.random(shape, dtype=np.float32) for shape in ((10, 128), (80, 2048), (10, 512))
        )
        made[video_id] = arrays
        for kind, array in zip(("vggish", "res152", "r2plus1d_18"), arrays, strict=True):
            (root / folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(root / folder / kind / f"{video_id}.npy", array)
    return made


def read_features(root: Path):
    source = feature_source("llp_features")
    assert source is not None
    return list(source.read(DataConfig(dataset="llp_features"), Location.at(root)))


@pytest.mark.parametrize("folder", ["", "feats"])
def test_visual_features_are_mean_frame_features_and_motion_features(tmp_path, folder):
    made = with_features(tmp_path, folder)
    (chunk,) = read_features(tmp_path)

    assert chunk.audio_VTD.shape == (3, 10, 128)
    assert chunk.visual_VTRD.shape == (3, 10, 1, 2560)
    assert chunk.visual_VTRD.dtype == np.float16
    for number, video_id in enumerate(chunk.video_ids):
        audio, frames, motion = made[video_id[:11]]
        np.testing.assert_array_equal(chunk.audio_VTD[number], audio)
        for segment in range(10):
            mean_D = np.mean([frames[8 * segment + i] for i in range(8)], axis=0)
            row_D = np.concatenate([mean_D, motion[segment]])
            np.testing.assert_allclose(chunk.visual_VTRD[number, segment, 0], row_D, rtol=1e-3)


def test_a_video_with_a_missing_feature_file_is_omitted(tmp_path):
    with_features(tmp_path)
    (tmp_path / "res152" / "ccccccccccc.npy").unlink()

    assert [chunk.video_ids for chunk in read_features(tmp_path)] == [
        ["aaaaaaaaaaa_0_10", "ddddddddddd_0_10"]
    ]
    source = feature_source("llp_features")
    assert source is not None
    files = source.files_of(load(Location.at(tmp_path), "llp_features"))
    assert len(files) == 12
    assert {"vggish/ccccccccccc.npy", "res152/ccccccccccc.npy", "r2plus1d_18/ccccccccccc.npy"} < {
        *files
    }


@pytest.mark.parametrize(
    ("kind", "array", "says"),
    [
        ("vggish", np.zeros((9, 128), np.float32), r"shape \(10, 128\) .* got \(9, 128\)"),
        ("res152", np.zeros((81, 2048), np.float32), r"shape \(80, 2048\) .* got \(81, 2048\)"),
        ("res152", np.zeros((7, 2048), np.float32), r"shape \(10, 2048\) .* got \(7, 2048\)"),
        ("r2plus1d_18", np.zeros((10, 1, 512), np.float32), r"shape \(10, 512\)"),
        ("vggish", np.full((10, 128), np.nan, np.float32), "not finite in float16"),
        ("res152", np.full((80, 2048), 1e6, np.float32), "not finite in float16"),
        ("vggish", np.zeros((10, 128), np.int64), "not finite in float16"),
    ],
)
def test_features_of_a_wrong_shape_or_type_are_refused_with_the_file(tmp_path, kind, array, says):
    with_features(tmp_path)
    np.save(tmp_path / kind / "ccccccccccc.npy", array)
    with pytest.raises(DatasetError, match=rf"{kind}/ccccccccccc\.npy: .*{says}"):
        read_features(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"whole"])
def test_a_damaged_file_is_named(tmp_path, content):
    with_features(tmp_path)
    if content == b"whole":
        whole = io.BytesIO()
        np.save(whole, np.zeros((10, 128), np.float32))
        content = whole.getvalue()[:-7]
    (tmp_path / "vggish" / "ccccccccccc.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=r"vggish/ccccccccccc\.npy: not a complete \.npy file"):
        read_features(tmp_path)


def test_videos_are_found_in_the_layout_of_the_authors_scripts(tmp_path):
    root = write(tmp_path)
    (tmp_path / "LLP_dataset" / "video").mkdir(parents=True)
    assert load(root).split("val")[0].uri == "LLP_dataset/video/ccccccccccc.mp4"
    shutil.rmtree(tmp_path / "LLP_dataset")
    assert load(root).split("val")[0].uri == "video/ccccccccccc.mp4"


def test_the_order_of_lines_does_not_change_labels(tmp_path):
    texts = {file.name: file.read_text().splitlines() for file in FACTS.glob("*.csv")}
    rng = np.random.default_rng(0)
    for name, (header, *lines) in texts.items():
        shuffled = [lines[i] for i in rng.permutation(len(lines))]
        (tmp_path / name).write_text("\n".join([header, *shuffled]) + "\n")

    published, permuted = load(Location.at(FACTS)), load(Location.at(tmp_path))

    for split in ("train", "val", "test"):
        videos, others = published.split(split), permuted.split(split)
        assert [v.video_id for v in videos] == [v.video_id for v in others]
        np.testing.assert_array_equal(published.video_labels(videos), permuted.video_labels(others))
        if split != "train":
            for labels, other in zip(
                published.modality_labels(videos), permuted.modality_labels(others), strict=True
            ):
                np.testing.assert_array_equal(labels, other)
            np.testing.assert_array_equal(
                published.segment_labels(videos), permuted.segment_labels(others)
            )
