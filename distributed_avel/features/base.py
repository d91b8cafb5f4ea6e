"""Interface and registry of feature extractors.

To add an extractor, write `features/<name>.py` with a subclass of `Extractor`, decorate it with
`@register_extractor("<name>")`, and import it in `features/__init__.py`, or register it from your
own package (see `distributed_avel.registry`).

An extractor has two methods, so that decoding overlaps with embedding on a GPU. `prepare` decodes
one file in a process that can be killed, and returns the input of `embed`. `embed` runs in the
feature actor, once per batch of videos.

Shape suffixes used in this file:
    T = segments    R = regions    D = feature size
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import Config as Section
from distributed_avel.config import ExtractConfig, read_options
from distributed_avel.errors import ConfigError
from distributed_avel.media.pieces import MediaPiece
from distributed_avel.registry import Registry
from distributed_avel.timeline import Timeline


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureShapes:
    """Shapes of the features of one video: audio (T, D_a), visual (T, R, D_v)."""

    audio: tuple[int, int]
    visual: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Features:
    """Aligned features of one video."""

    audio_TD: NDArray[np.float32]
    visual_TRD: NDArray[np.float16]


class Extractor(ABC):
    """Computes aligned audio and visual features of media files.

    Creating an extractor is cheap. Only `provenance` and `load` access weights; decoding processes
    call neither, so they need little memory.

    Args:
        timeline: Segments of a video.
        config: Section `extract` of the configuration.

    Raises:
        ConfigError: `extract.weights` names a network, or `extract.options` an option, that the
            extractor does not have; or the value of an option is invalid.
    """

    class Config(Section):
        """Options of this extractor alone, with defaults and help texts (`extract.options`).

        An extractor declares its options in a nested class `Config` that extends the inherited one,
        and reads them from `self.options`.
        """

    default_frames_per_segment: ClassVar[int] = 16
    """Default of `extract.frames_per_segment`."""

    picture_size: ClassVar[tuple[int, int] | int]
    """Size of the input frames: (height, width), or the length of the shorter side."""

    sample_rate_hz: ClassVar[int]
    """Sample rate of the input audio, in Hz."""

    independent_segments: ClassVar[bool] = False
    """True if the features of a segment depend only on its own frames and samples, taken from
    `read_audio` and `sample_frames`. Long files can then be decoded in pieces. Otherwise, a file
    of a prediction is decoded as a whole, and must be short."""

    unread: ClassVar[frozenset[str]] = frozenset()
    """Settings of `extract` that the extractor does not read; the others enter the cache key."""

    def __init__(self, timeline: Timeline, config: ExtractConfig) -> None:
        networks = self.networks(config)
        unknown = sorted(config.weights.keys() - networks.keys())
        if unknown:
            raise ConfigError(
                f"extract.weights: extractor {config.extractor!r} has no network {unknown[0]!r}; "
                f"it has: {', '.join(networks) or 'none'}"
            )
        self.timeline = timeline
        self.config = config
        self.options: Any = _read_options(type(self), config.extractor, config.options)
        self.frames_per_segment = config.frames_per_segment or self.default_frames_per_segment

    def with_timeline(self, timeline: Timeline) -> Self:
        """Return the same extractor, with its networks, for videos of another length."""
        other = copy(self)
        other.timeline = timeline
        return other

    @property
    @abstractmethod
    def shapes(self) -> FeatureShapes:
        """Shapes of the features of one video."""

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Return the default source of the weights of each network, by the network's name."""
        return {}

    @property
    def weights_note(self) -> str | None:
        """Remark on the weights to show with the results, if any."""
        return None

    def provenance(self) -> dict[str, str]:
        """Return what the features depend on besides the settings, such as hashes of weights.

        Weights are downloaded if necessary, but not loaded.

        Raises:
            WeightsError: Weights are missing or have the wrong hash.
        """
        return {}

    def load(self) -> None:  # noqa: B027 (without weights there is nothing to load)
        """Load the networks. The feature actor calls it before it processes any video.

        Raises:
            WeightsError: Weights are missing or have the wrong hash.
        """

    @abstractmethod
    def prepare(self, media: bytes | MediaPiece) -> Any:
        """Decode a media file into the input of `embed`: small arrays that can be pickled.

        Args:
            media: Content of the file. With `independent_segments`, also a piece of a long file,
                with the timeline of the piece.

        Raises:
            MediaError: The file cannot be used; the message gives the reason.
        """

    @abstractmethod
    def embed(self, prepared: Sequence[Any]) -> list[Features]:
        """Compute the features of several videos, each independently of the others."""


ExtractorClass = TypeVar("ExtractorClass", bound=type[Extractor])

_EXTRACTORS: Registry[type[Extractor]] = Registry(
    "extractor", "extract.extractor", "distributed_avel.extractors"
)


def register_extractor(name: str) -> Callable[[ExtractorClass], ExtractorClass]:
    """Class decorator that registers an extractor under `name`."""

    def register(extractor: ExtractorClass) -> ExtractorClass:
        if not issubclass(extractor.Config, Extractor.Config):
            raise TypeError(f"{extractor.__name__}.Config is not a subclass of Extractor.Config")
        _EXTRACTORS.register(name, extractor)
        return extractor

    return register


def extractor_names() -> list[str]:
    """Return the names of all extractors, in alphabetical order."""
    return _EXTRACTORS.names()


def extractor_class(name: str) -> type[Extractor]:
    """Return the extractor class of that name.

    Raises:
        ConfigError: There is none; the message lists the registered names.
    """
    return _EXTRACTORS[name]


def extractor_options(name: str, values: Mapping[str, Any]) -> Extractor.Config:
    """Validate the options of an extractor, and complete them with its defaults.

    Args:
        name: Registered name.
        values: `extract.options` of a run.

    Raises:
        ConfigError: There is no such extractor or option, or a value is invalid.
    """
    return _read_options(extractor_class(name), name, values)


def _read_options(
    extractor: type[Extractor], name: str, values: Mapping[str, Any]
) -> Extractor.Config:
    return read_options(extractor.Config, values, "extract.options", f"extractor {name}")


@dataclass(frozen=True, slots=True)
class ExtractorRecipe:
    """A picklable factory with which each process creates its own extractor.

    It holds the class, so that unpickling imports the package that defines the extractor.
    """

    timeline: Timeline
    config: ExtractConfig
    extractor: type[Extractor] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extractor", extractor_class(self.config.extractor))

    def __call__(self) -> Extractor:
        """Create an extractor."""
        return self.extractor(self.timeline, self.config)
