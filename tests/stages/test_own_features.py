"""A user's own features: every layout gives the same features, and mistakes are named."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distributed_avel import load_model
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, validate
from distributed_avel.datasets import VideoSet, load_dataset
from distributed_avel.datasets.checks import survey
from distributed_avel.errors import AvelError, DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.stages.stage import Execution
from distributed_avel.storage import Location

T = 4
SPLITS = {"train": 6, "val": 3, "test": 3}
IDS = [f"{split}/{number}" for split, count in SPLITS.items() for number in range(count)]


def features_of(video_id: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(IDS.index(video_id))
    audio_TD = rng.normal(size=(T, 6)).astype(np.float32)
    return {"audio": audio_TD, "visual": rng.normal(size=(T, 3, 5)).astype(np.float32)}


def write_npy(root: Path, ids=IDS) -> Path:
    for video_id in ids:
        for key, array in features_of(video_id).items():
            file = root / key / f"{video_id}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)
    return root


def write_npz(root: Path, ids=IDS) -> Path:
    for video_id in ids:
        (root / video_id).parent.mkdir(parents=True, exist_ok=True)
        np.savez(root / f"{video_id}.npz", **features_of(video_id))
    return root


def write_h5_folder(root: Path, ids=IDS) -> Path:
    for video_id in ids:
        (root / video_id).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(root / f"{video_id}.h5", "w") as file:
            for key, array in features_of(video_id).items():
                file[key] = array
    return root


def write_h5(root: Path, ids=IDS) -> Path:
    with h5py.File(root / "all.h5", "w") as file:
        for video_id in ids:
            for key, array in features_of(video_id).items():
                file[f"{video_id}/{key}"] = array
    return root / "all.h5"


def write_one_npz(root: Path, ids=IDS) -> Path:
    arrays = {f"{i}/{key}": array for i in ids for key, array in features_of(i).items()}
    np.savez_compressed(root / "all.npz", **arrays)
    return root / "all.npz"


def write_tensors(root: Path, ids=IDS) -> Path:
    columns = {"video_id": pa.array(ids)}
    for key in ("audio", "visual"):
        stacked = np.stack([features_of(video_id)[key] for video_id in ids])
        columns[key] = pa.FixedShapeTensorArray.from_numpy_ndarray(stacked)
    pq.write_table(pa.table(columns), root / "all.parquet")
    return root / "all.parquet"


def write_lists(root: Path, ids=IDS) -> Path:
    features = [features_of(video_id) for video_id in ids]
    columns = {key: pa.array([of[key].tolist() for of in features]) for key in ("audio", "visual")}
    pq.write_table(pa.table({"video_id": ids, **columns}), root / "lists.parquet")
    return root / "lists.parquet"


LAYOUTS = {
    "npy": write_npy,
    "npz": write_npz,
    "h5": write_h5_folder,
    "one h5": write_h5,
    "one npz": write_one_npz,
    "tensors": write_tensors,
    "lists": write_lists,
}


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with a table of videos, but without the videos."""
    rows = ["uri,video_id,split,labels,spans"]
    for video_id in IDS:
        split, number = video_id.split("/")
        label = "" if number == "0" else "ab"[int(number) % 2]
        rows.append(f"{video_id}.mp4,{video_id},{split},{label},{label and f'{label}:0-2'}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "videos.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def config_of(root: Path, features: Path, **data) -> RunConfig:
    return validate(
        {
            "run_dir": str(root.parent / "run"),
            "arms": ["base"],
            "data": {
                "dataset": "folder",
                "root": str(root),
                "features": str(features),
                "num_segments": T,
                **data,
            },
            "model": {"hidden_size": 4},
            "train": {"base_epochs": 1},
            "refine": {"window": 2, "stride": 1},
        },
        "test",
    )


def pipeline(root: Path, features: Path, **data) -> Pipeline:
    config = config_of(root, features, **data)
    return Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))


