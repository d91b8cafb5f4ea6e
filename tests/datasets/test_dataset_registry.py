"""Tests that run for every registered data set."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from distributed_avel.config import Config, DataConfig
from distributed_avel.datasets import (
    Problems,
    VideoSet,
    dataset_names,
    dataset_reader,
    feature_source,
    inspect_dataset,
    load_dataset,
    unread_sections,
)
from distributed_avel.datasets.checks import check
from distributed_avel.errors import ConfigError, DatasetError
from distributed_avel.storage import Location
from tests.datasets.examples import EXAMPLES


@pytest.fixture(scope="module", params=dataset_names())
def example(request, tmp_path_factory) -> tuple[DataConfig, Location]:
    root = tmp_path_factory.mktemp(request.param)
    return EXAMPLES[request.param](root), Location.at(root)


@pytest.fixture
def videos(example) -> VideoSet:
    return load_dataset(*example)


def test_splits_are_disjoint_by_id_and_not_empty(videos):
    ids = [{v.video_id for v in videos.split(split)} for split in ("train", "val", "test")]

    assert all(ids)
    assert sum(map(len, ids)) == len(set.union(*ids)) == len(videos.videos)


def test_all_labels_are_known_classes(videos):
    known = range(videos.num_classes)
    for video in videos.videos:
        assert {*video.labels} <= {*known}
        for spans in (video.spans, video.audio_spans, video.visual_spans):
            assert {span.label for span in spans or ()} <= {*known}


def test_spans_are_inside_the_video(videos):
    for video in videos.videos:
        for spans in (video.spans, video.audio_spans, video.visual_spans):
            for span in spans or ():
                assert 0 <= span.start_s < span.end_s <= videos.timeline.duration_s


def test_validation_and_test_videos_have_consistent_segment_labels(videos):
    for split in ("val", "test"):
        labels_VTK = videos.segment_labels(videos.split(split))
        assert labels_VTK.shape[1:] == (videos.timeline.num_segments, videos.num_classes + 1)
        events_VT = labels_VTK[:, :, :-1].any(axis=2)
        np.testing.assert_array_equal(labels_VTK[:, :, -1], ~events_VT)


def test_a_video_set_survives_a_round_trip_through_a_table(videos):
    again = VideoSet.from_table(
        videos.to_table(),
        name=videos.name,
        classes=videos.classes,
        timeline=videos.timeline,
        synthetic=videos.synthetic,
    )
    for split in ("train", "val", "test"):
        assert again.split(split) == videos.split(split)


@pytest.mark.parametrize("name", [name for name in dataset_names() if feature_source(name)])
def test_given_features_cover_the_videos_and_match_the_timeline(name, tmp_path):
    config, root = EXAMPLES[name](tmp_path), Location.at(tmp_path)
    videos, source = load_dataset(config, root), feature_source(name)
    assert source is not None
    ids = []
    for chunk in source.read(config, root):
        ids += chunk.video_ids
        for array, num_axes in ((chunk.audio_VTD, 3), (chunk.visual_VTRD, 4)):
            assert array.ndim == num_axes
            assert array.shape[:2] == (len(chunk.video_ids), config.num_segments)
    assert sorted(ids) == sorted(video.video_id for video in videos.videos)
    missing = [name for name in source.files_of(videos) if not (root / name).exists()]
    assert not missing


def test_a_data_set_reads_only_its_own_section(example):
    """Cache keys omit the other sections; if a data set read one, results would be stale."""
    config, root = example
    sections = {n for n, v in vars(config).items() if isinstance(v, Config)}
    unread = unread_sections(config.dataset)
    assert len(sections - unread) <= 1
    bare = SimpleNamespace(**{n: v for n, v in vars(config).items() if n not in unread})

    problems = Problems()
    dataset_reader(config.dataset)(cast("DataConfig", bare), root, problems)
    if source := feature_source(config.dataset):
        assert list(source.read(cast("DataConfig", bare), root))
    assert problems.errors == []


def test_revisions_of_the_synthetic_data_share_one_section():
    revisions = ("synthetic", "synthetic_easy")

    assert {frozenset(unread_sections(name)) for name in revisions} == {
        frozenset({"demo", "synthetic_llp"})
    }


def test_a_valid_example_has_no_unusable_rows(example):
    config, root = example
    problems = Problems()
    videos = inspect_dataset(config, root, problems)

    assert problems.errors == []
    assert {"unusable", "file in two splits"}.isdisjoint(check(videos, problems).counts())


def test_a_given_split_replaces_the_published_one(example, videos, tmp_path):
    config, root = example
    swapped = {
        "train": videos.split("test"),
        "val": videos.split("val"),
        "test": [v for v in videos.split("train") if v.spans is not None],
    }
    swapped["test"] = swapped["test"] or videos.split("train")
    for split, of_split in swapped.items():
        lines = "".join(f"{video.video_id}\n" for video in of_split)
        (tmp_path / f"{split}.txt").write_text(lines)

    other = load_dataset(config.model_copy(update={"split": str(tmp_path)}), root)

    for split, of_split in swapped.items():
        assert other.split(split) == [replace(video, split=split) for video in of_split]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"val": "nobody\n"}, r"val\.txt:1: folder has no video 'nobody'"),
        ({"val": "a.mp4\n"}, r"val\.txt:1: 'a\.mp4' is already in train\.txt"),
        ({"test": "\n"}, r"test\.txt: lists no video"),
        ({"test": None}, r"test\.txt: no such file; data\.split must be a folder with train"),
    ],
)
def test_an_invalid_split_is_refused(tmp_path, change, says):
    config = EXAMPLES["folder"](tmp_path)
    files = {"train": "a.mp4\n", "val": "c.mp4\n", "test": "d.mp4\n", **change}
    for split, text in files.items():
        if text is not None:
            (tmp_path / f"{split}.txt").write_text(text)
    with pytest.raises(DatasetError, match=says):
        load_dataset(config.model_copy(update={"split": str(tmp_path)}), Location.at(str(tmp_path)))


def test_an_unknown_data_set_is_refused_with_the_list_of_data_sets():
    with pytest.raises(ConfigError, match="no data set 'avee'; there are: ave, ave_features, "):
        load_dataset(DataConfig(dataset="avee"), Location.at("/nowhere"))
