"""`--extract.extractor colour`: mean colours of the picture, and loudness of the sound.

Shape suffixes: T = segments, R = regions, D = feature size, N = samples of sound.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distributed_avel.features.base import Extractor, Features, FeatureShapes, register_extractor
from distributed_avel.media.audio import read_audio, segments_of_audio
from distributed_avel.media.pieces import MediaPiece
from distributed_avel.media.video import sample_frames


@register_extractor("colour")
class Colour(Extractor):
    """One region per segment with its mean red, green and blue; root mean square of the sound."""

    class Config(Extractor.Config):
        """Options of this extractor, such as `--extract.options.contrast true`."""

        contrast: bool = False
        """Whether the standard deviations of red, green and blue follow their means."""

    default_frames_per_segment = 2
    picture_size = (16, 16)
    sample_rate_hz = 8000
    independent_segments = True  # so that long videos can be predicted in pieces
    unread = frozenset(
        {"preprocessing", "precision", "frames_per_batch", "cpus_per_actor", "gpus_per_actor"}
    )

    @property
    def shapes(self) -> FeatureShapes:
        """Audio (T, 1), visual (T, 1, 3), or (T, 1, 6) with contrast."""
        num_segments, width = self.timeline.num_segments, 6 if self.options.contrast else 3
        return FeatureShapes(audio=(num_segments, 1), visual=(num_segments, 1, width))

    def prepare(self, media: bytes | MediaPiece) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Decode a media file in a process that may be killed; return what `embed` takes."""
        sampled = sample_frames(media, self.timeline, self.frames_per_segment, self.picture_size)
        frames = [sampled.segment(segment) for segment in range(self.timeline.num_segments)]
        visual_TD = np.array([frames_FHW3.mean(axis=(0, 1, 2)) for frames_FHW3 in frames]) / 255
        if self.options.contrast:
            contrast_T3 = (
                np.array([frames_FHW3.std(axis=(0, 1, 2)) for frames_FHW3 in frames]) / 255
            )
            visual_TD = np.concatenate([visual_TD, contrast_T3], axis=1)
        wave_N = read_audio(media, self.timeline, self.sample_rate_hz)
        waves_TN = segments_of_audio(wave_N, self.timeline, self.sample_rate_hz)
        loudness_T1 = np.sqrt(np.square(waves_TN).mean(axis=1, keepdims=True))
        return loudness_T1.astype(np.float32), visual_TD[:, None].astype(np.float16)

    def embed(
        self, prepared: Sequence[tuple[NDArray[np.float32], NDArray[np.float16]]]
    ) -> list[Features]:
        """Run the network on what `prepare` returned, on a GPU for instance; here there is none."""
        return [Features(audio_TD, visual_TRD) for audio_TD, visual_TRD in prepared]
