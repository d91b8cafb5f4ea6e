"""`--extract.extractor colour`: mean colours of the picture, and loudness of the sound.

Shape suffixes: T = segments, R = regions, D = feature size, N = samples of sound.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distributed_avel.features.base import Extractor, Features, FeatureShapes, register_extractor
from distributed_avel.media.audio import read_audio, segments_of_audio
from distributed_avel.media.video import sample_frames


@register_extractor("colour")
class Colour(Extractor):
    """One region per segment with its mean red, green and blue; root mean square of the sound."""

    default_frames_per_segment = 2
    picture_size = (16, 16)
    sample_rate_hz = 8000
    unread = frozenset(
        {"preprocessing", "precision", "frames_per_batch", "cpus_per_actor", "gpus_per_actor"}
    )

    @property
    def shapes(self) -> FeatureShapes:
        """Audio (T, 1), visual (T, 1, 3)."""
        num_segments = self.timeline.num_segments
        return FeatureShapes(audio=(num_segments, 1), visual=(num_segments, 1, 3))

    def prepare(self, media: bytes) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Decode a media file in a process that may be killed; return what `embed` takes."""
        sampled = sample_frames(media, self.timeline, self.frames_per_segment, self.picture_size)
        colour_T3 = [
            sampled.segment(segment).mean(axis=(0, 1, 2)) / 255
            for segment in range(self.timeline.num_segments)
        ]
        wave_N = read_audio(media, self.timeline, self.sample_rate_hz)
        waves_TN = segments_of_audio(wave_N, self.timeline, self.sample_rate_hz)
        loudness_T1 = np.sqrt(np.square(waves_TN).mean(axis=1, keepdims=True))
        visual_TRD = np.asarray(colour_T3, dtype=np.float16)[:, None]
        return loudness_T1.astype(np.float32), visual_TRD

    def embed(
        self, prepared: Sequence[tuple[NDArray[np.float32], NDArray[np.float16]]]
    ) -> list[Features]:
        """Run the network on what `prepare` returned, on a GPU for instance; here there is none."""
        return [Features(audio_TD, visual_TRD) for audio_TD, visual_TRD in prepared]
