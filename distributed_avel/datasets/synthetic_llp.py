"""`synthetic_llp`: generated features in LLP's shape, to study parsing without any media file.

The features of a video are a sum of prototypes, one vector per class, modality and role:

- An *event* of class c adds the audio prototype of c in the segments in which it is audible, and
  the visual prototype in those in which it is visible. These segments may differ, and an event may
  occur in one modality only.
- The *context* of class c, half as strong, is in every segment of a video with an event of class
  c, in both modalities, even if the event occurs in only one. The context suffices to predict the
  video-level labels, so a model that learns from them repeats them in every segment of both
  modalities: the failure that label refinement (over time) and the exchange of a modality (between
  modalities) address.
- Each video has its own instance of each prototype, 0.8 standard deviations of a prototype away
  from it. Within a video, there is only weak (0.3), slowly changing noise (AR(1), 0.5).
- Training videos without an event are noise; by default there are none, as in LLP.

Modalities and times of events follow the annotations of LLP's 1849 validation and test videos; the
counts below are in segments of one second. All classes are equally frequent and have the same
statistics, while LLP's Speech is in half of the videos and mostly invisible.

As in LLP, training videos have only video-level labels. Visual features have one row per segment:
64 frame features followed by 16 motion features, like 2048 and 512 in `llp_features`.

The generator and its default seed were fixed before any model was trained on its features. Changes
to the features must increment `REVISION`.

Shape suffixes used in this file:
    V = videos    T = segments    R = visual rows of a segment (1)    D = feature size
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import DataConfig, SyntheticLlpConfig
from distributed_avel.datasets.base import (
    FeatureChunk,
    Span,
    Split,
    Video,
    VideoSet,
    register_dataset,
    register_features,
)
from distributed_avel.datasets.generated import (
    CONTEXT_STRENGTH,
    NUM_SEGMENTS,
    SEGMENT_S,
    draw_prototype,
    fixed_timeline,
    in_chunks,
    instance,
    numbered,
    place_span,
    slow_noise,
)
from distributed_avel.datasets.llp import overlaps
from distributed_avel.datasets.problems import Problems
from distributed_avel.randomness import generator
from distributed_avel.storage import Location

REVISION = 1
"""Revision of the generator; part of every video id, so that revisions are never mixed."""

_INSTANCE_DEVIATION = 0.8

NAME = "synthetic_llp"
NUM_CLASSES = 25
AUDIO_DIM, FRAME_DIM, MOTION_DIM = 32, 64, 16
VISUAL_DIM = FRAME_DIM + MOTION_DIM

NUM_EVENTS = {1: 607, 2: 1014, 3: 178, 4: 46}
"""Number of LLP's videos by number of events in either modality; four more have 5 or 7."""

ALONE = {"both": 504, "heard": 96, "seen": 7}
"""Number of events by modality, in videos with one event."""

AMONG_OTHERS = {"both": 1540, "heard": 1081, "seen": 147}
"""Number of events by modality, in videos with several events."""

THROUGHOUT = {
    (True, True): 870,
    (False, True): 406,
    (True, False): 171,
    (False, False): 597,
}
"""Number of events in both modalities by whether they are (audible, visible) in all ten seconds."""

SAME_TIMES = 0.61
"""Share of equal times among events that are audible and visible for part of the video."""

THROUGHOUT_IF_ALONE = {"heard": 0.24, "seen": 0.58}
"""Share of events in one modality only that last all ten seconds."""

SECONDS = {
    "heard": {
        1: {1: 186, 2: 187, 3: 149, 4: 151, 5: 100, 6: 103, 7: 114, 8: 100, 9: 117},
        2: {2: 48, 3: 46, 4: 76, 5: 69, 6: 70, 7: 78, 8: 80, 9: 86},
        3: {3: 10, 4: 15, 5: 32, 6: 36, 7: 26, 8: 23},
    },
    "seen": {
        1: {1: 64, 2: 81, 3: 83, 4: 77, 5: 48, 6: 74, 7: 58, 8: 62, 9: 46},
        2: {2: 11, 3: 13, 4: 19, 5: 30, 6: 32, 7: 29, 8: 37, 9: 32},
        3: {3: 3, 4: 5, 5: 11, 6: 9, 7: 5, 8: 4},
    },
}
"""Number of events that last part of the video, by modality, number of spans (1, 2, and 3 or more)
and total seconds of all spans."""

