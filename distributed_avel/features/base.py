"""The interface of feature extractors, and their registry.

To add one: write `features/<name>.py` with an `Extractor`, decorate it with
`@register_extractor("<name>")`, and import it in `features/__init__.py`; or do so in a package of
your own, see `distributed_avel.registry`.

An extractor has two methods, so that decoding and embedding on a GPU overlap: `prepare` runs in a
decoding process, which can be killed, and returns only what `embed` needs; `embed` runs in the
feature actor, once for all videos of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import ExtractConfig
from distributed_avel.errors import ConfigError
from distributed_avel.registry import Registry
from distributed_avel.timeline import Timeline


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureShapes:
    """Shapes of one video's features: audio (T, D_a), visual (T, R, D_v)."""

    audio: tuple[int, int]
    visual: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Features:
    """Aligned features of one video."""

    audio_TD: NDArray[np.float32]
    visual_TRD: NDArray[np.float16]


class Extractor(ABC):
    """Turns one media file into aligned audio and visual features.

    A new one is cheap: weights are looked for in `provenance` and `load`, so that decoding
    processes, which call neither, stay small.
    """

    default_frames_per_segment: ClassVar[int] = 16
    """What `extract.frames_per_segment` is where the user does not set it."""

    picture_size: ClassVar[tuple[int, int] | int]
    """Size of the pictures that it takes, as `sample_frames` has it."""

    sample_rate_hz: ClassVar[int]
    """Sample rate of the sound that it takes."""

    unread: ClassVar[frozenset[str]] = frozenset()
    """Settings of `extract` that it does not read; all others are part of the cache key."""

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
        self.frames_per_segment = config.frames_per_segment or self.default_frames_per_segment

    @property
    @abstractmethod
    def shapes(self) -> FeatureShapes:
        """Shapes of the features of one video."""

    @classmethod
    def networks(cls, config: ExtractConfig) -> dict[str, str]:
        """Name of each network, and the source of its weights where `extract.weights` has none."""
        return {}

    @property
    def weights_note(self) -> str | None:
        """What a reader of the results must know about the weights, if anything."""
        return None

    def provenance(self) -> dict[str, str]:
        """What the features depend on beyond the settings that all extractors share.

        Hashes of weights, without loading them; files that are not here yet are fetched.

        Raises:
            WeightsError: Weights are missing or are not the right ones.
        """
        return {}

    def load(self) -> None:  # noqa: B027 (without weights there is nothing to load)
        """Load what `embed` needs. The feature actor does so before it reads any video.

        Raises:
            WeightsError: Weights are missing or are not the right ones.
        """

    @abstractmethod
    def prepare(self, media: bytes) -> Any:
        """Decode a media file into what `embed` takes: small, picklable arrays.

        Raises:
            MediaError: The file cannot be used; the message says why.
        """

    @abstractmethod
    def embed(self, prepared: Sequence[Any]) -> list[Features]:
        """Features of the prepared videos, each independent of the others."""


ExtractorClass = TypeVar("ExtractorClass", bound=type[Extractor])

_EXTRACTORS: Registry[type[Extractor]] = Registry(
    "extractor", "extract.extractor", "distributed_avel.extractors"
)


def register_extractor(name: str) -> Callable[[ExtractorClass], ExtractorClass]:
    """Class decorator that makes an extractor known under `name`."""

    def register(extractor: ExtractorClass) -> ExtractorClass:
        _EXTRACTORS.register(name, extractor)
        return extractor

    return register


def extractor_names() -> list[str]:
    """Names of all extractors, sorted."""
    return _EXTRACTORS.names()


def extractor_class(name: str) -> type[Extractor]:
    """The extractor of that name, or an error that lists the ones there are."""
    return _EXTRACTORS[name]


@dataclass(frozen=True, slots=True)
class ExtractorRecipe:
    """How a process builds its own extractor, whichever package that comes from."""

    timeline: Timeline
    config: ExtractConfig
    extractor: type[Extractor] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extractor", extractor_class(self.config.extractor))

    def __call__(self) -> Extractor:
        """A new extractor."""
        return self.extractor(self.timeline, self.config)
