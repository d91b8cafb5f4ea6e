"""Extractors that combine a visual stream and an audio stream of frozen networks.

Each stream is one class that knows its own networks and nothing of the other stream. A two-stream
extractor is a name and two streams (`published.py`). This module contains what all streams share:
loading weights, recording them in the manifest, and checking that features are finite.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions of a frame    D = feature size
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import WeightsError
from distributed_avel.features.base import Extractor, Features, FeatureShapes
from distributed_avel.features.weights import RANDOM, RANDOM_SEED, WeightsFile, find_weights
from distributed_avel.media.pieces import MediaPiece
from distributed_avel.media.video import SampledFrames, sample_frames
from distributed_avel.timeline import Timeline

if TYPE_CHECKING:
    from distributed_avel.features.networks import Runner

_LARGEST_FLOAT16 = 65504.0

Weights = Mapping[str, WeightsFile | None]
"""File of weights of each network; None for random weights."""


class FeatureStream(ABC):
    """Visual or audio features of media files, from frozen networks."""

    picture_size: ClassVar[tuple[int, int] | int]
    """Height and width of the input frames, or the shorter side; visual streams only."""

    sample_rate_hz: ClassVar[int]
    """Sample rate of the input; audio streams only."""

    def __init__(self, timeline: Timeline, config: ExtractConfig, frames_per_segment: int) -> None:
        self.timeline = timeline
        self.config = config
        self.frames_per_segment = frames_per_segment

    @classmethod
    @abstractmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Return the default source of the weights of each network, by the network's name."""

    @property
    def settings(self) -> dict[str, str]:
        """Settings that the features of this stream depend on."""
        return {}

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the features of one video: (T, D) for audio, (T, R, D) for visual features."""

    @abstractmethod
    def prepare(self, media: bytes | MediaPiece) -> Any:
        """`Extractor.prepare` for this stream. It must not import torch."""

    def sample(self, media: bytes | MediaPiece) -> SampledFrames:
        """Sample frames of `picture_size` according to the settings."""
        return sample_frames(
            media,
            self.timeline,
            self.frames_per_segment,
            self.picture_size,
            sampling=self.config.sampling,
            reader=self.config.reader,
        )

    @abstractmethod
    def load(self, weights: Weights) -> None:
        """Load the networks."""

    @abstractmethod
    def embed(self, prepared: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Compute the features of several videos, each of shape `shape`, independently."""


class TwoStreamExtractor(Extractor):
    """An extractor that combines two streams; subclasses set `visual_stream` and `audio_stream`.

    Both streams describe each segment by its own frames and samples only.
    """

    independent_segments = True

    visual_stream: ClassVar[type[FeatureStream]]
    audio_stream: ClassVar[type[FeatureStream]]

    def __init_subclass__(cls) -> None:
        cls.picture_size = cls.visual_stream.picture_size
        cls.sample_rate_hz = cls.audio_stream.sample_rate_hz

    def __init__(self, timeline: Timeline, config: ExtractConfig) -> None:
        super().__init__(timeline, config)
        self._visual = self.visual_stream(timeline, config, self.frames_per_segment)
        self._audio = self.audio_stream(timeline, config, self.frames_per_segment)
        self._sources = {**self.networks(config), **config.weights}
        self._found: dict[str, WeightsFile | None] | None = None
        self._loaded = False

    def with_timeline(self, timeline: Timeline) -> Self:
        """Return the same extractor, with its networks, for videos of another length."""
        other = super().with_timeline(timeline)
        other._visual, other._audio = copy(self._visual), copy(self._audio)
        other._visual.timeline = other._audio.timeline = timeline
        return other

    @property
    def shapes(self) -> FeatureShapes:
        """Feature shapes of both streams."""
        num_segments, audio_dim = self._audio.shape
        _, regions, visual_dim = self._visual.shape
        return FeatureShapes(
            audio=(num_segments, audio_dim), visual=(num_segments, regions, visual_dim)
        )

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Return the networks of both streams."""
        return {**cls.visual_stream.networks(config), **cls.audio_stream.networks(config)}

    @property
    def weights_note(self) -> str | None:
        """Warning if weights are random, else None."""
        random = [name for name, source in self._sources.items() if source == RANDOM]
        if not random:
            return None
        return f"random weights ({', '.join(random)}): these features are meaningless"

    def provenance(self) -> dict[str, str]:
        """Return the sha256 of each network's weights and the settings of the features."""
        weights = {
            f"weights.{name}": f"sha256 {file.sha256}" if file else f"{RANDOM}, seed {RANDOM_SEED}"
            for name, file in self._weights().items()
        }
        frames = str(self.frames_per_segment)
        shared = {"precision": self.config.precision, "frames_per_segment": frames}
        return {**weights, **self._visual.settings, **self._audio.settings, **shared}

    def load(self) -> None:
        """Find all weights, then load the networks; a second call does nothing."""
        if self._loaded:
            return
        weights = self._weights()
        self._visual.load(weights)
        self._audio.load(weights)
        self._loaded = True

    def prepare(self, media: bytes | MediaPiece) -> tuple[Any, Any]:
        """Decode the input of the audio stream and of the visual stream."""
        return self._audio.prepare(media), self._visual.prepare(media)

    def embed(self, prepared: Sequence[tuple[Any, Any]]) -> list[Features]:
        """Compute the features of both streams.

        Raises:
            WeightsError: A feature is not finite, or too large for float16.
        """
        self.load()
        audio_VTD = self._audio.embed([audio for audio, _ in prepared])
        visual_VTRD = self._visual.embed([visual for _, visual in prepared])
        for features in (*audio_VTD, *visual_VTRD):
            if not (np.abs(features) <= _LARGEST_FLOAT16).all():  # also true for NaN
                raise WeightsError(
                    f"features of {self.config.extractor} are not finite or exceed the range of "
                    f"float16 with extract.precision {self.config.precision}; use bf16 or fp32, "
                    "or other weights"
                )
        return [
            Features(audio_TD, visual_TRD.astype(np.float16))
            for audio_TD, visual_TRD in zip(audio_VTD, visual_VTRD, strict=True)
        ]

    def _weights(self) -> dict[str, WeightsFile | None]:
        if self._found is None:
            self._found = {
                name: None
                if source == RANDOM
                else find_weights(name, source, self.config.weights_dir)
                for name, source in self._sources.items()
            }
        return self._found


def loaded(runner: "Runner | None") -> "Runner":
    """Return the runner, which must have been created by `load`."""
    if runner is None:
        raise RuntimeError("call `load` before `embed`")
    return runner
