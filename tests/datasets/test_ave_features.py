"""AVE's published features: synthetic files of the published shapes, and real annotations."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from distributed_avel.config import DataConfig
from distributed_avel.datasets import (
    Problems,
    VideoSet,
    feature_source,
    inspect_dataset,
    load_dataset,
)
from distributed_avel.datasets.base import FeatureChunk
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.stages.import_features import import_features
from distributed_avel.storage import Location

FACTS = Path(__file__).parents[1] / "data" / "ave"
CONFIG = DataConfig(dataset="ave_features")
NUM_ROWS, NUM_NOISY = 70, 5


def published_lines() -> list[str]:
    return (FACTS / "Annotations.txt").read_text(encoding="utf-8").splitlines()


def published_columns() -> np.ndarray:
    """Return the class column of each row of the published video-level labels."""
    return np.array((FACTS / "label_columns.txt").read_text().split(), dtype=int)


def save(file: Path, values: np.ndarray, name: str = "avadataset") -> None:
    with h5py.File(file, "w") as opened:
        opened[name] = values


def segment_labels(lines: list[str], columns: np.ndarray) -> np.ndarray:
    labels = np.zeros((len(lines), 10, 29))
    labels[:, :, 28] = 1
    for row, (line, column) in enumerate(zip(lines, columns, strict=True)):
        start, end = map(int, line.split("&")[3:])
        labels[row, start:end, 28] = 0
        labels[row, start:end, column] = 1
    return labels


def write(root: Path, *, noisy: bool = True) -> Location:
    """Write the first rows of AVE with features that encode their row and segment."""
    lines, columns = published_lines()[:NUM_ROWS], published_columns()[:NUM_ROWS]
    (root / "Annotations.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = np.random.default_rng(0).permutation(NUM_ROWS)
    for name, part in zip(("train", "val", "test"), np.split(rows, [50, 60]), strict=True):
        save(root / f"{name}_order.h5", part, "order")
    save(root / "mil_labels.h5", np.eye(29, dtype=np.float32)[columns])
    save(root / "labels.h5", segment_labels(lines, columns))
    write_features(root, "", NUM_ROWS)
    if noisy:
        write_features(root, "_noisy", NUM_NOISY)
        save(root / "labels_noisy.h5", np.tile(np.eye(29)[28], (NUM_NOISY, 1)))
    return Location.at(root)


def write_features(root: Path, ending: str, num_rows: int) -> None:
    rng = np.random.default_rng(len(ending))
    visual = rng.standard_normal((num_rows, 10, 7, 7, 4)).astype(np.float32)
    with h5py.File(root / f"visual_feature{ending}.h5", "w") as opened:
        array = opened.create_dataset("avadataset", (num_rows, 10, 7, 7, 512), np.float32)
        for row in range(num_rows):
            array[row, ..., :4] = visual[row]
    save(root / f"audio_feature{ending}.h5", rng.standard_normal((num_rows, 10, 128)))


def change(root: Path, name: str, at: tuple, value: float) -> None:
    with h5py.File(root / name, "r+") as opened:
        opened["order" if "order" in name else "avadataset"][at] = value


def load(root: Path) -> VideoSet:
    return load_dataset(CONFIG, Location.at(root))


def read(root: Path) -> list[FeatureChunk]:
    source = feature_source("ave_features")
    assert source is not None
    return list(source.read(CONFIG, Location.at(root)))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data folder that no test changes."""
    folder = tmp_path_factory.mktemp("ave_features")
    write(folder)
    return folder


