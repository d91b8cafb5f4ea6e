"""Partner videos share no label and no file with the video, in any order of drawing."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distributed_avel.errors import DatasetError
from distributed_avel.method.partners import PartnerPool

NUM_CLASSES = 4


def labels(*classes: str) -> np.ndarray:
    """Make multi-hot labels from class names; no name means background."""
    names = ["dog", "bell", "car", "frog"]
    rows = np.array([[name in video.split() for name in names] for video in classes])
    return np.concatenate([rows, ~rows.any(axis=1, keepdims=True)], axis=1)


@st.composite
def training_videos(draw):
    """Labels and files of a few videos; some share a file, as in AVE."""
    subsets = st.sets(st.integers(0, NUM_CLASSES - 1), max_size=2)
    videos = draw(st.lists(st.tuples(subsets, st.integers(0, 5)), min_size=1, max_size=12))
    labels_VK = np.zeros((len(videos), NUM_CLASSES + 1), dtype=bool)
    for row, (classes, _) in zip(labels_VK, videos, strict=True):
        row[list(classes) or [NUM_CLASSES]] = True
    return labels_VK, [f"{file}.mp4" for _, file in videos]


def possible_partners(labels_VK, files, kind, index) -> set[int]:
    """Return all valid partners, by a loop; a file has the labels of all its videos."""

    def of_file(video) -> np.ndarray:
        rows = [row for row, file in zip(labels_VK, files, strict=True) if file == files[video]]
        return np.any(rows, axis=0)

    found = set()
    event_free = {i for i in range(len(files)) if not of_file(i)[:-1].any()}
    for other in range(len(files)):
        if any(labels_VK[index] & of_file(other)) or files[other] == files[index]:
            continue
        has_event = not labels_VK[index][-1]
        if kind == "event_free" and event_free and has_event and other not in event_free:
            continue
        found.add(other)
    return found


def test_a_file_that_has_the_event_in_another_video_is_not_a_partner():
    labels_VK = labels("dog", "bell", "dog", "car")
    pool = PartnerPool(labels_VK, ["a", "b", "b", "c"], "disjoint")

    assert {pool.draw(labels_VK[0], "a", number) for number in range(12)} == {3}


@pytest.mark.parametrize("kind", ["event_free", "disjoint"])
@given(videos=training_videos())
def test_exactly_the_possible_partners_are_drawn(kind, videos):
    labels_VK, files = videos
    pool = PartnerPool(labels_VK, files, kind)

    for index, file in enumerate(files):
        possible = possible_partners(labels_VK, files, kind, index)
        if possible:
            drawn = {pool.draw(labels_VK[index], file, number) for number in range(24)}
            assert drawn == possible
        else:
            with pytest.raises(DatasetError, match=file):
                pool.draw(labels_VK[index], file, 0)


@given(videos=training_videos(), number=st.integers(0, 2**64 - 1))
def test_a_partner_shares_no_label_and_no_file(videos, number):
    labels_VK, files = videos
    assume(possible_partners(labels_VK, files, "event_free", 0))

    partner = PartnerPool(labels_VK, files, "event_free").draw(labels_VK[0], files[0], number)

    assert not (labels_VK[0] & labels_VK[partner]).any()
    assert files[0] != files[partner]


def test_an_event_free_partner_is_preferred():
    labels_VK = labels("dog", "bell", "", "car", "")
    files = list("abcde")

    def drawn(kind: str) -> set[int]:
        pool = PartnerPool(labels_VK, files, kind)
        return {pool.draw(labels_VK[0], "a", number) for number in range(20)}

    assert drawn("event_free") == {2, 4}
    assert drawn("disjoint") == {1, 2, 3, 4}


def test_without_event_free_videos_any_disjoint_video_is_a_partner():
    labels_VK = labels("dog", "bell", "dog car", "car")
    pool = PartnerPool(labels_VK, list("abcd"), "event_free")

    assert {pool.draw(labels_VK[0], "a", number) for number in range(20)} == {1, 3}


def test_the_partner_of_an_event_free_video_has_an_event():
    labels_VK = labels("dog", "", "")
    pool = PartnerPool(labels_VK, list("abc"), "event_free")

    assert {pool.draw(labels_VK[1], "b", number) for number in range(20)} == {0}


def test_a_draw_depends_on_its_number_and_not_on_earlier_draws():
    labels_VK = labels("dog", "bell", "", "car", "", "frog dog")
    files = list("abcdef")
    numbers = [(i, n) for n in (0, 3, 2**63 + 5) for i in range(6)]

    def draws(order: list) -> dict:
        pool = PartnerPool(labels_VK, files, "disjoint")
        return {(i, n): pool.draw(labels_VK[i], files[i], n) for i, n in order}

    assert draws(numbers) == draws(numbers[::-1])
    assert draws(numbers[:3]).items() <= draws(numbers).items()


def test_a_video_outside_the_pool_gets_a_partner():
    """Validation videos are relabelled with partners from the training split."""
    pool = PartnerPool(labels("dog", "bell"), ["a", "b"], "event_free")

    assert pool.draw(labels("dog")[0], "validation", 7) == 1


def test_a_video_without_any_partner_is_named_with_the_remedy():
    labels_VK = labels("dog", "dog", "dog bell")
    pool = PartnerPool(labels_VK, ["a.mp4", "b.mp4", "c.mp4"], "event_free")

    with pytest.raises(DatasetError, match=r"b\.mp4: .* add training videos of other classes"):
        pool.draw(labels_VK[1], "b.mp4", 0)


def test_partners_with_an_event_are_no_longer_than_the_video_if_possible():
    """Of a longer partner, segments are skipped, and its event may be among them."""
    labels_VK = np.eye(3, dtype=bool)[[0, 0, 1, 2]]  # dog, dog, bell, background
    files, lengths_V = ["0", "1", "2", "3"], np.array([4, 9, 6, 30])
    pool = PartnerPool(labels_VK, files, "event_free", lengths_V)

    def partners(video: int, num_segments: int) -> set[int]:
        draws = (pool.draw(labels_VK[video], files[video], n, num_segments) for n in range(9))
        return set(draws)

    assert partners(0, 4) == {3}  # without an event, any length
    assert partners(3, 5) == {0}
    assert partners(3, 6) == {0, 2}
    assert partners(3, 2) == {0, 1, 2}  # none is short enough
