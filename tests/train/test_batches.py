"""Global batches are equal for any number of workers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.train.batches import Batch, EpochPlan, worker_batches
from tests.train.examples import plan, training_set

sizes = st.integers(4, 11)
batch_sizes = st.integers(1, 12)
worker_counts = st.integers(1, 5)


def shares_of(videos, epoch: EpochPlan, num_workers: int) -> list[list[Batch]]:
    """Return the batches of each worker."""
    return [
        list(worker_batches(videos, epoch, rank=r, num_workers=num_workers, dtype=torch.float64))
        for r in range(num_workers)
    ]


def videos_of(batch: Batch) -> list[int]:
    """Return the indices of a worker's videos, which `training_set` writes into the features."""
    return batch.audio_NTD[: batch.num_videos, 0, 0].int().tolist()


def partners_of(batch: Batch) -> list[int]:
    assert batch.partner_B is not None
    return batch.audio_NTD[batch.num_videos :, 0, 0].int()[batch.partner_B].tolist()


@given(num_videos=sizes, batch_size=batch_sizes, num_workers=worker_counts)
def test_batches_of_all_workers_together_are_the_global_batch(num_videos, batch_size, num_workers):
    videos, epoch = training_set(num_videos), plan(batch_size=batch_size)
    (alone,) = shares_of(videos, epoch, 1)

    for whole, *shares in zip(alone, *shares_of(videos, epoch, num_workers), strict=True):
        together = [
            (video, partner)
            for share in shares
            for video, partner, weight in zip(
                videos_of(share), partners_of(share), share.weight_B, strict=True
            )
            if weight
        ]
        assert sorted(together) == sorted(zip(videos_of(whole), partners_of(whole), strict=True))


@given(num_videos=sizes, batch_size=batch_sizes, num_workers=worker_counts)
def test_every_worker_gets_equally_many_batches_and_no_empty_one(
    num_videos, batch_size, num_workers
):
    shares = shares_of(training_set(num_videos), plan(batch_size=batch_size), num_workers)

    assert {len(batches) for batches in shares} == {-(-num_videos // batch_size)}
    assert min(batch.num_videos for batches in shares for batch in batches) >= 1


@given(num_videos=sizes, batch_size=batch_sizes, num_workers=worker_counts)
def test_weights_make_the_mean_over_workers_equal_the_mean_over_the_batch(
    num_videos, batch_size, num_workers
):
    shares = shares_of(training_set(num_videos), plan(batch_size=batch_size), num_workers)

    for batches in zip(*shares, strict=True):
        size = len({video for b in batches for video in videos_of(b)})
        total = torch.cat([batch.weight_B for batch in batches]).sum() / num_workers
        assert float(total) == pytest.approx(1)
        for batch in batches:
            assert all(w in (0, num_workers / size) for w in batch.weight_B.tolist())


def test_the_batch_of_a_worker_without_a_video_has_weight_zero():
    shares = shares_of(training_set(7), plan(batch_size=3), num_workers=2)

    last = [batches[-1] for batches in shares]
    assert [batch.weight_B.tolist() for batch in last] == [[2.0], [0.0]]


@given(num_videos=sizes, batch_size=batch_sizes, epoch=st.integers(0, 5))
def test_every_video_is_seen_once_in_an_epoch(num_videos, batch_size, epoch):
    batches = plan(epoch, batch_size=batch_size).global_batches(num_videos)

    assert sorted(np.concatenate(batches)) == list(range(num_videos))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


def test_order_and_partners_depend_on_epoch_and_seed_and_are_repeatable():
    videos = training_set(40, partners="disjoint")

    def seen(**settings) -> list:
        (batches,) = shares_of(videos, plan(batch_size=40, **settings), 1)
        order = videos_of(batches[0])
        partner = dict(zip(order, partners_of(batches[0]), strict=True))
        return [order, [partner[video] for video in range(40)]]

    first = seen(epoch=0)

    assert seen(epoch=0) == first
    for other in (seen(epoch=1), seen(epoch=0, seed=1)):
        assert other[0] != first[0]
        assert other[1] != first[1]


def test_the_partner_does_not_depend_on_the_batch_size():
    videos = training_set(9, partners="disjoint")
    partners = []
    for batch_size in (2, 9):
        (batches,) = shares_of(videos, plan(batch_size=batch_size), 1)
        pairs = [zip(videos_of(b), partners_of(b), strict=True) for b in batches]
        partners.append(sorted(pair for some in pairs for pair in some))

    assert partners[0] == partners[1]


def test_a_batch_contains_the_features_and_labels_of_its_videos():
    videos = training_set(9, window_labels=True)
    assert videos.window_labels_VWK is not None

    for batches in shares_of(videos, plan(batch_size=4), num_workers=2):
        for batch in batches:
            own, partners = videos_of(batch), partners_of(batch)
            rows = [*own, *sorted(set(partners))]  # a partner of several videos appears once
            assert np.array_equal(batch.audio_NTD, videos.audio_VTD[rows])
            assert np.array_equal(batch.visual_NTRD, videos.visual_VTRD[rows])
            assert np.array_equal(batch.labels_BK, videos.labels_VK[own])
            union_BK = videos.labels_VK[own] | videos.labels_VK[partners]
            assert batch.union_BK is not None
            assert np.array_equal(batch.union_BK[:, :-1], union_BK[:, :-1])
            assert np.array_equal(batch.window_labels_BWK, videos.window_labels_VWK[own])


def test_features_have_the_dtype_of_the_model():
    for dtype in (torch.float32, torch.float64):
        batch = next(
            worker_batches(training_set(4), plan(), rank=0, num_workers=1, dtype=dtype)
        ).to(torch.device("cpu"))
        assert {batch.audio_NTD.dtype, batch.visual_NTRD.dtype, batch.weight_B.dtype} == {dtype}


def test_without_partners_and_pseudo_labels_a_batch_has_none():
    (batches,) = shares_of(training_set(4, partners=None), plan(batch_size=4), 1)

    assert batches[0].partner_B is None
    assert batches[0].union_BK is None
    assert batches[0].window_labels_BWK is None
    assert len(batches[0].audio_NTD) == 4