def test_all_published_rows_pass_the_checks_against_the_published_labels(tmp_path):
    lines, columns = published_lines(), published_columns()
    (tmp_path / "Annotations.txt").write_text("\n".join(lines), encoding="utf-8")
    for split in ("train", "val", "test"):
        order = np.loadtxt(FACTS / f"{split}_rows.txt", dtype=int)
        save(tmp_path / f"{split}_order.h5", order, "order")
    save(tmp_path / "mil_labels.h5", np.eye(29, dtype=np.float32)[columns])
    save(tmp_path / "labels.h5", segment_labels(lines, columns))
    for name, shape in (("visual", (7, 7, 512)), ("audio", (128,))):
        with h5py.File(tmp_path / f"{name}_feature.h5", "w") as opened:
            opened.create_dataset("avadataset", (4143, 10, *shape), np.float32)  # not allocated

    videos = load(tmp_path)

    assert [len(videos.split(s)) for s in ("train", "val", "test")] == [3339, 402, 402]
    truth_VTK = videos.segment_labels(videos.split("test"))
    assert (truth_VTK.sum(), truth_VTK[:, :, -1].sum()) == (4020, 715)


def test_event_free_rows_join_the_training_split(root):
    videos = load(root)
    free = [video for video in videos.videos if not video.labels]

    assert [v.video_id for v in free] == [f"noisy_{i:03d}" for i in range(NUM_NOISY)]
    assert {v.split for v in free} == {"train"}
    assert len({v.uri for v in free}) == NUM_NOISY
    assert len(videos.split("train")) == 50 + NUM_NOISY


def test_every_row_is_assigned_to_its_video_in_small_chunks(root):
    lines = published_lines()
    chunks = read(root)

    assert [len(chunk.video_ids) for chunk in chunks] == [32, 32, 6, NUM_NOISY]
    ids = [video_id for chunk in chunks for video_id in chunk.video_ids]
    assert ids[:NUM_ROWS] == [line.split("&")[1] for line in lines[:NUM_ROWS]]
    assert {*ids} == {video.video_id for video in load(root).videos}
    with h5py.File(root / "visual_feature.h5") as opened:
        wanted = opened["avadataset"][40].reshape(10, 49, 512).astype(np.float16)
    np.testing.assert_array_equal(chunks[1].visual_VTRD[8], wanted)
    with h5py.File(root / "audio_feature_noisy.h5") as opened:
        wanted = opened["avadataset"][3].astype(np.float32)
    np.testing.assert_array_equal(chunks[3].audio_VTD[3], wanted)


def test_the_store_contains_the_rows_by_video_id(root, tmp_path):
    source, out = feature_source("ave_features"), Location.at(tmp_path)
    assert source is not None
    counts = import_features(load(root), source, CONFIG, Location.at(root), out)

    assert (counts.num_videos, counts.num_failed) == (NUM_ROWS + NUM_NOISY, 0)
    assert tuple(counts.visual_shape) == (10, 49, 512)
    video_id = published_lines()[33].split("&")[1]
    audio_VTD, visual_VTRD = FeatureStore(out).read([video_id, "noisy_002"])
    with h5py.File(root / "audio_feature.h5") as opened:
        np.testing.assert_array_equal(audio_VTD[0], opened["avadataset"][33].astype(np.float32))
    with h5py.File(root / "visual_feature_noisy.h5") as opened:
        wanted = opened["avadataset"][2].reshape(10, 49, 512).astype(np.float16)
    np.testing.assert_array_equal(visual_VTRD[1], wanted)


def test_a_row_in_no_split_is_not_read(tmp_path):
    write(tmp_path, noisy=False)
    with h5py.File(tmp_path / "train_order.h5") as opened:
        order = opened["order"][:]
    save(tmp_path / "train_order.h5", order[1:], "order")
    lost = published_lines()[order[0]].split("&")[1]

    assert lost not in {video.video_id for video in load(tmp_path).videos}
    assert lost not in {video_id for chunk in read(tmp_path) for video_id in chunk.video_ids}


def test_labels_and_event_free_rows_are_optional(tmp_path):
    write(tmp_path, noisy=False)
    for name in ("labels.h5", "mil_labels.h5"):
        (tmp_path / name).unlink()
    assert all(video.labels for video in load(tmp_path).videos)
    problems = Problems()
    inspect_dataset(CONFIG, Location.at(tmp_path), problems)
    assert [oddity.kind for oddity in problems.oddities if "empty" not in oddity.kind] == [
        "order of rows not verified"
    ]


