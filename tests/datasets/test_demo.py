from collections import Counter

import numpy as np
import pytest

from distributed_avel.config import DataConfig, DemoConfig, ExtractConfig
from distributed_avel.datasets import load_dataset
from distributed_avel.datasets.demo import (
    demo_specs,
    is_rendered,
    render_demo,
    render_into,
    render_video,
    write_layout,
)
from distributed_avel.datasets.demo_scene import CLASSES, draw
from distributed_avel.errors import DatasetError
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

SMALL = DemoConfig(num_train=3, num_event_free=2, num_val=1, num_test=2)
MANY = demo_specs(DemoConfig(num_train=2_000, num_event_free=500))
EVENTS = [spec for spec in MANY if spec.label is not None]
EVENT_FREE = [spec for spec in MANY if spec.label is None]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Location:
    root = Location.at(tmp_path_factory.mktemp("demo"))
    render_demo(SMALL, root)
    return root


def test_exactly_the_segments_of_an_event_are_audible_and_visible():
    for spec in EVENTS:
        both = [t for t in range(10) if spec.script.seen[t] == spec.script.heard[t] == spec.label]
        assert both == list(range(spec.start, spec.end))


def test_exactly_the_videos_with_an_event_have_the_scene_of_its_class():
    assert all(spec.script.place == spec.label for spec in EVENTS)
    assert all(spec.script.place is None for spec in EVENT_FREE)


def test_background_segments_are_audio_only_visual_only_or_empty():
    kinds, distracted, num_alone = Counter(), 0, 0
    for spec in EVENTS:
        for t in set(range(10)) - set(range(spec.start, spec.end)):
            seen, heard = spec.script.seen[t], spec.script.heard[t]
            kinds[seen == spec.label, heard == spec.label] += 1
            if spec.label in (seen, heard):
                num_alone += 1
                distracted += None not in (seen, heard)
    total = sum(kinds.values())
    assert kinds[True, True] == 0
    assert kinds[True, False] / total == pytest.approx(0.2, abs=0.02)
    assert kinds[False, True] / total == pytest.approx(0.2, abs=0.02)
    assert distracted / num_alone == pytest.approx(0.2, abs=0.03)


def test_event_free_videos_have_different_audio_and_visual_classes():
    for spec in EVENT_FREE:
        seen = {c for c in spec.script.seen if c is not None}
        heard = {c for c in spec.script.heard if c is not None}
        assert spec.split == "train"
        assert not seen & heard
        assert len(seen) <= 1
        assert len(heard) <= 1


def test_spans_are_whole_videos_or_mostly_at_a_border():
    lengths = np.array([spec.end - spec.start for spec in EVENTS])
    part = [spec for spec in EVENTS if spec.end - spec.start < 10]

    assert 0.4 < np.mean(lengths == 10) < 0.6
    assert set(lengths) == set(range(2, 11))
    at_start, at_end = (np.mean([f(s) for s in part]) for f in (_starts, _ends))
    assert at_start == pytest.approx(0.36, abs=0.04)
    assert at_end == pytest.approx(0.48, abs=0.05)


def _starts(spec):
    return spec.start == 0


def _ends(spec):
    return spec.end == 10


def test_a_video_does_not_depend_on_the_number_of_videos():
    few = {spec.video_id: spec for spec in demo_specs(SMALL)}
    many = {spec.video_id: spec for spec in MANY}
    assert all(many[video_id] == spec for video_id, spec in few.items())


def test_another_seed_gives_different_videos_and_ids():
    other = demo_specs(SMALL.model_copy(update={"seed": 1}))
    assert not {s.video_id for s in other} & {s.video_id for s in demo_specs(SMALL)}
    assert [s.script for s in other] != [s.script for s in demo_specs(SMALL)]


def test_rendering_is_deterministic():
    spec = demo_specs(SMALL)[0]
    assert render_video(spec) == render_video(spec)


