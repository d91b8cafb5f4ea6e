"""Pseudo-labels from window probabilities, and the ground truth of windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.method.pseudo_labels import filter_scores, pseudo_labels, window_truth
from distributed_avel.method.windows import window_mask


def random_case(seed: int, videos: int = 4, windows: int = 3, classes: int = 5):
    generator = np.random.default_rng(seed)
    prob_VWK = generator.dirichlet(np.ones(classes + 1), size=(videos, windows))
    labels_VK = generator.random((videos, classes + 1)) < 0.4
    labels_VK[:, -1] = ~labels_VK[:, :-1].any(axis=1)
    return prob_VWK, labels_VK


def test_a_window_without_a_detected_event_is_background():
    #                     dog  bell  background
    scores_VWK = np.array(
        [
            [
                [0.6, 0.3, 0.1],  # dog
                [0.1, 0.8, 0.1],  # a bell, but the video has none: background
                [0.5, 0.0, 0.5],  # just enough of a dog
                [0.1, 0.1, 0.8],
            ]
        ]
    )  # nothing: background
    labels_VK = np.array([[True, False, False]])

    labels_VWK = pseudo_labels(scores_VWK, labels_VK, threshold=0.5)

    dog, background = [True, False, False], [False, False, True]
    assert labels_VWK.tolist() == [[dog, background, dog, background]]


def test_a_window_may_have_several_events():
    scores_VWK = np.array([[[0.4, 0.5, 0.1]]])

    assert pseudo_labels(scores_VWK, np.array([[1, 1, 0]], dtype=bool), 0.3).tolist() == [
        [[True, True, False]]
    ]


def test_every_window_of_an_event_free_video_is_background():
    scores_VWK = np.array([[[0.9, 0.1, 0.0]]])

    assert pseudo_labels(scores_VWK, np.array([[0, 0, 1]], dtype=bool), 0.05).tolist() == [
        [[False, False, True]]
    ]


@given(seed=st.integers(0, 10_000), threshold=st.floats(0.01, 0.99))
def test_pseudo_labels_agree_with_a_plain_loop(seed, threshold):
    prob_VWK, labels_VK = random_case(seed)
    scores_VWK = filter_scores(prob_VWK, labels_VK)

    labels_VWK = pseudo_labels(scores_VWK, labels_VK, threshold)

    for video in range(4):
        for window in range(3):
            expected = [
                bool(labels_VK[video, c]) and float(scores_VWK[video, window, c]) >= threshold
                for c in range(5)
            ]
            assert labels_VWK[video, window].tolist() == [*expected, not any(expected)]


@given(seed=st.integers(0, 10_000), threshold=st.floats(0.01, 0.99))
def test_filtering_labels_before_or_after_thresholding_is_equivalent(seed, threshold):
    prob_VWK, labels_VK = random_case(seed)
    prob_VWK = prob_VWK.astype(np.float32)

    filtered = pseudo_labels(filter_scores(prob_VWK, labels_VK), labels_VK, threshold)

    assert np.array_equal(filtered, pseudo_labels(prob_VWK, labels_VK, threshold))


@given(seed=st.integers(0, 10_000), low=st.floats(0.01, 0.98), step=st.floats(0.0, 0.5))
def test_a_higher_threshold_only_removes_events(seed, low, step):
    prob_VWK, labels_VK = random_case(seed)
    events = [pseudo_labels(prob_VWK, labels_VK, t)[..., :-1] for t in (low, low + step)]

    assert (events[1] <= events[0]).all()


@given(seed=st.integers(0, 10_000))
def test_z_hat_is_the_probability_of_labelled_classes_and_zero_of_others(seed):
    prob_VWK, labels_VK = random_case(seed)

    scores_VWK = filter_scores(prob_VWK, labels_VK)

    assert scores_VWK.dtype == np.float32
    for video in range(4):
        for k in range(6):
            expected = prob_VWK[video, :, k].astype(np.float32) if labels_VK[video, k] else 0.0
            assert (scores_VWK[video, :, k] == expected).all()


# Ground truth of windows


def test_window_truth_of_a_worked_example():
    #               segments 0..5:  dog dog  -  bell  -   -
    segments = np.array([[[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1]]])

    truth_VWK = window_truth(segments.astype(bool), window_mask(6, window=2, stride=1))

    dog, bell, background = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert truth_VWK.astype(int).tolist() == [[dog, dog, bell, bell, background]]


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 1)])
@given(seed=st.integers(0, 10_000))
def test_window_truth_agrees_with_a_plain_loop(window, stride, seed):
    labels_VTK = np.random.default_rng(seed).random((3, 10, 5)) < 0.1
    labels_VTK[..., -1] = ~labels_VTK[..., :-1].any(axis=-1)

    truth_VWK = window_truth(labels_VTK, window_mask(10, window, stride))

    for video in range(3):
        for number, start in enumerate(range(0, 10 - window + 1, stride)):
            inside = range(start, start + window)
            expected = [any(labels_VTK[video, t, c] for t in inside) for c in range(4)]
            assert truth_VWK[video, number].tolist() == [*expected, not any(expected)]
