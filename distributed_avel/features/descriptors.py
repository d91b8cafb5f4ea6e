"""Weight-free descriptors of frames and audio, which need no network.

They replace VGG-19 and VGGish if no weights are available, and in the demo. Nothing in them is
learnt. Like the published features, they have 7 x 7 visual regions and one audio vector per
segment, but are smaller. Each segment is described by its own frames and samples only, so no
evidence leaks between segments.

Shape suffixes used in this file:
    T = segments    R = regions (7 x 7, row by row)    D = feature size    S = samples per segment
    F = frames or spectrogram frames    P = side of a frame (112)    3 = red, green, blue
    H, W = height and width of a frame    M = mel bands    N = samples of the waveform
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distributed_avel.features.base import Extractor, Features, FeatureShapes, register_extractor
from distributed_avel.media.audio import LogMel, read_audio, segments_of_audio
from distributed_avel.media.pieces import MediaPiece
from distributed_avel.media.video import sample_frames

_GRID = 7
_CELL = 16
_SIDE = _GRID * _CELL

_VISUAL_DIM = 16
_LOG_MEL = LogMel()

# Offset and divisor that scale each descriptor to about zero mean and unit variance. They are
# rounded from physical ranges, not fitted: colours are in 0..1 around 0.5, textures about a tenth.
_COLOUR = (0.5, 0.2)
_SPREAD = (0.08, 0.06)
_EDGE = (0.03, 0.02)
_CHANGE = (0.03, 0.04)
_LOUDNESS = (-1.0, 1.0)
_FLUTTER = (0.6, 0.3)


@register_extractor("descriptors")
class Descriptors(Extractor):
    """Colour, texture, edges and motion on a 7 x 7 grid; mean and SD of 64 log-mel bands."""

    picture_size = (_SIDE, _SIDE)
    sample_rate_hz = _LOG_MEL.sample_rate_hz
    independent_segments = True
    unread = frozenset(
        {"preprocessing", "precision", "frames_per_batch", "cpus_per_actor", "gpus_per_actor"}
    )

    @property
    def shapes(self) -> FeatureShapes:
        """Feature shapes: audio (T, 128), visual (T, 49, 16)."""
        num_segments = self.timeline.num_segments
        return FeatureShapes(
            audio=(num_segments, 2 * _LOG_MEL.num_bands),
            visual=(num_segments, _GRID * _GRID, _VISUAL_DIM),
        )

    def prepare(self, media: bytes | MediaPiece) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Decode a media file and compute its descriptors: audio (T, 128), visual (T, 49, 16)."""
        wave_N = read_audio(media, self.timeline, self.sample_rate_hz)
        sampled = sample_frames(
            media,
            self.timeline,
            self.frames_per_segment,
            self.picture_size,
            sampling=self.config.sampling,
            reader=self.config.reader,
        )
        visual_TRD = np.stack(
            [
                describe_frames(sampled.frames_FHW3[frames_F], counts_F)
                for frames_F, counts_F in (
                    np.unique(index_S, return_counts=True) for index_S in sampled.index_TS
                )
            ]
        )
        waves_TN = segments_of_audio(wave_N, self.timeline, self.sample_rate_hz)
        return describe_audio(waves_TN), visual_TRD.astype(np.float16)

    def embed(
        self, prepared: Sequence[tuple[NDArray[np.float32], NDArray[np.float16]]]
    ) -> list[Features]:
        """Wrap the descriptors as features; there is no network to run."""
        return [Features(audio_TD, visual_TRD) for audio_TD, visual_TRD in prepared]