def test_an_event_changes_frames_and_audio_in_its_segments_only():
    spec = next(s for s in EVENTS if s.start == 0 and s.end == 4)
    frames_FPP3, wave_1N = draw(spec.script, np.random.default_rng(spec.seed))
    quiet_T = [spec.script.heard[t] is None for t in range(10)]
    # without the sharp edges of a shape, consecutive seconds look alike
    change_T = [np.ptp(frames_FPP3[8 * t : 8 * t + 8].max(axis=-1)) for t in range(10)]

    loud_T = np.sqrt(np.mean(wave_1N.reshape(10, -1) ** 2, axis=1))
    assert loud_T[:4].min() > loud_T[quiet_T].max()
    empty_T = [spec.script.seen[t] is None for t in range(10)]
    assert np.min(change_T[:4]) > np.array(change_T)[empty_T].max()


def test_rendered_videos_are_complete_and_can_be_extracted(rendered):
    extractor = Descriptors(Timeline(num_segments=10, segment_s=1.0), ExtractConfig())
    for spec in demo_specs(SMALL):
        audio_TD, visual_TRD = extractor.prepare((rendered / spec.file).read_bytes())
        assert np.isfinite(audio_TD).all()
        assert np.isfinite(visual_TRD).all()


def test_it_loads_as_a_synthetic_data_set(rendered):
    config = DataConfig(dataset="demo", root=str(rendered), demo=SMALL)
    videos = load_dataset(config, rendered)

    assert videos.synthetic
    assert videos.name == "demo"
    assert [len(videos.split(s)) for s in ("train", "val", "test")] == [3 + 2, 1, 2]
    assert set(videos.classes) == {CLASSES[i].name for i in range(3)}
    assert all((rendered / video.uri).exists() for video in videos.videos)
    specs = {spec.video_id: spec for spec in demo_specs(SMALL)}
    for video in videos.videos:
        spec = specs[video.video_id]
        has_event_T = ~videos.segment_labels([video])[0, :, -1]
        assert np.flatnonzero(has_event_T).tolist() == list(range(spec.start, spec.end))


def test_interrupted_rendering_continues(tmp_path):
    root = Location.at(tmp_path)
    first = demo_specs(SMALL)[0]
    render_into(first, root)
    kept = (tmp_path / first.file).stat().st_mtime_ns
    assert not is_rendered(SMALL, root)
    with pytest.raises(DatasetError, match="7 of 8 demo videos are not rendered"):
        write_layout(SMALL, root)

    seen = []
    render_demo(SMALL, root, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(i, 8) for i in range(1, 9)]
    assert (tmp_path / first.file).stat().st_mtime_ns == kept
    assert is_rendered(SMALL, root)


def test_a_layout_without_its_marker_is_completed(tmp_path):
    root = Location.at(tmp_path)
    render_demo(SMALL, root)
    (tmp_path / "demo.json").unlink()
    (tmp_path / "testSet.txt").unlink()

    assert not is_rendered(SMALL, root)
    render_demo(SMALL, root)
    assert is_rendered(SMALL, root)


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_train": 4}])
def test_other_settings_are_refused_in_a_rendered_folder(rendered, change):
    with pytest.raises(DatasetError, match=r"demo\.json: rendered with .*, expected .*; choose"):
        render_demo(SMALL.model_copy(update=change), rendered)


def test_a_folder_with_another_data_set_is_not_modified(tmp_path):
    (tmp_path / "Annotations.txt").write_text("Bark&bbb&good&2&5\n")
    with pytest.raises(DatasetError, match="belongs to another data set"):
        render_demo(SMALL, Location.at(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["Annotations.txt"]


def test_a_timeline_of_another_length_is_refused(tmp_path):
    config = DataConfig(dataset="demo", num_segments=8)
    with pytest.raises(DatasetError, match="must be 10 s"):
        load_dataset(config, Location.at(tmp_path))