def test_reordered_annotations_are_refused(tmp_path):
    write(tmp_path, noisy=False)
    lines = sorted(published_lines()[:NUM_ROWS], key=lambda line: line.split("&")[1])
    (tmp_path / "Annotations.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"labels\.h5: row \d+: does not match Annotations\.txt"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("mil_labels.h5", (7, 28), 1.0, r"mil_labels\.h5: row 7: does not match Annotations\.txt"),
        ("labels.h5", (26, 3, 0), 1.0, r"labels\.h5: row 26: does not match Annotations\.txt"),
        ("labels_noisy.h5", (2, 5), 1.0, r"labels_noisy\.h5: row 2: "),
        ("val_order.h5", (0,), 70, r"val_order\.h5: there is no row 70: Annotations\.txt has 70"),
        ("val_order.h5", (0,), -1, r"val_order\.h5: there is no row -1"),
    ],
)
def test_a_label_or_order_that_contradicts_the_annotations_is_refused(
    tmp_path, name, at, value, says
):
    write(tmp_path)
    change(tmp_path, name, at, value)
    with pytest.raises(DatasetError, match=says):
        load(tmp_path)


def test_a_row_in_two_splits_is_refused(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "train_order.h5") as opened:
        row = int(opened["order"][0])
    change(tmp_path, "test_order.h5", (0,), row)
    with pytest.raises(
        DatasetError, match=rf"test_order\.h5: row {row} is already in train_order\.h5"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "at", "value", "row"),
    [
        ("visual_feature.h5", (45, 2, 1, 1, 0), np.nan, 45),
        ("visual_feature.h5", (12, 0, 0, 0, 0), 1e6, 12),
        ("audio_feature.h5", (69, 9, 127), np.inf, 69),
        ("visual_feature_noisy.h5", (4, 0, 0, 0, 0), -np.inf, 4),
    ],
)
def test_a_non_finite_value_is_refused_with_file_and_row(tmp_path, name, at, value, row):
    write(tmp_path)
    change(tmp_path, name, at, value)
    with pytest.raises(DatasetError, match=rf"{name}: row {row}: .*fetch the published file"):
        read(tmp_path)


def test_files_with_wrong_numbers_of_rows_are_reported_together(tmp_path):
    write(tmp_path)
    write_features(tmp_path, "", NUM_ROWS - 1)
    save(tmp_path / "mil_labels.h5", np.zeros((3, 29)))
    with pytest.raises(DatasetError, match=r"3 problem\(s\)") as caught:
        load(tmp_path)
    for name in ("visual_feature.h5", "audio_feature.h5", "mil_labels.h5"):
        assert f"{name}: expected an array of shape ({NUM_ROWS}, " in str(caught.value)


@pytest.mark.parametrize("name", ["visual_feature.h5", "audio_feature.h5", "val_order.h5"])
def test_a_missing_or_damaged_file_is_named(tmp_path, name):
    write(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=rf"{name}: not a complete HDF5 file .*fetch"):
        load(tmp_path)
    save(tmp_path / name, np.zeros(3), "other")
    with pytest.raises(DatasetError, match=rf"{name}: has no array .* only other"):
        load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match=rf"{name}: no such file; data\.root must"):
        load(tmp_path)


def test_a_timeline_that_does_not_match_the_features_is_refused(tmp_path):
    write(tmp_path, noisy=False)
    config = DataConfig(dataset="ave_features", num_segments=8)
    with pytest.raises(DatasetError, match=r"expected an array of shape \(70, 8, 7, 7, 512\)"):
        load_dataset(config, Location.at(tmp_path))


def orders(root: Path) -> dict[str, np.ndarray]:
    made = {}
    for split in ("train", "val", "test"):
        with h5py.File(root / f"{split}_order.h5") as opened:
            made[split] = opened["order"][:]
    return made


