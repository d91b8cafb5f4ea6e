"""Synthetic features for parsing: times of events, and signals of events in the features."""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distributed_avel.commands import check as check_data
from distributed_avel.config import DataConfig, SyntheticLlpConfig
from distributed_avel.datasets import VideoSet, feature_source, load_dataset
from distributed_avel.datasets.synthetic_llp import (
    AUDIO_DIM,
    FRAME_DIM,
    VISUAL_DIM,
    Script,
    draw,
    prototype,
    scripts,
)
from distributed_avel.errors import DatasetError
from distributed_avel.models import create_model
from distributed_avel.models.han import Han
from distributed_avel.storage import Location

NOWHERE = Location.at("/nowhere")
LLP = Path(__file__).parents[1] / "data" / "llp"
CONFIG = "synthetic_llp"
SMALL = SyntheticLlpConfig(num_train=60, num_event_free=5, num_val=3, num_test=4)
MANY = SyntheticLlpConfig(num_train=1, num_val=1, num_test=4_000)
SCRIPTS = scripts(MANY)


def load(sizes: SyntheticLlpConfig) -> VideoSet:
    return load_dataset(DataConfig(dataset="synthetic_llp", synthetic_llp=sizes), NOWHERE)


@pytest.fixture(scope="module")
def many() -> VideoSet:
    return load(MANY)