AT_START = {"heard": 0.34, "seen": 0.41}
AT_END = {"heard": 0.38, "seen": 0.36}
"""Shares of events with one span that start with the video, or end with it."""

Spans = tuple[tuple[int, int], ...]
"""Starts and ends, in segments, separated by gaps."""

_WHOLE: Spans = ((0, NUM_SEGMENTS),)

_Key = TypeVar("_Key")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Times at which an event is audible and visible; empty for an absent modality."""

    label: int
    heard: Spans
    seen: Spans


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """Content of a video: its events, of distinct classes, sorted by class."""

    video_id: str
    split: Split
    events: tuple[Event, ...]


@register_dataset(NAME, needs_root=False, section="synthetic_llp")
def load_synthetic_llp(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the synthetic videos.

    Raises:
        DatasetError: The settings specify another timeline.
    """
    return VideoSet(
        name=NAME,
        classes=tuple(f"class {number:02d}" for number in range(NUM_CLASSES)),
        timeline=fixed_timeline(config),
        videos=tuple(_video(script) for script in scripts(config.synthetic_llp)),
        synthetic=True,
    )


@register_features(NAME)
def synthetic_llp_features(config: DataConfig, root: Location) -> Iterator[FeatureChunk]:
    """Yield the features of all videos: audio (V, 10, 32) and visual (V, 10, 1, 80)."""
    seed = config.synthetic_llp.seed
    return in_chunks(scripts(config.synthetic_llp), lambda script: draw(script, seed))


def scripts(config: SyntheticLlpConfig) -> list[Script]:
    """Return the scripts of all videos, in a fixed order.

    A video does not depend on the number of videos.
    """
    return [
        *(_script(config.seed, split, index) for split, index in numbered(config)),
        *(_event_free(config.seed, index) for index in range(config.num_event_free)),
    ]


