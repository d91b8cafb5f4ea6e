"""Files of at most the length of the timeline, with `data.short_videos keep`."""

import shutil

import numpy as np
import pytest
from media.clips import clip
from media.coded import ffmpeg

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import MediaError
from distributed_avel.features.any_length import AtMostRecipe
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.timeline import Timeline


def extractor_of(num_segments: int) -> ExtractorRecipe:
    timeline = Timeline(num_segments=num_segments, segment_s=1.0)
    return ExtractorRecipe(timeline, ExtractConfig())


@pytest.mark.parametrize(
    ("seconds", "sound_s", "num_segments"), [(3, 3, 3), (2.6, 2.6, 3), (4, 2, 2), (6, 6, 4)]
)
def test_features_are_those_of_a_timeline_of_the_length_of_the_file(seconds, sound_s, num_segments):
    media = clip(seconds, sound_s=sound_s)

    found, prepared = AtMostRecipe(extractor_of(4))().prepare(media)

    assert found == num_segments
    extractor = extractor_of(num_segments)()
    (features,) = extractor.embed([prepared])
    (expected,) = extractor.embed([extractor.prepare(media)])
    np.testing.assert_array_equal(features.audio_TD, expected.audio_TD)
    np.testing.assert_array_equal(features.visual_TRD, expected.visual_TRD)


def test_a_file_shorter_than_half_a_segment_is_refused():
    with pytest.raises(MediaError, match="too short"):
        AtMostRecipe(extractor_of(4))().prepare(clip(0.4))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg makes the file")
def test_a_file_that_is_cut_off_after_the_timeline_is_used(tmp_path):
    whole, front = tmp_path / "whole.mp4", tmp_path / "front.mp4"
    whole.write_bytes(clip(12))
    ffmpeg("-i", whole, "-c", "copy", "-movflags", "faststart", front)  # index before the packets
    media = front.read_bytes()[: int(0.7 * front.stat().st_size)]

    found, _ = AtMostRecipe(extractor_of(4))().prepare(media)

    assert found == 4
    with pytest.raises(MediaError):
        AtMostRecipe(extractor_of(12))().prepare(media)
