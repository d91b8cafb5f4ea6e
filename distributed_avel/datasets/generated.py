"""What the generators of features share: prototypes, slow noise, and spans in ten seconds.

A generated video is a sum of prototypes, one vector a class and role, each moved by a deviation
that is the video's own, and of noise that changes slowly from segment to segment. So videos are
hard, segments are not.

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
    """What is to be made: the script of a video."""

    @property
    def video_id(self) -> str:
        """Its id."""
        ...


_Script = TypeVar("_Script", bound=Scripted)
Draw = Callable[[_Script], tuple[NDArray[np.float32], NDArray[np.float16]]]
"""From a script to audio (T, D) and visual (T, R, D)."""


def fixed_timeline(config: DataConfig) -> Timeline:
    """Ten segments of one second.

    Raises:
        DatasetError: The timeline that was asked for is another.
    """
    if (config.num_segments, config.segment_s) != (NUM_SEGMENTS, SEGMENT_S):
        raise DatasetError(
            f"data.num_segments and data.segment_s must be {NUM_SEGMENTS} and {SEGMENT_S:g} for "
            f"the synthetic features, not {config.num_segments} and {config.segment_s:g}"
        )
    return Timeline(num_segments=NUM_SEGMENTS, segment_s=SEGMENT_S)


def numbered(config: SyntheticConfig) -> Iterator[tuple[Split, int]]:
    """Split and number of each video with an event."""
    counts: list[tuple[Split, int]] = [
        ("train", config.num_train),
        ("val", config.num_val),
        ("test", config.num_test),
    ]
    return ((split, index) for split, count in counts for index in range(count))


def in_chunks(scripts: Sequence[_Script], draw: Draw[_Script]) -> Iterator[FeatureChunk]:
    """Features of all videos, a few videos at a time."""
    for start in range(0, len(scripts), _CHUNK):
        chunk = scripts[start : start + _CHUNK]
        made = [draw(script) for script in chunk]
        yield FeatureChunk(
            video_ids=[script.video_id for script in chunk],
            audio_VTD=np.stack([audio_TD for audio_TD, _ in made]),
            visual_VTRD=np.stack([visual_TRD for _, visual_TRD in made]),
        )


def place_span(
    rng: np.random.Generator, length: int, at_start: float, at_end: float
) -> tuple[int, int]:
    """Start and end of a span of fewer than ten segments, in segments.

    Args:
        length: 1 to 9 segments.
        at_start: Share of spans that begin with the video.
        at_end: Share of spans that end with it; the others touch neither end, where they can.
    """
    where = rng.uniform()
    if where < at_start:
        return 0, length
    if where < at_start + at_end or length == NUM_SEGMENTS - 1:
        return NUM_SEGMENTS - length, NUM_SEGMENTS
    start = int(rng.integers(1, NUM_SEGMENTS - length))
    return start, start + length


@cache
def draw_prototype(
    seed: int, dataset: str, role: str, label: int, size: int
) -> NDArray[np.float64]:
    """The prototype of a class in a role, one standard deviation in each dimension."""
    return generator(seed, dataset, "prototype", role, label).standard_normal(size)


def instance(
    rng: np.random.Generator, mean_D: NDArray[np.float64], deviation: float
) -> NDArray[np.float64]:
    """A video's own version of a prototype, `deviation` prototypes away from it."""
    return mean_D + deviation * rng.standard_normal(mean_D.shape)


def slow_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Noise of the same spread in every segment, each half like the one before, (T, *shape)."""
    noise = rng.standard_normal((NUM_SEGMENTS, *shape))
    for segment in range(1, NUM_SEGMENTS):
        fresh = np.sqrt(1 - _AUTOCORRELATION**2) * noise[segment]
        noise[segment] = _AUTOCORRELATION * noise[segment - 1] + fresh
    return _SEGMENT_NOISE * noise