def videos_of(root: Path) -> VideoSet:
    return load_dataset(config_of(root, root).data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_features(root, tmp_path, layout):
    (tmp_path / "own").mkdir()
    run = pipeline(root, LAYOUTS[layout](tmp_path / "own"))

    stage = run.features.ensure()

    assert (stage.manifest.num_videos, stage.manifest.num_failed) == (len(IDS), 0)
    assert (stage.manifest.audio_shape, stage.manifest.visual_shape) == ((T, 6), (T, 3, 5))
    audio_VTD, visual_VTRD = FeatureStore(stage.location).read(IDS)
    for video_id, audio_TD, visual_TRD in zip(IDS, audio_VTD, visual_VTRD, strict=True):
        expected = features_of(video_id)
        np.testing.assert_array_equal(audio_TD, expected["audio"])
        np.testing.assert_array_equal(visual_TRD, expected["visual"].astype(np.float16))


def test_a_run_trains_on_them_and_its_model_predicts_features(root, tmp_path):
    run = pipeline(root, write_npz(tmp_path / "own"))

    publish(run)

    assert not list(root.glob("*.mp4"))
    model = load_model(tmp_path / "run" / "model")
    features = features_of(IDS[-1])
    assert model.probabilities(features["audio"], features["visual"]).shape == (T, 3)


def test_features_of_one_vector_per_segment_have_one_region(root, tmp_path):
    own = write_npy(tmp_path / "own")
    for file in (own / "visual").rglob("*.npy"):
        np.save(file, np.load(file)[:, 0])

    assert pipeline(root, own).features.ensure().manifest.visual_shape == (T, 1, 5)


def test_a_video_without_features_is_a_failure_that_names_the_file(root, tmp_path):
    own = write_npz(tmp_path / "own", IDS[1:])

    run = pipeline(root, own)
    stage = run.features.ensure()

    (failure,) = stage.failures().to_pylist()
    assert failure["error"] == (f"no {IDS[0]}.npz, {IDS[0]}.h5 or audio/{IDS[0]}.npy in {own}")
    own = write_npy(tmp_path / "pairs")
    (own / "visual" / f"{IDS[0]}.npy").unlink()
    (failure,) = pipeline(root, own).features.ensure().failures().to_pylist()
    assert failure["error"] == f"no visual/{IDS[0]}.npy in {own}"


def test_changed_test_features_leave_the_training_as_it_is(root, tmp_path):
    own = write_npz(tmp_path / "own")

    def fingerprints() -> tuple[str, str, str]:
        run = pipeline(root, own)
        run.features.ensure()
        return (
            run.features.fingerprint,
            run.base(auxiliary=False).fingerprint,
            (run.features.identity(run.usable("test"))),
        )

    before = fingerprints()
    np.savez(own / "test" / "0.npz", audio=np.ones((T, 6)), visual=np.ones((T, 3, 5)))
    after = fingerprints()

    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False]
    np.savez(own / "train" / "0.npz", audio=np.ones((T, 6)), visual=np.ones((T, 3, 5)))
    assert fingerprints()[1] != after[1]


def test_a_new_label_imports_nothing(root, tmp_path):
    own = write_npz(tmp_path / "own")
    before = pipeline(root, own).features.ensure().fingerprint
    table = (root / "videos.csv").read_text()

    (root / "videos.csv").write_text(table.replace("test,b,b:0-2", "test,a,a:0-2"))

    assert pipeline(root, own).features.ensure().fingerprint == before


def test_the_layout_and_the_place_of_equal_features_do_not_change_the_training(root, tmp_path):
    (tmp_path / "own").mkdir()
    runs = [pipeline(root, write(tmp_path / "own")) for write in (write_h5, write_lists)]
    for run in runs:
        run.features.ensure()

    one, other = (run.base(auxiliary=False).fingerprint for run in runs)
    assert one == other


def refusal(root: Path, own: Path, kind: type[AvelError] = DatasetError) -> str:
    with pytest.raises(kind) as refused:
        pipeline(root, own).features.ensure()
    return str(refused.value)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"audio": np.ones((3, 6))}, "`audio` has shape (3, 6), expected (T, D) with T = 4, data."),
        ({"audio": np.ones(4)}, "`audio` has shape (4,), expected (T, D)"),
        ({"visual": np.ones((T, 0, 5))}, "`visual` has shape (4, 0, 5), expected (T, R, D)"),
        ({"audio": np.ones((T, 7))}, "`audio` has widths (7,), but (6,) in "),
        ({"visual": np.ones((T, 2, 5))}, "`visual` has widths (2, 5), but (3, 5) in "),
        ({"audio": np.full((T, 6), np.nan)}, "`audio` has a value that is not finite in float32"),
        ({"visual": np.full((T, 3, 5), 1e6)}, "`visual` has a value that is not finite in float16"),
        ({"audio": np.full((T, 6), "x")}, "`audio` has values of type <U1, expected floats"),
        ({"sound": np.ones((T, 6)), "audio": None}, "has no array 'audio', only sound, visual"),
        ({"audio": np.array([[{}] * 6] * T)}, "cannot be read as features (Object arrays cannot"),
    ],
)
def test_a_wrong_array_is_refused_with_file_array_and_expected_shape(root, tmp_path, arrays, says):
    own = write_npz(tmp_path / "own")
    values = {"visual": np.ones((T, 3, 5)), "audio": np.ones((T, 6)), **arrays}
    file = own / "val" / "1.npz"
    np.savez(file, **{key: value for key, value in values.items() if value is not None})

    message = refusal(root, own)

    assert str(file) in message
    assert says in message


