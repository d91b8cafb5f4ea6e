"""Visual stream of LLP's published features: ResNet-152 for frames, R(2+1)D-18 for motion.

Eight frames are sampled per second. ResNet-152 computes 2048 features of each frame (shorter side
256, centre crop 224); R(2+1)D-18 computes 512 features of all eight (112 x 112 without a crop).
The published files contain all 80 frames of a video. Here, a segment has one row, the mean of its
frame features followed by its motion features, (T, 1, 2560). HAN averages the frames first, so its
results are equal with an eighth of the data.

Shape suffixes used in this file:
    V = videos    T = segments    S = samples per segment    F = distinct frames
    D = feature size    H, W = height and width of a frame    3 = red, green, blue
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distributed_avel.config import ExtractConfig
from distributed_avel.features.two_stream import FeatureStream, Weights, loaded
from distributed_avel.features.vgg19 import mean_over_samples
from distributed_avel.media.pieces import MediaPiece

_SHORTER_SIDE = 256
_CROP = 224
_CLIP_SIDE = 112
_DIM = 2048 + 512


class FramesAndClips(NamedTuple):
    """Distinct frames at both sizes; `index_TS` are the indices of the frames of each segment."""

    frames_FHW3: NDArray[np.uint8]
    small_FHW3: NDArray[np.uint8]
    index_TS: NDArray[np.intp]


class ResNetAndR2Plus1d(FeatureStream):
    """Mean frame features and motion features of each segment, concatenated."""

    picture_size = _SHORTER_SIDE
    _run_frames = None
    _run_clips = None

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Return the sources of ResNet-152 and R(2+1)D-18."""
        return {"resnet152": "resnet152", "r2plus1d_18": "r2plus1d_18"}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the features, (T, 1, 2560)."""
        return self.timeline.num_segments, 1, _DIM

    def prepare(self, media: bytes | MediaPiece) -> FramesAndClips:
        """Decode the distinct frames at both sizes: 15 MB for ten seconds."""
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
        """Compute features (T, 1, 2560) of each video."""
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
    """Crop the central 224 x 224 pixels of each frame."""
    top, left = (round((side - _CROP) / 2) for side in frames_FHW3.shape[1:3])
    return np.ascontiguousarray(frames_FHW3[:, top : top + _CROP, left : left + _CROP])


def _small(picture_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (_CLIP_SIDE, _CLIP_SIDE)
    return np.asarray(Image.fromarray(picture_HW3).resize(size, Image.Resampling.BILINEAR))
