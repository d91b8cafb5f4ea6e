"""The feature store returns features by video id."""

import numpy as np
import pyarrow as pa
import pytest

from distributed_avel.errors import ArtifactError
from distributed_avel.features.store import INDEX, PARTS, FeatureStore
from distributed_avel.schema import features_schema, tensor_column
from distributed_avel.storage import Location

PARTS_OF_IDS = {"000000.parquet": ["d", "a", "c"], "000001.parquet": ["b"], "000002.parquet": ["e"]}


@pytest.fixture(params=["a local folder", "object storage"])
def location(request, tmp_path) -> Location:
    """Features of five videos in three files; the values are derived from the id."""
    uri = tmp_path if request.param == "a local folder" else f"memory://{tmp_path.name}"
    folder = Location.at(uri)
    schema = features_schema(audio=(2, 3), visual=(2, 4, 5))
    for part, ids in PARTS_OF_IDS.items():
        columns = [
            pa.array(ids),
            tensor_column([audio_of(i) for i in ids], schema.field("audio").type),
            tensor_column([visual_of(i) for i in ids], schema.field("visual").type),
        ]
        (folder / PARTS / part).write_table(pa.Table.from_arrays(columns, schema=schema))
    rows = [{"video_id": i, "part": part} for part, ids in PARTS_OF_IDS.items() for i in ids]
    (folder / INDEX).write_table(pa.Table.from_pylist(rows))
    return folder


def audio_of(video_id: str) -> np.ndarray:
    return (np.arange(6).reshape(2, 3) + 100 * ord(video_id)).astype(np.float32)


def visual_of(video_id: str) -> np.ndarray:
    return (np.arange(40).reshape(2, 4, 5) + ord(video_id)).astype(np.float16)


@pytest.mark.parametrize(
    "video_ids", [["a"], list("abcde"), list("ecadb"), list("abab"), ["e", "b"]]
)
def test_features_are_returned_in_the_order_of_the_ids_with_repetitions(location, video_ids):
    audio_VTD, visual_VTRD = FeatureStore(location).read(video_ids)

    assert audio_VTD.dtype == np.float32
    assert visual_VTRD.dtype == np.float16
    assert np.array_equal(audio_VTD, [audio_of(i) for i in video_ids])
    assert np.array_equal(visual_VTRD, [visual_of(i) for i in video_ids])


def test_the_store_tells_which_videos_it_contains(location):
    store = FeatureStore(location)

    assert [video_id in store for video_id in "abcdefg"] == [True] * 5 + [False] * 2


def test_a_missing_video_is_named_with_the_number_of_missing_ones(location):
    with pytest.raises(ArtifactError, match=r"no features of 'x' \(2 videos\)"):
        FeatureStore(location).read(["a", "x", "b", "y"])


def test_an_empty_list_of_ids_is_refused(location):
    with pytest.raises(ArtifactError, match="no features of an empty list"):
        FeatureStore(location).read([])


def test_rows_that_are_not_in_the_index_are_never_read(tmp_path):
    """Example: a file copied from an extraction before a media file was replaced."""
    folder = Location.at(tmp_path)
    schema = features_schema((1, 1), (1, 1, 1))
    for part, values in (("old", {"a": 1.0, "b": 2.0}), ("new", {"b": 3.0}), ("z", {"b": 4.0})):
        arrays = [np.full((1, 1), value, np.float32) for value in values.values()]
        columns = [
            pa.array(values, pa.string()),
            tensor_column(arrays, schema.field("audio").type),
            tensor_column(
                [a[None].astype(np.float16) for a in arrays], schema.field("visual").type
            ),
        ]
        (folder / PARTS / part).write_table(pa.Table.from_arrays(columns, schema=schema))
    (folder / INDEX).write_table(pa.table({"video_id": ["a", "b"], "part": ["old", "new"]}))

    audio_VTD, visual_VTRD = FeatureStore(folder).read(["b", "a", "b"])

    assert audio_VTD.ravel().tolist() == [3.0, 1.0, 3.0]
    assert visual_VTRD.ravel().tolist() == [3.0, 1.0, 3.0]
