"""Extractors from two halves: one for the pictures, one for the sound.

Data sets published features of different networks in different pairs. A half is one class that
knows its networks and nothing of the other half; a pair is a name and two halves (`pairs.py`).
What halves share stands here: where weights come from, what goes into the manifest, and that
no feature is ever infinite.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import WeightsError
from distributed_avel.features.base import Extractor, Features, FeatureShapes
from distributed_avel.features.weights import RANDOM, RANDOM_SEED, WeightsFile, find_weights
from distributed_avel.media.video import SampledFrames, sample_frames
from distributed_avel.timeline import Timeline

if TYPE_CHECKING:
    from distributed_avel.features.networks import Runner

_LARGEST_FLOAT16 = 65504.0

Weights = Mapping[str, WeightsFile | None]
"""A file for each network, None for random weights."""


class Half(ABC):
    """Turns the pictures, or the sound, of media files into features with frozen networks."""

    picture_size: ClassVar[tuple[int, int] | int]
    """Size of the pictures that it takes; of a half for pictures only."""

    sample_rate_hz: ClassVar[int]
    """Sample rate of the sound that it takes; of a half for sound only."""

    def __init__(self, timeline: Timeline, config: ExtractConfig, frames_per_segment: int) -> None:
        self.timeline = timeline
        self.config = config
        self.frames_per_segment = frames_per_segment

    @classmethod
    @abstractmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Name of each network, and the source of its weights where the user names none."""

    @property
    def settings(self) -> dict[str, str]:
        """Settings of this half that its features depend on."""
        return {}

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one video's features: (T, D) of sound, (T, R, D) of pictures."""

    @abstractmethod
    def prepare(self, media: bytes) -> Any:
        """As `Extractor.prepare`, for this half. It must not import torch."""

    def sample(self, media: bytes) -> SampledFrames:
        """Sample the frames that this half takes, as the settings say."""
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
        """Features of the prepared videos, each of `shape`, and independent of the others."""


class PairedExtractor(Extractor):
    """An extractor of two halves; a subclass says which."""

    visual_half: ClassVar[type[Half]]
    audio_half: ClassVar[type[Half]]

    def __init_subclass__(cls) -> None:
        cls.picture_size = cls.visual_half.picture_size
        cls.sample_rate_hz = cls.audio_half.sample_rate_hz

    def __init__(self, timeline: Timeline, config: ExtractConfig) -> None:
        super().__init__(timeline, config)
        self._visual = self.visual_half(timeline, config, self.frames_per_segment)
        self._audio = self.audio_half(timeline, config, self.frames_per_segment)
        self._sources = {**self.networks(config), **config.weights}
        self._found: dict[str, WeightsFile | None] | None = None
        self._loaded = False

    @property
    def shapes(self) -> FeatureShapes:
        """The shapes of both halves."""
        num_segments, audio_dim = self._audio.shape
        _, regions, visual_dim = self._visual.shape
        return FeatureShapes(
            audio=(num_segments, audio_dim), visual=(num_segments, regions, visual_dim)
        )

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """The networks of both halves."""
        return {**cls.visual_half.networks(config), **cls.audio_half.networks(config)}

    @property
    def weights_note(self) -> str | None:
        """A warning where weights are random."""
        random = [name for name, source in self._sources.items() if source == RANDOM]
        if not random:
            return None
        return f"random weights ({', '.join(random)}): these features mean nothing"

    def provenance(self) -> dict[str, str]:
        """The sha256 of each network's weights, and the settings that the features depend on."""
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

    def prepare(self, media: bytes) -> tuple[Any, Any]:
        """What both halves need of a media file."""
        return self._audio.prepare(media), self._visual.prepare(media)

    def embed(self, prepared: Sequence[tuple[Any, Any]]) -> list[Features]:
        """Features of both halves.

        Raises:
            WeightsError: A feature is not finite, or too large for float16.
        """
        self.load()
        audio_VTD = self._audio.embed([audio for audio, _ in prepared])
        visual_VTRD = self._visual.embed([visual for _, visual in prepared])
        for features in (*audio_VTD, *visual_VTRD):
            if not (np.abs(features) <= _LARGEST_FLOAT16).all():  # nan is not, either
                raise WeightsError(
                    f"features of {self.config.extractor} are not finite, or exceed what float16 "
                    f"holds, with extract.precision {self.config.precision}; use bf16 or fp32, "
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
    """The runner of a network that has been loaded."""
    if runner is None:
        raise RuntimeError("`load` the half before `embed`")
    return runner
