"""Visual stream of AVE's published features: VGG-19 on a 7 x 7 grid.

Sixteen frames per second are scaled to 224 x 224 without a crop. The features are the mean over
the frames of the last pooling layer (`block5_pool`). The published features were computed with
Keras, whose VGG-19 has the weights and the preprocessing of the original Caffe model; the preset
`keras_caffe` reproduces both.

Shape suffixes used in this file:
    V = videos    T = segments    S = samples per segment    F = distinct frames
    R = regions (49)    D = feature size (512)    H, W = height and width of a frame
    3 = red, green, blue
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import ExtractConfig
from distributed_avel.features.two_stream import FeatureStream, Weights, loaded
from distributed_avel.media.pieces import MediaPiece
from distributed_avel.media.video import SampledFrames

_SIDE = 224
_REGIONS = 49
_DIM = 512


class Vgg19(FeatureStream):
    """VGG-19's last pooling layer, averaged over the frames of each segment."""

    picture_size = (_SIDE, _SIDE)
    _run = None

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Return the source of the weights of VGG-19, which depends on the preprocessing."""
        caffe = config.preprocessing == "keras_caffe"
        return {"vgg19": "vgg19_caffe" if caffe else "vgg19_torchvision"}

    @property
    def settings(self) -> dict[str, str]:
        """The preprocessing."""
        return {"vgg19.preprocessing": self.config.preprocessing}

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the features, (T, 49, 512)."""
        return self.timeline.num_segments, _REGIONS, _DIM

    def prepare(self, media: bytes | MediaPiece) -> SampledFrames:
        """Decode the distinct frames at 224 x 224: at most 24 MB for ten seconds."""
        return self.sample(media)

    def load(self, weights: Weights) -> None:
        """Load VGG-19 up to its last pooling layer."""
        from distributed_avel.features.networks import (
            Runner,
            Vgg19Pool5,
            load_network,
        )

        network = load_network(
            "vgg19",
            lambda: Vgg19Pool5(self.config.preprocessing),
            weights["vgg19"],
            unused=["classifier."],
        )
        self._run = Runner(network, self.config.precision, self.config.frames_per_batch)

    def embed(self, prepared: Sequence[SampledFrames]) -> list[NDArray[np.float32]]:
        """Compute features (T, 49, 512) of each video."""
        maps_VFRD = loaded(self._run)([sampled.frames_FHW3 for sampled in prepared])
        return [
            mean_over_samples(maps_FRD, sampled.index_TS)
            for maps_FRD, sampled in zip(maps_VFRD, prepared, strict=True)
        ]


def mean_over_samples(
    features_F: NDArray[np.float32], index_TS: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Average over the samples of each segment, shape (T, ...).

    Args:
        features_F: Features of the distinct frames, (F, ...).
        index_TS: Index of the frame of each sample; a frame that is sampled twice counts twice.
    """
    return np.stack([features_F[index_S].mean(axis=0) for index_S in index_TS])
