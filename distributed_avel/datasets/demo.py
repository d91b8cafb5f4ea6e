"""`demo`: rendered mp4 files in AVE's layout, to run the whole pipeline without a download.

The data are synthetic and reproduce the problem that the paper addresses. Each class has a context
(`Script.place`) that is visible and audible throughout the video (`demo_scene`), so a model that
learns from video-level labels recognizes the context and repeats the label in every segment. The
event itself is visible and audible at the same time, and stronger. In background segments, its
shape or its tone may occur alone. Training videos without an event show one class, play the tone
of another and have no context; they are the partner videos.

The generator and its default seed were fixed before any model was trained on its videos. Changes
to the rendered videos must increment `REVISION`.

Shape suffixes used in this file:
    F = frames    P = side of a frame    3 = red, green, blue    N = samples of the waveform
    T = segments    1 = mono    2 = modalities (visual, audio)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distributed_avel.config import DataConfig, DemoConfig
from distributed_avel.datasets.ave import (
    ANNOTATIONS,
    EVENT_FREE,
    MEDIA_FOLDER,
    SPLIT_FILES,
    read_layout,
)
from distributed_avel.datasets.base import Split, VideoSet, register_dataset
from distributed_avel.datasets.demo_scene import (
    CLASSES,
    FPS,
    NUM_SEGMENTS,
    SAMPLE_RATE_HZ,
    SEGMENT_S,
    Script,
    draw,
)
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import DatasetError
from distributed_avel.media.write import write_mp4
from distributed_avel.randomness import derive, generator
from distributed_avel.storage import Location

REVISION = 1
"""Revision of the generator; part of every video id, so that revisions are never mixed."""

MARKER = "demo.json"

# Shares of events that last throughout, or else start with the video or end with it, as in AVE,
# and of background segments in which only the shape or only the tone occurs, or another class.
_WHOLE, _AT_START, _AT_END = 0.5, 0.36, 0.46
_SEEN_ONLY, _HEARD_ONLY, _DISTRACTOR = 0.2, 0.2, 0.2
_EVENT_FREE_ACTIVE = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSpec:
    """Specification of one demo video.

    Args:
        video_id: Id of the video.
        split: Split of the video.
        label: Class of the event; None for a video without an event.
        start: First segment of the event.
        end: Segment after the event.
        script: Content of each segment.
        seed: Seed of the rendering.
    """

    video_id: str
    split: Split
    label: int | None
    start: int
    end: int
    script: Script
    seed: int

    @property
    def file(self) -> str:
        """Path of the file below the root."""
        return f"{MEDIA_FOLDER}/{self.video_id}.mp4"

    @property
    def annotation(self) -> str:
        """Line of Annotations.txt; only for a video with an event."""
        assert self.label is not None
        return f"{CLASSES[self.label].name}&{self.video_id}&good&{self.start}&{self.end}"


@register_dataset("demo", section="demo")
def load_demo(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Return the demo videos below `root`; render them if necessary.

    Raises:
        DatasetError: `root` contains other data, or the timeline does not match the demo.
    """
    if not np.isclose(config.num_segments * config.segment_s, NUM_SEGMENTS * SEGMENT_S):
        raise DatasetError(
            f"data.num_segments x data.segment_s must be {NUM_SEGMENTS * SEGMENT_S:g} s, the "
            f"length of the demo videos, not {config.num_segments * config.segment_s:g} s"
        )
    if not is_rendered(config.demo, root):
        render_demo(config.demo, root)
    return read_layout(config, root, problems, name="demo", synthetic=True)


def render_demo(
    config: DemoConfig, root: Location, progress: Callable[[int, int], None] | None = None
) -> None:
    """Render all missing videos, then write the annotations.

    Args:
        config: Section `data.demo` of the settings.
        root: Folder of the data set.
        progress: Called after each video with the number of finished videos and of all videos.

    Raises:
        DatasetError: `root` contains other data.
    """
    if is_rendered(config, root):
        return
    specs = demo_specs(config)
    for done, spec in enumerate(specs, start=1):
        render_into(spec, root)
        if progress is not None:
            progress(done, len(specs))
    write_layout(config, root)


def is_rendered(config: DemoConfig, root: Location) -> bool:
    """Return True if `root` contains exactly these videos, completely rendered.

    Raises:
        DatasetError: `root` contains other demo videos or another data set.
    """
    remedy = "choose another data.root, or remove that folder"
    if (root / MARKER).exists():
        existing, expected = (root / MARKER).read_json(), demo_identity(config)
        if existing != expected:
            raise DatasetError(
                f"{root / MARKER}: rendered with {existing}, expected {expected}; {remedy}"
            )
        return True
    texts = _texts(demo_specs(config))
    for name in (ANNOTATIONS, *SPLIT_FILES.values()):
        if (root / name).exists() and (root / name).read_bytes() != texts[name]:
            raise DatasetError(f"{root / name}: belongs to another data set; {remedy}")
    return False


def demo_specs(config: DemoConfig) -> list[VideoSpec]:
    """Return the specifications of all videos, in a fixed order.

    A video does not depend on the number of videos.
    """
    counts: list[tuple[Split, int]] = [
        ("train", config.num_train),
        ("val", config.num_val),
        ("test", config.num_test),
    ]
    return [
        *(_event_spec(config.seed, split, i) for split, count in counts for i in range(count)),
        *(_event_free_spec(config.seed, i) for i in range(config.num_event_free)),
    ]


