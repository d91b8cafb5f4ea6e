"""Features given by a data set are imported unchanged."""

from collections.abc import Iterator

import numpy as np
import pytest

from distributed_avel.config import DataConfig, SyntheticConfig
from distributed_avel.datasets import feature_source, load_dataset
from distributed_avel.datasets.base import FeatureChunk, FeatureSource
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.stages.extract import FAILURES_FILE
from distributed_avel.stages.import_features import import_features
from distributed_avel.storage import Location

CONFIG = DataConfig(
    dataset="synthetic",
    synthetic=SyntheticConfig(num_train=70, num_event_free=5, num_val=3, num_test=4),
)
NOWHERE = Location.at("/nowhere")


def test_the_store_contains_the_features_of_the_data_set(tmp_path):
    videos, out = load_dataset(CONFIG, NOWHERE), Location.at(tmp_path)
    source = feature_source("synthetic")
    assert source is not None
    chunks = list(source.read(CONFIG, NOWHERE))

    counts = import_features(videos, source, CONFIG, NOWHERE, out)

    assert counts.num_videos == 82
    assert (counts.num_failed, (out / FAILURES_FILE).read_table().num_rows) == (0, 0)
    assert (counts.audio_shape, counts.visual_shape) == ((10, 32), (10, 9, 64))
    wanted = [chunks[1].video_ids[3], chunks[0].video_ids[5]]
    audio_VTD, visual_VTRD = FeatureStore(out).read(wanted)
    np.testing.assert_array_equal(audio_VTD[0], chunks[1].audio_VTD[3])
    np.testing.assert_array_equal(visual_VTRD[1], chunks[0].visual_VTRD[5])


def test_a_video_without_features_is_a_failure_with_a_reason(tmp_path):
    videos, out = load_dataset(CONFIG, NOWHERE), Location.at(tmp_path)

    def first_chunk(config: DataConfig, root: Location) -> Iterator[FeatureChunk]:
        source = feature_source("synthetic")
        assert source is not None
        yield next(source.read(config, root))

    counts = import_features(videos, FeatureSource(first_chunk, lambda _: ()), CONFIG, NOWHERE, out)

    failures = (out / FAILURES_FILE).read_table().to_pylist()
    assert counts.num_failed == len(failures) == 18
    assert {failure["error"] for failure in failures} == {"the data set has no features of it"}


def test_features_of_a_wrong_shape_are_refused_with_the_video(tmp_path):
    videos = load_dataset(CONFIG, NOWHERE)

    def uneven(config: DataConfig, root: Location) -> Iterator[FeatureChunk]:
        for number, segments in enumerate((10, 9)):
            yield FeatureChunk(
                video_ids=[videos.videos[number].video_id],
                audio_VTD=np.zeros((1, segments, 4), np.float32),
                visual_VTRD=np.zeros((1, segments, 2, 3), np.float16),
            )

    with pytest.raises(DatasetError, match=f"{videos.videos[1].video_id}: expected arrays"):
        import_features(
            videos, FeatureSource(uneven, lambda _: ()), CONFIG, NOWHERE, Location.at(tmp_path)
        )
