"""Audio stream of the published features of AVE and LLP: VGGish.

The waveform is cut into segments first, and each segment is transformed independently, so no audio
leaks between segments. A patch is 0.96 s long. A segment of one second has one patch, and its
remainder is ignored, as in the published features. Longer segments have the mean of their patches.

Shape suffixes used in this file:
    T = segments    P = patches of a segment    F = spectrogram frames (96 per patch)
    M = mel bands    D = feature size (128)    N = samples (or patches of a batch)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import ConfigError
from distributed_avel.features.two_stream import FeatureStream, Weights, loaded
from distributed_avel.media.audio import LogMel, read_audio, segments_of_audio
from distributed_avel.media.pieces import MediaPiece
from distributed_avel.timeline import Timeline

_LOG_MEL = LogMel()
_PATCH_FRAMES = 96
_SHORTEST_S = (_PATCH_FRAMES - 1) * _LOG_MEL.hop_s + _LOG_MEL.window_s
_DIM = 128


class Vggish(FeatureStream):
    """VGGish embeddings after the last ReLU, without PCA."""

    sample_rate_hz = _LOG_MEL.sample_rate_hz
    _run = None

    def __init__(self, timeline: Timeline, config: ExtractConfig, frames_per_segment: int) -> None:
        super().__init__(timeline, config, frames_per_segment)
        if timeline.segment_s < _SHORTEST_S:
            raise ConfigError(
                f"data.segment_s: segments of {timeline.segment_s:g} s are too short for VGGish, "
                f"which needs {_SHORTEST_S:g} s; use longer segments or another extractor"
            )

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Return the source of VGGish."""
        return {"vggish": "vggish"}

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the features, (T, 128)."""
        return self.timeline.num_segments, _DIM

    def prepare(self, media: bytes | MediaPiece) -> NDArray[np.float32]:
        """Compute the log-mel patches of each segment, shape (T, P, 96, 64)."""
        wave_N = read_audio(media, self.timeline, _LOG_MEL.sample_rate_hz)
        return log_mel_patches(segments_of_audio(wave_N, self.timeline, _LOG_MEL.sample_rate_hz))

    def load(self, weights: Weights) -> None:
        """Load VGGish."""
        from distributed_avel.features.networks import (
            Runner,
            VggishNetwork,
            load_network,
        )

        network = load_network("vggish", VggishNetwork, weights["vggish"], unused=["pproc."])
        self._run = Runner(network, self.config.precision, self.config.frames_per_batch)

    def embed(self, prepared: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Compute features (T, 128) of each video."""
        flat = [patches_TPFM.reshape(-1, *patches_TPFM.shape[2:]) for patches_TPFM in prepared]
        return [
            patches_ND.reshape(self.timeline.num_segments, -1, _DIM).mean(axis=1)
            for patches_ND in loaded(self._run)(flat)
        ]


def log_mel_patches(waves_TN: NDArray[np.float32]) -> NDArray[np.float32]:
    """Split the log-mel spectrogram of each segment into patches, shape (T, P, 96, 64).

    An incomplete last patch is dropped.
    """
    mel_TFM = _LOG_MEL(waves_TN)
    num_patches = mel_TFM.shape[1] // _PATCH_FRAMES
    complete_TFM = mel_TFM[:, : num_patches * _PATCH_FRAMES]
    return complete_TFM.reshape(len(mel_TFM), num_patches, _PATCH_FRAMES, mel_TFM.shape[2])