@pytest.mark.parametrize(
    "form",
    [
        lambda numbers: numbers.astype(np.float64),
        lambda numbers: numbers.astype(np.float32),
        lambda numbers: numbers.astype(np.uint16),
        lambda numbers: numbers.astype(np.float64)[:, None],
        lambda numbers: numbers[None],
    ],
)
def test_row_numbers_in_the_layouts_of_pandas_and_matlab_are_read(root, tmp_path, form):
    write(tmp_path)
    for split, numbers in orders(tmp_path).items():
        save(tmp_path / f"{split}_order.h5", form(numbers), "order")
    assert load(tmp_path).to_table() == load(root).to_table()


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda numbers: numbers + 0.5, r"has [\d.]+ at position 0, which is not a row number"),
        (lambda numbers: np.append(numbers, np.nan), "has nan at position 10, which is not a row"),
        (lambda numbers: numbers.astype("S"), r"got values of type text in shape \(10,\)"),
        (lambda numbers: numbers > 9, r"got values of type bool in shape \(10,\)"),
        (lambda numbers: np.stack([numbers, numbers]), r"in shape \(2, 10\)"),
        (lambda numbers: numbers[0], r"in shape \(\)"),
        (lambda numbers: numbers[:0], "'order' is empty; every split needs a row"),
        (
            lambda numbers: numbers.astype(float) * 100,
            r"there is no row \d+00: Annotations\.txt has",
        ),
        (lambda numbers: np.append(numbers, numbers[0]), r"row \d+ is already in val_order\.h5"),
    ],
)
def test_an_invalid_list_of_row_numbers_is_refused_with_file_and_remedy(tmp_path, form, says):
    write(tmp_path)
    save(tmp_path / "val_order.h5", form(orders(tmp_path)["val"]), "order")
    with pytest.raises(DatasetError, match=rf"val_order\.h5: .*{says}"):
        load(tmp_path)


def test_unreadable_order_files_are_reported_together(tmp_path):
    write(tmp_path)
    for split, numbers in orders(tmp_path).items():
        save(tmp_path / f"{split}_order.h5", numbers + 0.5, "order")
    with pytest.raises(DatasetError, match=r"3 problem\(s\)"):
        load(tmp_path)


def test_one_based_row_numbers_are_refused(tmp_path):
    write(tmp_path)
    for split, numbers in orders(tmp_path).items():
        save(tmp_path / f"{split}_order.h5", (numbers + 1.0)[None], "order")
    with pytest.raises(DatasetError, match=r"1-based, as in MATLAB.* subtract 1"):
        load(tmp_path)


def test_rows_that_no_split_uses_are_reported_as_an_oddity(tmp_path):
    write(tmp_path, noisy=False)
    order = orders(tmp_path)["train"]
    save(tmp_path / "train_order.h5", order[1:], "order")
    problems = Problems()
    inspect_dataset(CONFIG, Location.at(tmp_path), problems)

    oddities = [o for o in problems.oddities if o.kind == "video in no split"]
    assert [o.where for o in oddities] == [f"{tmp_path}/Annotations.txt:{order[0] + 1}"]


def test_an_hdf5_group_written_by_pandas_is_refused(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "val_order.h5", "w") as opened:
        opened["order/block0_values"] = np.arange(10)
    with pytest.raises(DatasetError, match=r"val_order\.h5: 'order' is a group .*as pandas writes"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["mil_labels.h5", "labels.h5", "labels_noisy.h5"])
def test_labels_may_have_any_numeric_type_but_not_text(root, tmp_path, name):
    write(tmp_path)
    with h5py.File(tmp_path / name) as opened:
        labels = opened["avadataset"][:]
    for dtype in (np.int8, np.float64, bool):
        save(tmp_path / name, labels.astype(dtype))
        assert load(tmp_path).to_table() == load(root).to_table()
    save(tmp_path / name, labels.astype("S1"))
    with pytest.raises(DatasetError, match=rf"{name}: expected 0 and 1 .* got values of type \|S1"):
        load(tmp_path)