def test_damaged_files_and_pickles_are_refused(root, tmp_path):
    own = write_npy(tmp_path / "own")
    file = own / "audio" / "train" / "0.npy"
    for content in (b"", b"\x93NUMPY", b"\x80\x04N.", file.read_bytes()[:-3]):
        file.write_bytes(content)
        assert f"{file}: cannot be read as features (" in refusal(root, own)
    for write in (write_h5, write_one_npz, write_tensors):
        table = write(tmp_path)
        table.write_bytes(table.read_bytes()[:-40])
        assert f"{table}: cannot be read as features (" in refusal(root, table)


def test_two_layouts_of_one_video_are_refused(root, tmp_path):
    own = write_npz(tmp_path / "own")
    write_npy(own, IDS[:1])

    assert f"'{IDS[0]}' has features in {IDS[0]}.npz and audio/{IDS[0]}.npy" in refusal(root, own)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"audio": None}, "has no column 'audio', only video_id, visual"),
        ({"audio": pa.array([b"x"] * len(IDS))}, "column 'audio' has the type binary, expected a"),
        ({"audio": pa.array([[[1.0], [1.0, 2.0]]] * len(IDS))}, "`audio` has lists of different"),
        ({"audio": pa.array([None] * len(IDS), pa.list_(pa.float32()))}, "`audio` is null"),
        ({"video_id": pa.array([IDS[0]] * len(IDS))}, f"'{IDS[0]}' has two rows"),
        ({"video_id": pa.array(range(len(IDS)))}, "column 'video_id' has the type int64"),
    ],
)
def test_wrong_columns_of_a_table_are_refused(root, tmp_path, columns, says):
    file = write_tensors(tmp_path)
    table = {name: pq.read_table(file)[name] for name in ("video_id", "audio", "visual")}
    changed = {name: value for name, value in {**table, **columns}.items() if value is not None}
    pq.write_table(pa.table(changed), file)

    assert says in refusal(root, file)


@pytest.mark.parametrize(
    ("name", "says"),
    [("none", "no such file or folder"), ("a.csv", "not a folder, and not a file")],
)
def test_a_place_that_holds_no_features_is_refused(root, tmp_path, name, says):
    (tmp_path / "a.csv").write_text("x")

    assert f"data.features: {tmp_path / name}: {says}" in refusal(root, tmp_path / name)


def test_a_data_check_lists_the_videos_without_features(root, tmp_path):
    videos, own = videos_of(root), write_npz(tmp_path / "own", IDS[1:])

    files = survey(videos, Location.at(root), Location.at(own))

    assert (len(files.missing), files.empty) == (1, [])
    assert files.missing[0].startswith(f"no {IDS[0]}.npz")


def test_short_videos_are_kept_with_their_length_on_request(root, tmp_path):
    own = write_npz(tmp_path / "own")
    short = {key: array[:3] for key, array in features_of(IDS[0]).items()}
    np.savez(own / f"{IDS[0]}.npz", **short)
    assert "`audio` has shape (3, 6), expected (T, D) with T = 4" in refusal(root, own)

    run = pipeline(root, own, short_videos="keep")
    stage = run.features.ensure()

    assert stage.manifest.num_short == 1
    assert FeatureStore(stage.location).lengths(IDS[:2]).tolist() == [3, T]
    audio_VTD, _ = FeatureStore(stage.location).read(IDS[:1])
    np.testing.assert_array_equal(audio_VTD[0], [*short["audio"], np.zeros(6)])
    publish(run)
    np.savez(own / f"{IDS[0]}.npz", **{**short, "audio": short["audio"][:2]})
    with pytest.raises(DatasetError, match="`audio` has 2 segments, `visual` 3; compute both"):
        pipeline(root, own, short_videos="keep").features.ensure()