def draw(script: Script, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Draw the features of one video: audio (T, D) and visual (T, R, D)."""
    rng = generator(seed, NAME, script.video_id, "features")
    audio_TD = slow_noise(rng, (AUDIO_DIM,))
    visual_TD = slow_noise(rng, (VISUAL_DIM,))
    for event in script.events:
        audio_TD += CONTEXT_STRENGTH * _instance(rng, seed, "context heard", event.label)
        visual_TD += CONTEXT_STRENGTH * _instance(rng, seed, "context seen", event.label)
        heard_D = _instance(rng, seed, "heard", event.label)
        seen_D = _instance(rng, seed, "seen", event.label)
        for start, end in event.heard:
            audio_TD[start:end] += heard_D
        for start, end in event.seen:
            visual_TD[start:end] += seen_D
    return audio_TD.astype(np.float32), visual_TD[:, None].astype(np.float16)


def prototype(seed: int, role: str, label: int) -> NDArray[np.float64]:
    """Return the prototype of a class in a role, a standard normal vector."""
    size = AUDIO_DIM if role.endswith("heard") else VISUAL_DIM
    return draw_prototype(seed, NAME, role, label, size)


def _instance(rng: np.random.Generator, seed: int, role: str, label: int) -> NDArray[np.float64]:
    return instance(rng, prototype(seed, role, label), _INSTANCE_DEVIATION)


def _script(seed: int, split: Split, index: int) -> Script:
    """Draw a video with an event of class `index % NUM_CLASSES`: classes are balanced."""
    video_id = f"llp{REVISION}s{seed}_{split}_{index:04d}"
    rng = generator(seed, NAME, video_id, "script")
    first = index % NUM_CLASSES
    num_events = _choose(rng, NUM_EVENTS)
    steps = rng.choice(NUM_CLASSES - 1, size=num_events - 1, replace=False) + 1
    labels = sorted({first, *((first + steps) % NUM_CLASSES).tolist()})
    kinds = ALONE if num_events == 1 else AMONG_OTHERS
    events = tuple(_event(rng, label, _choose(rng, kinds)) for label in labels)
    return Script(video_id=video_id, split=split, events=events)


def _event_free(seed: int, index: int) -> Script:
    video_id = f"llp{REVISION}s{seed}_eventfree_{index:04d}"
    return Script(video_id=video_id, split="train", events=())


def _event(rng: np.random.Generator, label: int, kind: str) -> Event:
    """Draw an event in both modalities ("both", with at least one common segment) or in one."""
    if kind != "both":
        throughout = rng.uniform() < THROUGHOUT_IF_ALONE[kind]
        spans = _WHOLE if throughout else _draw_part(rng, kind)
        if kind == "heard":
            return Event(label=label, heard=spans, seen=())
        return Event(label=label, heard=(), seen=spans)
    heard_throughout, seen_throughout = _choose(rng, THROUGHOUT)
    heard = _WHOLE if heard_throughout else _draw_part(rng, "heard")
    if not (heard_throughout or seen_throughout) and rng.uniform() < SAME_TIMES:
        return Event(label=label, heard=heard, seen=heard)
    seen = _WHOLE if seen_throughout else _draw_part(rng, "seen")
    while not _segments(heard) & _segments(seen):
        heard, seen = _draw_part(rng, "heard"), _draw_part(rng, "seen")
    return Event(label=label, heard=heard, seen=seen)


def _draw_part(rng: np.random.Generator, modality: str) -> Spans:
    """Draw the spans of an event that lasts part of the video."""
    counts = {
        (num_spans, seconds): count
        for num_spans, by_seconds in SECONDS[modality].items()
        for seconds, count in by_seconds.items()
    }
    num_spans, seconds = _choose(rng, counts)
    if num_spans == 1:
        return (place_span(rng, seconds, AT_START[modality], AT_END[modality]),)
    lengths = _parts(rng, seconds, num_spans)
    gaps = _parts(rng, NUM_SEGMENTS - seconds + 2, num_spans + 1)
    gaps[[0, -1]] -= 1  # the gaps before the first span and after the last may be empty
    starts = gaps[:-1].cumsum() + lengths.cumsum() - lengths
    ends = starts + lengths
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def _parts(rng: np.random.Generator, total: int, num_parts: int) -> NDArray[np.int64]:
    """Draw positive integers with the sum `total`, uniformly among all such sequences."""
    cuts = np.sort(rng.choice(total - 1, size=num_parts - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total)


def _choose(rng: np.random.Generator, counts: Mapping[_Key, int]) -> _Key:
    """Draw a key with a probability proportional to its count."""
    weights = np.array([*counts.values()], dtype=float)
    return list(counts)[rng.choice(len(counts), p=weights / weights.sum())]


def _segments(spans: Spans) -> set[int]:
    return {segment for start, end in spans for segment in range(start, end)}


def _video(script: Script) -> Video:
    heard = tuple(s for event in script.events for s in _in_seconds(event.label, event.heard))
    seen = tuple(s for event in script.events for s in _in_seconds(event.label, event.seen))
    annotated = script.split != "train"
    return Video(
        video_id=script.video_id,
        uri=script.video_id,
        split=script.split,
        labels=tuple(event.label for event in script.events),
        spans=overlaps(heard, seen) if annotated else None,
        audio_spans=heard if annotated else None,
        visual_spans=seen if annotated else None,
    )


def _in_seconds(label: int, spans: Spans) -> Iterator[Span]:
    return (Span(label, start * SEGMENT_S, end * SEGMENT_S) for start, end in spans)