def render_into(spec: VideoSpec, root: Location) -> None:
    """Render one video below `root` unless it exists; files are written atomically."""
    if not (root / spec.file).exists():
        (root / spec.file).write_bytes(render_video(spec))


def render_video(spec: VideoSpec) -> bytes:
    """Render one video as an mp4 file; the same specification gives the same bytes."""
    frames_FPP3, wave_1N = draw(spec.script, np.random.default_rng(spec.seed))
    return write_mp4(frames_FPP3, FPS, wave_1N, SAMPLE_RATE_HZ, crf=28)


def write_layout(config: DemoConfig, root: Location) -> None:
    """Write annotations and splits, and finally the marker of a complete data set.

    Raises:
        DatasetError: A video has not been rendered.
    """
    specs = demo_specs(config)
    present = {file.name for file in (root / MEDIA_FOLDER).children()}
    missing = [spec for spec in specs if f"{spec.video_id}.mp4" not in present]
    if missing:
        raise DatasetError(
            f"{root}: {len(missing)} of {len(specs)} demo videos are not rendered, the first "
            f"is {missing[0].file}; render them before the annotations"
        )
    for name, text in _texts(specs).items():
        (root / name).write_bytes(text)
    (root / MARKER).write_json(demo_identity(config))


def demo_identity(config: DemoConfig) -> dict[str, int]:
    """Return everything that the rendered videos depend on."""
    return {"revision": REVISION, **config.model_dump(mode="json")}


def _texts(specs: list[VideoSpec]) -> dict[str, bytes]:
    """Return the text files of the layout, by name."""
    events = [spec for spec in specs if spec.label is not None]
    lines = {ANNOTATIONS: ["Category&VideoID&Quality&StartTime&EndTime"]}
    lines[ANNOTATIONS] += [spec.annotation for spec in events]
    for split, name in SPLIT_FILES.items():
        lines[name] = [spec.annotation for spec in events if spec.split == split]
    lines[EVENT_FREE] = [spec.video_id for spec in specs if spec.label is None]
    return {name: "".join(f"{line}\n" for line in text).encode() for name, text in lines.items()}


def _event_spec(seed: int, split: Split, index: int) -> VideoSpec:
    """Specify a video with an event of class `index % len(CLASSES)`: classes are balanced."""
    video_id = f"r{REVISION}s{seed}_{split}_{index:04d}"
    rng = generator(seed, "demo", video_id, "script")
    label = index % len(CLASSES)
    start, end = _span(rng)
    seen: list[int | None] = [None] * NUM_SEGMENTS
    heard: list[int | None] = [None] * NUM_SEGMENTS
    for segment in range(NUM_SEGMENTS):
        kind, distracts, other = rng.uniform(), rng.uniform() < _DISTRACTOR, _other(label, rng)
        if start <= segment < end:
            seen[segment] = heard[segment] = label
        elif kind < _SEEN_ONLY:
            seen[segment], heard[segment] = label, other if distracts else None
        elif kind < _SEEN_ONLY + _HEARD_ONLY:
            seen[segment], heard[segment] = other if distracts else None, label
    return VideoSpec(
        video_id=video_id,
        split=split,
        label=label,
        start=start,
        end=end,
        script=Script(label, tuple(seen), tuple(heard)),
        seed=derive(seed, "demo", video_id, "render"),
    )


def _event_free_spec(seed: int, index: int) -> VideoSpec:
    """Specify a training video that shows one class and plays another, each in some segments."""
    video_id = f"r{REVISION}s{seed}_eventfree_{index:04d}"
    rng = generator(seed, "demo", video_id, "script")
    seen = int(rng.integers(len(CLASSES)))
    heard = _other(seen, rng)
    active_2T = rng.uniform(size=(2, NUM_SEGMENTS)) < _EVENT_FREE_ACTIVE
    script = Script(
        None,
        tuple(seen if active else None for active in active_2T[0]),
        tuple(heard if active else None for active in active_2T[1]),
    )
    return VideoSpec(
        video_id=video_id,
        split="train",
        label=None,
        start=0,
        end=0,
        script=script,
        seed=derive(seed, "demo", video_id, "render"),
    )


def _span(rng: np.random.Generator) -> tuple[int, int]:
    """Draw start and end of an event: often the whole video, else 2 to 9 s, mostly at an end."""
    if rng.uniform() < _WHOLE:
        return 0, NUM_SEGMENTS
    length, position = int(rng.integers(2, NUM_SEGMENTS)), rng.uniform()
    if position < _AT_START:
        return 0, length
    if position < _AT_START + _AT_END or length == NUM_SEGMENTS - 1:
        return NUM_SEGMENTS - length, NUM_SEGMENTS
    start = int(rng.integers(1, NUM_SEGMENTS - length))
    return start, start + length


def _other(label: int, rng: np.random.Generator) -> int:
    """Draw a class other than `label`."""
    return int((label + rng.integers(1, len(CLASSES))) % len(CLASSES))
