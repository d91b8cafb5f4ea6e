"""Segment probabilities of videos of any length, from features."""

import numpy as np
import pytest
import torch

from distributed_avel.models import model_names
from distributed_avel.predict.inference import WindowScorer, merge_phases
from tests.predict.folders import T, feature_model, random_features


def window_starts(num_video_segments: int, num_segments: int) -> list[int]:
    """Return the first segments of the windows that cover a video, all at once.

    Windows of `num_segments` overlap by half; the last one ends with the video.
    """
    last = max(0, num_video_segments - num_segments)
    return [*range(0, last, max(1, num_segments // 2)), last]


class CodesAreAudio(torch.nn.Module):
    """A model whose codes are the audio features."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode(self, audio_BTD, visual_BTRD):
        return audio_BTD


class RecordingTask:
    """A task whose probabilities are the codes; it records the first code of each window."""

    def __init__(self) -> None:
        self.starts: list[int] = []

    def segment_prob(self, model, codes_1TD):
        self.starts.append(int(codes_1TD[0, 0, 0]))
        return codes_1TD


@pytest.mark.parametrize("num_segments", [1, 2, 3, 4, 7, 10, 60])
@pytest.mark.parametrize("num_video_segments", [*range(1, 35), 59, 60, 61, 119, 1200])
def test_windows_cover_exactly_the_segments_of_the_video(num_video_segments, num_segments):
    task = RecordingTask()
    index_MD = np.arange(num_video_segments, dtype=np.float32)[:, None]
    scorer = WindowScorer(task, CodesAreAudio(), num_segments)
    scorer.add(index_MD, index_MD[:, None].astype(np.float16))

    np.testing.assert_array_equal(scorer.finish(), index_MD)
    starts = task.starts
    assert starts == window_starts(num_video_segments, num_segments)
    covered = np.zeros(num_video_segments, dtype=int)
    for start in starts:
        covered[start : start + num_segments] += 1
    assert (covered > 0).all()
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    if num_video_segments <= num_segments:
        assert starts == [0]
    else:
        assert starts[-1] == num_video_segments - num_segments  # all windows are whole
        assert (np.diff(starts) <= max(1, num_segments // 2)).all()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: feature_model(root / name, name) for name in ("ave", "han")}


@pytest.mark.parametrize("num_video_segments", [1, 3, T - 1, T, T + 1, 14, 15, 2 * T, 37])
@pytest.mark.parametrize("name", ["ave", "han"])
def test_probabilities_are_the_mean_over_windows(models, name, num_video_segments):
    model = models[name]
    audio_MD, visual_MRD = random_features(num_video_segments)

    found_MK = model.probabilities(audio_MD, visual_MRD)

    of_segment: list[list[np.ndarray]] = [[] for _ in range(num_video_segments)]
    for start in window_starts(num_video_segments, T):
        with torch.no_grad():
            codes_1TD = model.model.encode(
                torch.from_numpy(audio_MD[None, start : start + T]),
                torch.from_numpy(visual_MRD[None, start : start + T].astype(np.float32)),
            )
            prob_TK = model.task.segment_prob(model.model, codes_1TD)[0]
        for offset, prob_K in enumerate(prob_TK.double().numpy()):
            of_segment[start + offset].append(prob_K)
    expected_MK = np.stack([np.mean(of_one, axis=0) for of_one in of_segment])
    assert found_MK.dtype == np.float32
    assert found_MK.shape == expected_MK.shape
    # Another order of float32 sums rounds differently; a wrong window would differ by 1e-2.
    np.testing.assert_allclose(found_MK, expected_MK, rtol=1e-4, atol=1e-5)
    if name == "ave":
        np.testing.assert_allclose(found_MK.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("num_video_segments", [1, T, T + 1, 14, 2 * T, 53])
@pytest.mark.parametrize("lengths", [[1], [3, 7], [T], [T, 1, 2 * T + 3]])
def test_probabilities_do_not_depend_on_the_pieces_in_which_features_arrive(
    models, num_video_segments, lengths
):
    model = models["ave"]
    audio_MD, visual_MRD = random_features(num_video_segments)
    scorer = WindowScorer(model.task, model.model, T)

    start, number = 0, 0
    while start < num_video_segments:
        end = start + lengths[number % len(lengths)]
        scorer.add(audio_MD[start:end], visual_MRD[start:end])
        start, number = end, number + 1

    expected_MK = model.probabilities(audio_MD, visual_MRD)
    np.testing.assert_array_equal(scorer.finish(), expected_MK)


def test_a_long_video_leaves_no_features_or_codes_behind(models):
    model = models["ave"]
    scorer = WindowScorer(model.task, model.model, T)

    for _ in range(50):
        scorer.add(*random_features(T))

    assert len(scorer._audio_MD) <= T
    assert scorer._codes_1MD.shape[1] <= 2 * T
    assert scorer.finish().shape[0] == 50 * T


@pytest.mark.parametrize("name", model_names())
def test_every_model_predicts_shorter_and_longer_videos(name, tmp_path):
    model = feature_model(tmp_path, name)

    for num_video_segments in (1, 2, T, 2 * T + 3):
        prob_MK = model.probabilities(*random_features(num_video_segments))
        assert prob_MK.shape[0] == num_video_segments
        assert np.isfinite(prob_MK).all()
        assert ((prob_MK >= 0) & (prob_MK <= 1)).all()


@pytest.mark.parametrize("name", ["ave", "han"])
def test_a_prediction_does_not_depend_on_features_in_other_windows(models, name):
    """Segments 0 to 4 are in the first window only, so the end of the video must not matter."""
    audio_MD, visual_MRD = random_features(3 * T)
    before_MK = models[name].probabilities(audio_MD, visual_MRD)

    audio_MD[T:], visual_MRD[T:] = -audio_MD[T:], -visual_MRD[T:]
    after_MK = models[name].probabilities(audio_MD, visual_MRD)

    np.testing.assert_array_equal(before_MK[: T // 2], after_MK[: T // 2])
    assert (before_MK[T:] != after_MK[T:]).any()


@pytest.mark.parametrize("lengths", [[4], [4, 3], [4, 4], [4, 4, 3, 3], [1, 0, 0]])
def test_merged_timelines_average_the_segments_that_cover_an_interval(lengths):
    rng = np.random.default_rng(0)
    prob_of_phase = [rng.uniform(size=(length, 2)).astype(np.float32) for length in lengths]

    merged_IK = merge_phases(prob_of_phase)

    num_phases = len(lengths)
    assert len(merged_IK) == num_phases * lengths[0]
    for interval, prob_K in enumerate(merged_IK):
        covering = [
            prob_MK[(interval - phase) // num_phases]
            for phase, prob_MK in enumerate(prob_of_phase)
            if 0 <= interval - phase < num_phases * len(prob_MK)
        ]
        np.testing.assert_allclose(prob_K, np.mean(covering, axis=0), rtol=1e-6)
