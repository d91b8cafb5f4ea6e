import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distributed_avel.config import ExtractConfig
from distributed_avel.features.base import extractor_class
from distributed_avel.features.descriptors import Descriptors, describe_audio, describe_frames
from distributed_avel.media.write import write_mp4
from distributed_avel.timeline import Timeline

TIMELINE = Timeline(num_segments=10, segment_s=1.0)
RATE_HZ = 16_000


def pictures(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(30, 220, (80, 7, 7, 3))
    return np.kron(blocks, np.ones((1, 16, 16, 1))).astype(np.uint8)


def sound(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (1, 160_000)).astype(np.float32)


def describe(frames: np.ndarray, wave_1N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return Descriptors(TIMELINE, ExtractConfig()).prepare(
        write_mp4(frames, 8, wave_1N, RATE_HZ, crf=1)
    )


def test_descriptors_are_registered():
    assert extractor_class("descriptors") is Descriptors


def test_features_are_finite_and_deterministic():
    extractor = Descriptors(TIMELINE, ExtractConfig())
    media = write_mp4(pictures(), 8, sound(), RATE_HZ)

    prepared = pickle.loads(pickle.dumps(extractor.prepare(media)))
    (features,) = extractor.embed([prepared])

    assert features.audio_TD.shape == extractor.shapes.audio == (10, 128)
    assert features.visual_TRD.shape == extractor.shapes.visual == (10, 49, 16)
    assert features.audio_TD.dtype == np.float32
    assert features.visual_TRD.dtype == np.float16
    assert np.isfinite(features.audio_TD).all()
    assert np.isfinite(features.visual_TRD).all()
    again = extractor.prepare(media)
    np.testing.assert_array_equal(again[0], features.audio_TD)
    np.testing.assert_array_equal(again[1], features.visual_TRD)


def test_features_have_one_row_per_segment_of_another_timeline():
    extractor = Descriptors(Timeline(num_segments=5, segment_s=2.0), ExtractConfig())

    audio_TD, visual_TRD = extractor.prepare(write_mp4(pictures(), 8, sound(), RATE_HZ))

    assert audio_TD.shape == extractor.shapes.audio == (5, 128)
    assert visual_TRD.shape == extractor.shapes.visual == (5, 49, 16)


def test_features_have_about_unit_scale():
    audio_TD, visual_TRD = describe(pictures(), sound())

    assert 0.1 < np.abs(audio_TD).mean() < 3
    assert 0.1 < np.abs(visual_TRD.astype(np.float32)).mean() < 3


@pytest.mark.parametrize("segment", [0, 3, 9])
def test_other_frames_in_a_segment_change_only_its_row(segment):
    """Uses decoded frames, because encoding to mp4 mixes adjacent frames slightly."""
    frames, other = pictures(0), pictures(1)
    changed = frames.copy()
    span = slice(8 * segment, 8 * segment + 8)
    changed[span] = other[span]

    def rows(frames_F):
        ones = np.ones(8, dtype=int)
        return [describe_frames(frames_F[8 * t : 8 * t + 8], ones) for t in range(10)]

    same = [np.array_equal(a, b) for a, b in zip(rows(frames), rows(changed), strict=True)]
    assert same == [t != segment for t in range(10)]


def test_a_change_of_one_segment_of_a_file_changes_only_its_features():
    frames, wave_1N = pictures(0), sound(0)
    changed, changed_wave = frames.copy(), wave_1N.copy()
    changed[24:32] = 255 - changed[24:32]
    # without the first and last 100 ms, which AAC mixes with adjacent segments
    changed_wave[:, 49_600:62_400] = 0.8 * np.sin(np.arange(12_800) * 0.3)

    audio, visual = describe(frames, wave_1N)
    audio_2, visual_2 = describe(changed, changed_wave)

    audio_change_T = np.abs(audio - audio_2).max(axis=1)
    visual_change_T = np.abs(visual.astype(float) - visual_2).mean(axis=(1, 2))
    others = np.arange(10) != 3
    assert audio_change_T[3] > 10 * audio_change_T[others].max()
    assert visual_change_T[3] > 10 * visual_change_T[others].max()


@settings(max_examples=20)
@given(
    waves_TN=arrays(np.float32, (4, 1_000), elements=st.floats(-1, 1, width=32)),
    segment=st.integers(0, 3),
)
def test_audio_features_of_a_segment_depend_on_that_segment_only(waves_TN, segment):
    changed = waves_TN.copy()
    changed[segment] = 0.5 - changed[segment]

    before, after = describe_audio(waves_TN), describe_audio(changed)

    others = np.arange(4) != segment
    np.testing.assert_array_equal(before[others], after[others])
    assert np.isfinite(after).all()


def test_features_of_a_region_depend_on_that_region_only():
    frames = np.full((4, 112, 112, 3), 100, dtype=np.uint8)
    plain = describe_frames(frames, np.ones(4, dtype=int))
    frames[:, 36:44, 52:60] = [250, 100, 100]  # inside region (2, 3)

    seen = describe_frames(frames, np.ones(4, dtype=int))

    assert np.flatnonzero((seen != plain).any(axis=1)).tolist() == [2 * 7 + 3]
    assert seen[17, 0] > plain[17, 0]  # redder
    assert seen[17, 1] == pytest.approx(plain[17, 1], abs=1e-5)  # as green as before


def test_motion_features_differ_between_still_and_moving_frames():
    still = np.repeat(pictures()[:1], 8, axis=0)
    moving = still.copy()
    moving[4:, 32:48, 32:48] = 255

    change_of_still = describe_frames(still, np.ones(8, dtype=int))[:, 11:]
    change_of_moving = describe_frames(moving, np.ones(8, dtype=int))[:, 11:]

    assert np.unique(change_of_still).size == 1
    moved_R = (change_of_moving > change_of_still).any(axis=1)
    assert np.flatnonzero(moved_R).tolist() == [2 * 7 + 2]


def test_a_frame_sampled_twice_counts_twice():
    frames = pictures()[:2]

    weighted = describe_frames(frames, np.array([2, 1]))
    repeated = describe_frames(frames[[0, 0, 1]], np.array([1, 1, 1]))

    np.testing.assert_allclose(weighted[:, :11], repeated[:, :11], atol=1e-4)


def test_a_single_frame_has_finite_features():
    assert np.isfinite(describe_frames(pictures()[:1], np.array([16]))).all()
