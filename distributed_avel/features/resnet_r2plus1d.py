"""Visual stream of LLP's published features: ResNet-152 for frames, R(2+1)D-18 for motion.

Eight frames a second. ResNet-152 sees each (shorter side 256, centre crop 224) and yields 2048;
R(2+1)D-18 sees the eight together (112 x 112 without a crop) and yields 512. The published files
keep all 80 frames of a video; here a segment has one row, the mean of its frames followed by its
motion, (T, 1, 2560). The network that uses them (HAN) averages the frames before anything else,
so it computes the same, from an eighth of the data.

Shape suffixes used in this file:
    T = segments    S = samples per segment    F = distinct frames    D = width
    H, W = height and width of a picture    3 = red, green, blue
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distributed_avel.config import ExtractConfig
from distributed_avel.features.two_stream import FeatureStream, Weights, loaded
from distributed_avel.features.vgg19 import mean_over_samples

_SHORTER_SIDE = 256
_CROP = 224
_CLIP_SIDE = 112
_DIM = 2048 + 512


class FramesAndClips(NamedTuple):
    """Each distinct frame at both sizes; `index_TS` says which make up a segment."""

    frames_FHW3: NDArray[np.uint8]
    small_FHW3: NDArray[np.uint8]
    index_TS: NDArray[np.intp]


class ResNetAndR2Plus1d(FeatureStream):
    """Mean frame features and motion features of each segment, side by side."""

    picture_size = _SHORTER_SIDE
    _run_frames = None
    _run_clips = None

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """ResNet-152 and R(2+1)D-18."""
        return {"resnet152": "resnet152", "r2plus1d_18": "r2plus1d_18"}

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, 1, 2560)."""
        return self.timeline.num_segments, 1, _DIM

    def prepare(self, media: bytes) -> FramesAndClips:
        """Each distinct frame once for either network: 15 MB for ten seconds."""
        sampled = self.sample(media)
        return FramesAndClips(
            centre_crop(sampled.frames_FHW3),
            np.stack([_small(picture_HW3) for picture_HW3 in sampled.frames_FHW3]),
            sampled.index_TS,
        )

    def load(self, weights: Weights) -> None:
        """Load both networks up to their average pooling."""
        from distributed_avel.features.networks import (
            R2Plus1dPool,
            ResNet152Pool,
            Runner,
            load_network,
        )

        frames = load_network("resnet152", ResNet152Pool, weights["resnet152"], unused=["fc."])
        clips = load_network("r2plus1d_18", R2Plus1dPool, weights["r2plus1d_18"], unused=["fc."])
        precision, frames_per_batch = self.config.precision, self.config.frames_per_batch
        clips_per_batch = max(1, frames_per_batch // self.frames_per_segment)
        self._run_frames = Runner(frames, precision, frames_per_batch)
        self._run_clips = Runner(clips, precision, clips_per_batch)

    def embed(self, prepared: Sequence[FramesAndClips]) -> list[NDArray[np.float32]]:
        """Features (T, 1, 2560) of each video."""
        frames_VFD = loaded(self._run_frames)([video.frames_FHW3 for video in prepared])
        motion_VTD = loaded(self._run_clips)(
            [video.small_FHW3[video.index_TS] for video in prepared]
        )
        return [
            np.concatenate([mean_over_samples(frames_FD, video.index_TS), motion_TD], axis=1)[
                :, None
            ]
            for frames_FD, motion_TD, video in zip(frames_VFD, motion_VTD, prepared, strict=True)
        ]


def centre_crop(frames_FHW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle 224 x 224 of each picture."""
    top, left = (round((side - _CROP) / 2) for side in frames_FHW3.shape[1:3])
    return np.ascontiguousarray(frames_FHW3[:, top : top + _CROP, left : left + _CROP])


def _small(picture_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_CLIP_SIDE, _CLIP_SIDE)
    return np.asarray(Image.fromarray(picture_HW3).resize(size, Image.Resampling.BILINEAR))