def describe_audio(waves_TN: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute mean and standard deviation of each log-mel band per segment, shape (T, 128)."""
    mel_TFM = _LOG_MEL(waves_TN)
    mean_TM, spread_TM = mel_TFM.mean(axis=1), mel_TFM.std(axis=1)
    return np.concatenate([_scaled(mean_TM, _LOUDNESS), _scaled(spread_TM, _FLUTTER)], axis=1)


def describe_frames(
    frames_FPP3: NDArray[np.uint8], weights_F: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Compute 16 descriptors for each of the 49 regions of a segment, averaged over its samples.

    The descriptors are: mean red, green and blue (3); their standard deviation within the region
    (3); mean absolute gradient of brightness in four directions (4) and absolute Laplacian (1);
    mean absolute change of red, green and blue between frames (3), of brightness (1), and the
    maximum change of brightness (1). The change is 0 for a segment with one distinct frame.

    Args:
        frames_FPP3: Distinct frames of 112 x 112, in order, uint8.
        weights_F: Number of samples of each frame.

    Returns:
        Shape (R, 16).
    """
    frames_F3PP = np.ascontiguousarray(frames_FPP3.transpose(0, 3, 1, 2), dtype=np.float32)
    frames_F3PP *= np.float32(1 / 255)
    brightness_FPP = frames_F3PP.mean(axis=1)
    share_F = (weights_F / weights_F.sum()).astype(np.float32)

    mean_F3R = _cells(frames_F3PP)
    square_F3R = _cells(frames_F3PP * frames_F3PP)
    spread_F3R = np.sqrt(np.maximum(square_F3R - mean_F3R * mean_F3R, 0.0))
    edges_F5R = _cells(_edges(brightness_FPP))
    still_DR = np.concatenate(
        [
            _scaled(np.tensordot(share_F, mean_F3R, 1), _COLOUR),
            _scaled(np.tensordot(share_F, spread_F3R, 1), _SPREAD),
            _scaled(np.tensordot(share_F, edges_F5R, 1), _EDGE),
        ]
    )
    change_DR = np.zeros((5, _GRID * _GRID), dtype=np.float32)
    if len(frames_FPP3) > 1:
        change_F3R = _cells(np.abs(np.diff(frames_F3PP, axis=0)))
        change_FR = _cells(np.abs(np.diff(brightness_FPP, axis=0)))
        change_DR[:3] = change_F3R.mean(axis=0)
        change_DR[3], change_DR[4] = change_FR.mean(axis=0), change_FR.max(axis=0)
    return np.concatenate([still_DR, _scaled(change_DR, _CHANGE)]).T


def _edges(brightness_FPP: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute absolute gradients (x, y, both diagonals) and Laplacian, shape (F, 5, P, P)."""
    edges_F5PP = np.zeros((len(brightness_FPP), 5, _SIDE, _SIDE), dtype=np.float32)
    inner = brightness_FPP[:, 1:-1, 1:-1]
    west, east = brightness_FPP[:, 1:-1, :-2], brightness_FPP[:, 1:-1, 2:]
    north, south = brightness_FPP[:, :-2, 1:-1], brightness_FPP[:, 2:, 1:-1]
    edges_F5PP[:, 0, 1:-1, 1:-1] = east - west
    edges_F5PP[:, 1, 1:-1, 1:-1] = south - north
    edges_F5PP[:, 2, 1:-1, 1:-1] = brightness_FPP[:, 2:, 2:] - brightness_FPP[:, :-2, :-2]
    edges_F5PP[:, 3, 1:-1, 1:-1] = brightness_FPP[:, 2:, :-2] - brightness_FPP[:, :-2, 2:]
    edges_F5PP[:, 4, 1:-1, 1:-1] = 4 * inner - west - east - north - south
    return np.abs(edges_F5PP, out=edges_F5PP)


def _cells(maps_PP: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average over each region, (..., P, P) to (..., R)."""
    *leading, height, width = maps_PP.shape
    columns = maps_PP.reshape(*leading, height, _GRID, width // _GRID).sum(axis=-1)
    cells = columns.reshape(*leading, _GRID, height // _GRID, _GRID).sum(axis=-2)
    return cells.reshape(*leading, _GRID * _GRID) / np.float32(_CELL * _CELL)


def _scaled(values: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.float32]:
    offset, divisor = scale
    return (values - np.float32(offset)) / np.float32(divisor)
