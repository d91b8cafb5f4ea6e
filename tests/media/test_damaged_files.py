"""Decoding a damaged file gives a MediaError or finite arrays, and nothing else.

Files that hang or crash the decoder are handled by the decoding process; see
`tests/features/test_decoder_pool.py`.
"""

import numpy as np
import pytest
from media.clips import TIMELINE, clip

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import MediaError
from distributed_avel.features.descriptors import Descriptors

EXTRACTOR = Descriptors(TIMELINE, ExtractConfig())


@pytest.mark.parametrize(
    ("media", "says"),
    [
        (b"", "empty"),
        (b"This is a page that says: video unavailable.\n" * 200, "not a media file"),
        (bytes(10_000), "not a media file"),
        (clip()[: len(clip()) // 2], "not a media file, or truncated before its index"),
        (clip(audio=False), "no audio stream"),
        (clip(video=False), "no video stream"),
        (clip(seconds=1 / 8, sound_s=10), r"1 frame\(s\)"),
        (clip(seconds=0.5), "too short: 0.5.* s of audio"),
        (clip(seconds=0.5, sound_s=10), r"4 frame\(s\) in the first 10 s"),
        (clip(seconds=5, sound_s=10), "too short: frames from 0.00 s to 5.00 s"),
    ],
    ids=[
        "empty", "text", "zeros", "truncated", "no audio", "no video", "one frame", "half a second",
        "half a second of pictures", "half the pictures",
    ],
)  # fmt: skip
def test_an_unusable_file_is_refused_with_the_reason(media, says):
    with pytest.raises(MediaError, match=says):
        EXTRACTOR.prepare(media)


def test_a_long_file_is_extracted_from_its_first_ten_seconds():
    audio_TD, visual_TRD = EXTRACTOR.prepare(clip(seconds=60))

    assert audio_TD.shape == EXTRACTOR.shapes.audio
    assert visual_TRD.shape == EXTRACTOR.shapes.visual


@pytest.mark.parametrize("kind", ["truncated", "bits flipped", "bytes zeroed"])
def test_a_damaged_file_is_refused_or_has_finite_features(kind):
    rng = np.random.default_rng(len(kind))
    whole = clip(fps=12, height=64, rate_hz=44_100, channels=2)
    refused = 0
    for _ in range(12):
        media = bytearray(whole)
        if kind == "truncated":
            media = media[: rng.integers(1, len(media))]
        elif kind == "bits flipped":
            for at in rng.integers(len(media), size=int(2 ** rng.uniform(0, 9))):
                media[at] ^= 1 << rng.integers(8)
        else:
            at, length = int(rng.integers(len(media))), int(2 ** rng.uniform(1, 13))
            media[at : at + length] = bytes(len(media[at : at + length]))
        try:
            audio_TD, visual_TRD = EXTRACTOR.prepare(bytes(media))
        except MediaError:
            refused += 1
        else:
            assert audio_TD.shape == (10, 128)
            assert visual_TRD.shape == (10, 49, 16)
            assert np.isfinite(audio_TD).all()
            assert np.isfinite(visual_TRD).all()
    assert refused > 0