def runs(events_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return start and end of each run of True values."""
    steps_T = np.diff(events_T.astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps_T == 1), np.flatnonzero(steps_T == -1)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def share(values: Iterable[bool | np.bool_]) -> float:
    return float(np.mean([bool(value) for value in values]))


def statistics(videos: VideoSet) -> dict[str, float]:
    """Return statistics of the audio and visual events of validation and test videos."""
    heard_VTC, seen_VTC = videos.modality_labels(videos.split("val") + videos.split("test"))
    num_V = (heard_VTC | seen_VTC).any(axis=1).sum(axis=1)
    found = {f"{n} events": share(num_V == n) for n in (1, 2, 3, 4)}
    events = [
        (num_V[v] == 1, heard_VTC[v, :, c], seen_VTC[v, :, c])
        for v, c in np.argwhere((heard_VTC | seen_VTC).any(axis=1))
    ]
    both = [(h, s) for _, h, s in events if h.any() and s.any()]
    in_part = [(h, s) for h, s in both if not h.all() and not s.all()]
    found |= {
        "both, alone": share(h.any() and s.any() for alone, h, s in events if alone),
        "both, among others": share(h.any() and s.any() for alone, h, s in events if not alone),
        "seen only, among others": share(not h.any() for alone, h, _ in events if not alone),
        "both throughout": share(h.all() and s.all() for h, s in both),
        "seen throughout, heard in part": share(s.all() and not h.all() for h, s in both),
        "heard throughout, seen in part": share(h.all() and not s.all() for h, s in both),
        "same times": share((h == s).all() for h, s in in_part),
        "heard only, throughout": share(h.all() for _, h, s in events if not s.any()),
        "seen only, throughout": share(s.all() for _, h, s in events if not h.any()),
        "segments with an event": share((heard_VTC | seen_VTC).any(axis=2).ravel()),
    }
    for modality, of_events in (
        ("heard", [h for _, h, _ in events if h.any()]),
        ("seen", [s for _, _, s in events if s.any()]),
    ):
        partial = [events_T for events_T in of_events if not events_T.all()]
        spans = [span for events_T in partial for span in runs(events_T)]
        found[f"{modality} throughout"] = 1 - len(partial) / len(of_events)
        found[f"{modality}, one span"] = share(len(runs(events_T)) == 1 for events_T in partial)
        found[f"{modality}, two spans"] = share(len(runs(events_T)) == 2 for events_T in partial)
        for seconds in range(1, 10):
            number = f"{seconds} s"
            found[f"{modality}, {number}"] = share(
                events_T.sum() == seconds for events_T in partial
            )
            found[f"{modality}, a span of {number}"] = share(b - a == seconds for a, b in spans)
        found[f"{modality} at the start"] = share(a == 0 for a, _ in spans)
        found[f"{modality} at the end"] = share(b == 10 for _, b in spans)
    return found


def likeness(features_TD: NDArray, prototype_D: NDArray) -> NDArray[np.float64]:
    """Return the projection of each segment on a prototype, shape (T,)."""
    return features_TD.astype(np.float64) @ prototype_D / (prototype_D @ prototype_D)


@cache
def features(script: Script) -> dict[str, NDArray]:
    """Return the features of a video by modality, (T, D) each."""
    audio_TD, visual_TRD = draw(script, seed=0)
    return {"heard": audio_TD, "seen": visual_TRD[:, 0]}


def happens(script: Script, modality: str) -> dict[int, NDArray[np.bool_]]:
    """Return a mask (T,) of the segments of each event of the script in a modality."""
    found = {}
    for event in script.events:
        events_T = np.zeros(10, dtype=bool)
        for start, end in {"heard": event.heard, "seen": event.seen}[modality]:
            events_T[start:end] = True
        found[event.label] = events_T
    return found


def test_audio_and_visual_events_are_distributed_as_in_llp(many):
    published = load_dataset(DataConfig(dataset="llp", root=str(LLP)), Location.at(LLP))

    assert statistics(many) == pytest.approx(statistics(published), abs=0.07)


def test_all_classes_are_about_equally_frequent(many):
    counts = Counter(label for video in many.videos for label in video.labels)

    assert len(counts) == 25
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_labels_are_the_events_of_either_modality(many):
    videos = many.split("test")
    heard_VTC, seen_VTC = many.modality_labels(videos)
    labels_VK = many.video_labels(videos)

    assert heard_VTC.shape == seen_VTC.shape == (4_000, 10, 25)
    np.testing.assert_array_equal((heard_VTC | seen_VTC).any(axis=1), labels_VK[:, :-1])
    np.testing.assert_array_equal(heard_VTC & seen_VTC, many.segment_labels(videos)[..., :-1])


def test_an_audio_visual_event_overlaps_in_at_least_one_segment():
    for script in SCRIPTS:
        heard, seen = happens(script, "heard"), happens(script, "seen")
        for label in heard:
            if heard[label].any() and seen[label].any():
                assert (heard[label] & seen[label]).any()


def test_spans_of_an_event_are_ordered_and_separated():
    for script in SCRIPTS:
        for spans in (spans for event in script.events for spans in (event.heard, event.seen)):
            ends = [0, *(end for _, end in spans)]
            assert all(start < end <= 10 for start, end in spans)
            assert all(start > end for (start, _), end in zip(spans[1:], ends[1:], strict=False))


def test_training_videos_have_video_level_labels_only():
    videos = load(SMALL)

    for video in videos.split("train"):
        assert video.spans is video.audio_spans is video.visual_spans is None
        assert bool(video.labels) == ("eventfree" not in video.video_id)
    with pytest.raises(DatasetError, match="no segment annotation"):
        videos.modality_labels(videos.split("train"))


def test_event_free_videos_exist_on_request_only():
    assert all(script.events for script in scripts(SyntheticLlpConfig()))
    free = [script for script in scripts(SMALL) if not script.events]
    assert len(free) == 5
    assert {script.split for script in free} == {"train"}


@pytest.mark.parametrize("modality", ["heard", "seen"])
def test_an_event_is_in_the_features_of_its_segments_only(modality):
    inside, outside = [], []
    for script in SCRIPTS[:400]:
        features_TD = features(script)[modality]
        for label, events_T in happens(script, modality).items():
            found_T = likeness(features_TD, prototype(0, modality, label))
            inside += found_T[events_T].tolist()
            outside += found_T[~events_T].tolist()

    assert np.mean(inside) == pytest.approx(1.0, abs=0.1)
    assert np.mean(outside) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("modality", ["heard", "seen"])
def test_the_context_of_a_label_is_in_every_segment_of_both_modalities(modality):
    present, absent, free = [], [], []
    for script in SCRIPTS[:400]:
        features_TD = features(script)[modality]
        for label, events_T in happens(script, modality).items():
            found_T = likeness(features_TD, prototype(0, f"context {modality}", label))
            present += found_T[events_T].tolist()
            absent += found_T[~events_T].tolist()
    for script in scripts(SMALL)[-5:]:
        mean_D = prototype(0, f"context {modality}", 0)
        free += likeness(features(script)[modality], mean_D).tolist()

    assert np.mean(present) == pytest.approx(0.5, abs=0.1)
    assert np.mean(absent) == pytest.approx(0.5, abs=0.1)
    assert np.mean(free) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(
    ("modality", "part"),
    [("heard", slice(None)), ("seen", slice(FRAME_DIM)), ("seen", slice(FRAME_DIM, None))],
    ids=["audio", "frames", "motion"],
)
def test_the_nearest_prototype_is_usually_that_of_the_event(modality, part):
    means_CD = np.stack([prototype(0, modality, label)[part] for label in range(25)])
    means_CD /= np.linalg.norm(means_CD, axis=1, keepdims=True)
    right = []
    for script in SCRIPTS[:400]:
        features_TD = features(script)[modality][:, part].astype(np.float64)
        events_CT = happens(script, modality)
        for segment in range(10):
            true = {label for label, events_T in events_CT.items() if events_T[segment]}
            if len(true) == 1:
                right.append(int((means_CD @ features_TD[segment]).argmax()) in true)

    assert len(right) > 1_000
    assert np.mean(right) > 0.8  # by chance 0.04


def test_a_video_does_not_depend_on_the_number_of_videos():
    few = {script.video_id: script for script in scripts(SMALL)}
    many = {script.video_id: script for script in scripts(SyntheticLlpConfig(num_event_free=9))}

    assert all(many[video_id] == script for video_id, script in few.items())
    script = few["llp1s0_test_0002"]
    before = draw(script, 0)
    draw(few["llp1s0_test_0001"], 0)
    for again, array in zip(draw(script, 0), before, strict=True):
        np.testing.assert_array_equal(again, array)
    assert not np.array_equal(draw(script, 1)[0], before[0])
    assert len({script.video_id for script in scripts(SyntheticLlpConfig(seed=1))} & {*many}) == 0


def test_features_are_read_in_chunks_and_han_splits_frames_and_motion():
    config = DataConfig(dataset="synthetic_llp", synthetic_llp=SMALL)
    source = feature_source("synthetic_llp")
    assert source is not None
    chunks = list(source.read(config, NOWHERE))
    audio_VTD = torch.from_numpy(chunks[0].audio_VTD)
    visual_VTRD = torch.from_numpy(chunks[0].visual_VTRD).float()

    assert [len(chunk.video_ids) for chunk in chunks] == [64, 8]
    assert audio_VTD.shape == (64, 10, AUDIO_DIM)
    assert visual_VTRD.shape == (64, 10, 1, VISUAL_DIM)
    sizes = {"num_classes": 25, "visual_dim": VISUAL_DIM, "audio_dim": AUDIO_DIM, "regions": 1}
    model = create_model("han", **sizes)
    assert isinstance(model, Han)
    assert model.visual_sizes == [FRAME_DIM, VISUAL_DIM - FRAME_DIM]
    scores_VTMPC = model.score(model.encode(audio_VTD, visual_VTRD))
    assert scores_VTMPC.shape == (64, 10, 2, 3, 25)


def test_the_data_check_finds_no_problem(capsys):
    assert check_data(["--config", str(CONFIG)]) == 0
    assert "No problems found." in capsys.readouterr().out


def test_another_timeline_is_refused():
    config = DataConfig(dataset="synthetic_llp", num_segments=20, segment_s=0.5)
    with pytest.raises(DatasetError, match=r"num_segments and data\.segment_s must be 10 and 1"):
        load_dataset(config, NOWHERE)
