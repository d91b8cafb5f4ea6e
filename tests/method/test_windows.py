"""Windows, and synthetic videos spliced from two videos."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distributed_avel.method.windows import (
    mix_codes,
    most_windows,
    resampled,
    score_synthetic,
    valid_segments,
    valid_windows,
    window_mask,
    windows_of_length,
)
from tests.models.examples import features, small_model

VALID = {
    (num_segments, window, stride)
    for num_segments in range(3, 25)
    for window in range(2, num_segments)
    for stride in range(1, num_segments)
    if window < (num_segments + 1) / 2 and (num_segments - window) % stride == 0
}


def test_windows_of_ave_as_a_worked_example():
    mask_WT = window_mask(10, window=4, stride=2).astype(int)

    assert ["".join(map(str, row)) for row in mask_WT] == [
        "1111000000",
        "0011110000",
        "0000111100",
        "0000001111",
    ]


@given(st.sampled_from(sorted(VALID)))
def test_windows_have_the_requested_length_stride_and_number(numbers):
    num_segments, window, stride = numbers
    mask_WT = window_mask(*numbers)

    assert mask_WT.shape == ((num_segments - window) // stride + 1, num_segments)
    starts = mask_WT.argmax(axis=1)
    assert starts.tolist() == list(range(0, num_segments - window + 1, stride))
    for start, row in zip(starts, mask_WT, strict=True):
        assert np.flatnonzero(row).tolist() == list(range(start, start + window))


@given(st.sampled_from(sorted(VALID)))
def test_windows_cover_the_first_and_the_last_segment(numbers):
    _, window, stride = numbers
    mask_WT = window_mask(*numbers)

    assert mask_WT[0, 0]
    assert mask_WT[-1, -1]
    assert mask_WT.any(axis=0).all() == (stride <= window or len(mask_WT) == 1)


@given(st.sampled_from(sorted(VALID)))
def test_synthetic_videos_together_contain_every_segment_of_the_partner(numbers):
    """Equation 14; this is why a window must be shorter than half of the video."""
    assert (~window_mask(*numbers)).any(axis=0).all()


def test_exactly_the_valid_windows_and_strides_are_accepted():
    for numbers in product(range(1, 25), range(-1, 25), range(-1, 25)):
        if numbers in VALID:
            window_mask(*numbers)
        else:
            with pytest.raises(ValueError, match=r"window must be|stride must divide"):
                window_mask(*numbers)


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 1), (2, 8)])
def test_mixing_codes_equals_splicing_features(window, stride):
    generator = np.random.default_rng(0)
    ours_BTD, partners_BTD = generator.normal(size=(2, 3, 10, 5))
    starts = range(0, 10 - window + 1, stride)
    pasted_BWTD = np.stack([[video] * len(starts) for video in partners_BTD])
    for video in range(3):
        for number, start in enumerate(starts):
            pasted_BWTD[video, number, start : start + window] = ours_BTD[
                video, start : start + window
            ]

    mask_WT = torch.from_numpy(window_mask(10, window, stride))
    mixed_BWTD = mix_codes(torch.from_numpy(ours_BTD), torch.from_numpy(partners_BTD), mask_WT)

    assert np.array_equal(mixed_BWTD.numpy(), pasted_BWTD)


@torch.no_grad()
def test_scores_of_synthetic_videos_keep_their_order():
    model = small_model("ave", torch.float64)
    codes = model.encode(*features(3, dtype=torch.float64, seed=1))
    partner_codes = model.encode(*features(3, dtype=torch.float64, seed=2))
    mask_WT = torch.from_numpy(window_mask(10, 3, 1))

    scores_BWTK = score_synthetic(model, codes, partner_codes, mask_WT)

    assert scores_BWTK.shape == (3, 8, 10, 5)
    for video in range(3):
        for number, inside_T in enumerate(mask_WT):
            alone = torch.where(inside_T[:, None], codes[video], partner_codes[video])
            torch.testing.assert_close(
                scores_BWTK[video, number], model.score(alone[None])[0], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("num_segments", [*range(1, 13), 37])
@pytest.mark.parametrize(("window", "stride"), [(2, 1), (4, 2), (5, 5)])
def test_windows_of_any_length_cover_every_segment_of_video_and_partner(
    num_segments, window, stride
):
    mask_WT = windows_of_length(num_segments, window, stride)

    assert mask_WT.any(axis=0).all()
    assert mask_WT.any(axis=1).all()
    windows_of = partial(windows_of_length, window=window, stride=stride)
    assert len(mask_WT) <= most_windows(windows_of, 40)
    if num_segments > 1:
        assert (~mask_WT).any(axis=0).all()
    if window < (num_segments + 1) / 2 and (num_segments - window) % stride == 0:
        np.testing.assert_array_equal(mask_WT, window_mask(num_segments, window, stride))


def test_windows_of_seven_segments_by_hand():
    mask_WT = windows_of_length(7, window=4, stride=2)

    assert [np.flatnonzero(row).tolist() for row in mask_WT] == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]


def test_valid_segments_and_windows_by_hand():
    lengths_V = np.array([10, 1, 7])

    valid_VT = valid_segments(lengths_V, 10)
    valid_VW = valid_windows(lengths_V, partial(windows_of_length, window=4, stride=2), 10)

    assert valid_VT.sum(axis=1).tolist() == [10, 1, 7]
    assert valid_VW.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("num_segments", "of_partner", "segments"),
    [(3, 3, [0, 1, 2]), (4, 2, [0, 0, 1, 1]), (2, 6, [0, 3]), (5, 1, [0] * 5)],
)
def test_partners_are_resampled_evenly(num_segments, of_partner, segments):
    assert resampled(num_segments, of_partner).tolist() == segments
