"""Building blocks of the feature generators: prototypes, slow noise, and spans in ten seconds.

The features of a generated video are a sum of prototypes (one vector per class and role), each
shifted by a deviation that is drawn once per video, and of noise that changes slowly over the
segments. Differences between videos are therefore large, and differences within a video small.

Shape suffixes used in this file:
    V = videos    T = segments    R = visual rows of a segment    D = feature size
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import DataConfig, SyntheticConfig
from distributed_avel.datasets.base import FeatureChunk, Split
from distributed_avel.errors import DatasetError
from distributed_avel.randomness import generator
from distributed_avel.timeline import Timeline

NUM_SEGMENTS, SEGMENT_S = 10, 1.0

CONTEXT_STRENGTH = 0.5
_SEGMENT_NOISE, _AUTOCORRELATION = 0.3, 0.5
_CHUNK = 64


class Scripted(Protocol):
    """Script of a video."""

    @property
    def video_id(self) -> str:
        """Id of the video."""
        ...


_Script = TypeVar("_Script", bound=Scripted)
Draw = Callable[[_Script], tuple[NDArray[np.float32], NDArray[np.float16]]]
"""Converts a script to audio (T, D) and visual (T, R, D) features."""


def fixed_timeline(config: DataConfig) -> Timeline:
    """Return the timeline of ten segments of one second.

    Raises:
        DatasetError: The settings specify another timeline.
    """
    if (config.num_segments, config.segment_s) != (NUM_SEGMENTS, SEGMENT_S):
        raise DatasetError(
            f"data.num_segments and data.segment_s must be {NUM_SEGMENTS} and {SEGMENT_S:g} for "
            f"the synthetic features, not {config.num_segments} and {config.segment_s:g}"
        )
    return Timeline(num_segments=NUM_SEGMENTS, segment_s=SEGMENT_S)


def numbered(config: SyntheticConfig) -> Iterator[tuple[Split, int]]:
    """Yield split and number of each video with an event."""
    counts: list[tuple[Split, int]] = [
        ("train", config.num_train),
        ("val", config.num_val),
        ("test", config.num_test),
    ]
    return ((split, index) for split, count in counts for index in range(count))


def in_chunks(scripts: Sequence[_Script], draw: Draw[_Script]) -> Iterator[FeatureChunk]:
    """Yield the features of all videos, a few videos at a time."""
    for start in range(0, len(scripts), _CHUNK):
        chunk = scripts[start : start + _CHUNK]
        features = [draw(script) for script in chunk]
        yield FeatureChunk(
            video_ids=[script.video_id for script in chunk],
            audio_VTD=np.stack([audio_TD for audio_TD, _ in features]),
            visual_VTRD=np.stack([visual_TRD for _, visual_TRD in features]),
        )


def place_span(
    rng: np.random.Generator, length: int, at_start: float, at_end: float
) -> tuple[int, int]:
    """Draw start and end of a span of fewer than ten segments, in segments.

    Args:
        rng: Random generator.
        length: Length in segments, 1 to 9.
        at_start: Share of spans that start with the video.
        at_end: Share of spans that end with the video; the others touch neither end if possible.
    """
    position = rng.uniform()
    if position < at_start:
        return 0, length
    if position < at_start + at_end or length == NUM_SEGMENTS - 1:
        return NUM_SEGMENTS - length, NUM_SEGMENTS
    start = int(rng.integers(1, NUM_SEGMENTS - length))
    return start, start + length


@cache
def draw_prototype(
    seed: int, dataset: str, role: str, label: int, size: int
) -> NDArray[np.float64]:
    """Draw the prototype of a class in a role, a standard normal vector."""
    return generator(seed, dataset, "prototype", role, label).standard_normal(size)


def instance(
    rng: np.random.Generator, mean_D: NDArray[np.float64], deviation: float
) -> NDArray[np.float64]:
    """Draw a video's instance of a prototype: the prototype plus `deviation` times normal noise."""
    return mean_D + deviation * rng.standard_normal(mean_D.shape)


def slow_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw autoregressive noise, AR(1) with coefficient 0.5 and SD 0.3, shape (T, *shape)."""
    noise = rng.standard_normal((NUM_SEGMENTS, *shape))
    for segment in range(1, NUM_SEGMENTS):
        fresh = np.sqrt(1 - _AUTOCORRELATION**2) * noise[segment]
        noise[segment] = _AUTOCORRELATION * noise[segment - 1] + fresh
    return _SEGMENT_NOISE * noise
