"""Data sets: videos with their labels, and the registry of data set readers.

To add a data set, write `datasets/<name>.py` with a function that returns a `VideoSet`, decorate
it with `@register_dataset("<name>")`, and import it in `datasets/__init__.py`, or register it from
your own package (see `distributed_avel.registry`). The reader collects mistakes in `Problems` and
continues, so that all of them are reported at once. A data set with ready-made features registers
their reader with `@register_features("<name>")`.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions    D = feature size
    C = event classes    K = C + 1, background last
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distributed_avel.config import Config, DataConfig
from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.text import read_lines
from distributed_avel.errors import ConfigError, DatasetError
from distributed_avel.registry import Registry
from distributed_avel.schema import VIDEOS
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Span:
    """An event of class `label` from `start_s` to `end_s`, in seconds."""

    label: int
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """A video of a data set.

    Args:
        video_id: Unique id.
        uri: Path of the file below the root. Two videos of one file have the same `uri`: AVE
            annotates 45 files with two classes.
        split: Split of the video.
        labels: Event classes of the video-level label, empty for a video without an event.
        spans: Audio-visual events; None if the segments are not annotated.
        audio_spans: Audible events, if each modality is annotated (LLP); `spans` is then the
            intersection of both.
        visual_spans: Visible events, if each modality is annotated.
    """

    video_id: str
    uri: str
    split: Split
    labels: tuple[int, ...]
    spans: tuple[Span, ...] | None
    audio_spans: tuple[Span, ...] | None = None
    visual_spans: tuple[Span, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """The videos of a data set.

    Args:
        name: Name of the data set.
        classes: Names of the event classes, without background.
        timeline: Segments of a video.
        videos: Videos of all splits.
        synthetic: Whether the data are generated; every result is then labelled synthetic.

    Raises:
        DatasetError: A video id appears twice, or a label has no class.
    """

    name: str
    classes: tuple[str, ...]
    timeline: Timeline
    videos: tuple[Video, ...]
    synthetic: bool

    def __post_init__(self) -> None:
        """Check video ids and labels."""
        video_ids = set()
        for video in self.videos:
            if video.video_id in video_ids:
                raise DatasetError(f"{self.name}: video {video.video_id!r} appears twice")
            video_ids.add(video.video_id)
            unknown = [c for c in video.labels if not 0 <= c < len(self.classes)]
            if unknown:
                raise DatasetError(f"{self.name}: {video.video_id}: no class {unknown[0]}")

    @property
    def num_classes(self) -> int:
        """Number of event classes C; background has index C."""
        return len(self.classes)

    def split(self, split: Split) -> "list[Video]":
        """Return the videos of one split sorted by id, so that no result depends on their order."""
        return sorted((v for v in self.videos if v.split == split), key=lambda v: v.video_id)

    def video_labels(self, videos: Iterable[Video]) -> NDArray[np.bool_]:
        """Return video-level labels Y, shape (V, C + 1); background only without any event."""
        videos = list(videos)
        labels_VK = np.zeros((len(videos), self.num_classes + 1), dtype=bool)
        for row, video in zip(labels_VK, videos, strict=True):
            row[list(video.labels) or [self.num_classes]] = True
        return labels_VK

    def segment_labels(self, videos: Iterable[Video]) -> NDArray[np.bool_]:
        """Return segment-level labels, shape (V, T, C + 1); background only without any event.

        Raises:
            DatasetError: A video has no segment annotation.
        """
        videos = list(videos)
        events_VTC = self._events(videos, [video.spans for video in videos])
        return np.concatenate([events_VTC, ~events_VTC.any(axis=2, keepdims=True)], axis=2)

    def modality_labels(
        self, videos: Iterable[Video]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the audible and the visible events of each segment, both (V, T, C).

        Raises:
            DatasetError: The modalities of a video are not annotated.
        """
        videos = list(videos)
        return (
            self._events(videos, [video.audio_spans for video in videos]),
            self._events(videos, [video.visual_spans for video in videos]),
        )

    def _events(
        self, videos: list[Video], spans: list[tuple[Span, ...] | None]
    ) -> NDArray[np.bool_]:
        shape = (len(videos), self.timeline.num_segments, self.num_classes)
        events_VTC = np.zeros(shape, dtype=bool)
        for events_TC, video, of_video in zip(events_VTC, videos, spans, strict=True):
            if of_video is None:
                raise DatasetError(f"{self.name}: {video.video_id} has no segment annotation")
            for label in {span.label for span in of_video}:
                times = [(span.start_s, span.end_s) for span in of_video if span.label == label]
                events_TC[self.timeline.segments_of(times), label] = True
        return events_VTC

    def to_table(self) -> pa.Table:
        """Convert to a table with schema `schema.VIDEOS`, sorted by id."""
        rows = [
            {
                "video_id": v.video_id,
                "uri": v.uri,
                "split": v.split,
                "labels": list(v.labels),
                "spans": _span_rows(v.spans),
                "audio_spans": _span_rows(v.audio_spans),
                "visual_spans": _span_rows(v.visual_spans),
            }
            for v in sorted(self.videos, key=lambda v: v.video_id)
        ]
        return pa.Table.from_pylist(rows, schema=VIDEOS)

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        *,
        name: str,
        classes: Iterable[str],
        timeline: Timeline,
        synthetic: bool,
    ) -> "VideoSet":
        """Create a data set from a table of `to_table` and the fields that are not in it."""
        videos = (
            Video(
                video_id=row["video_id"],
                uri=row["uri"],
                split=row["split"],
                labels=tuple(row["labels"]),
                spans=_spans(row["spans"]),
                audio_spans=_spans(row["audio_spans"]),
                visual_spans=_spans(row["visual_spans"]),
            )
            for row in table.to_pylist()
        )
        return cls(
            name=name,
            classes=tuple(classes),
            timeline=timeline,
            videos=tuple(videos),
            synthetic=synthetic,
        )


def _span_rows(spans: tuple[Span, ...] | None) -> list[dict[str, float]] | None:
    if spans is None:
        return None
    return [{"label": s.label, "start_s": s.start_s, "end_s": s.end_s} for s in spans]


def _spans(rows: list[dict] | None) -> tuple[Span, ...] | None:
    return None if rows is None else tuple(Span(**row) for row in rows)


LoadDataset = Callable[[DataConfig, Location, Problems], VideoSet]
"""Reader of a data set, called with its settings and the root of its files.

It reports unusable rows in `Problems` and skips them, and raises `DatasetError` if it cannot
continue."""

_DATASETS: Registry[LoadDataset] = Registry("data set", "data.dataset", "distributed_avel.datasets")
_NEED_NO_ROOT: set[str] = set()
_SECTIONS: dict[str, str] = {}
_ALL_SECTIONS = {
    field
    for field, info in DataConfig.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Config)
}


def register_dataset(
    name: str, *, needs_root: bool = True, section: str | None = None
) -> Callable[[LoadDataset], LoadDataset]:
    """Register a reader of the data set `name` (function decorator).

    Args:
        name: Name of the data set.
        needs_root: Whether the data set has files, whose folder is `data.root`.
        section: Section of `DataConfig` that the data set reads, such as "synthetic". Cache keys
            of the data set include only this section.
    """

    def register(load: LoadDataset) -> LoadDataset:
        _DATASETS.register(name, load)
        if not needs_root:
            _NEED_NO_ROOT.add(name)
        if section is not None:
            _SECTIONS[name] = section
        return load

    return register


def dataset_reader(name: str) -> LoadDataset:
    """Return the reader of a data set.

    Raises:
        ConfigError: There is no such data set; the message lists the registered names.
    """
    return _DATASETS[name]


def needs_root(name: str) -> bool:
    """Return True if a data set needs `data.root`."""
    dataset_reader(name)  # imports the package that registers it
    return name not in _NEED_NO_ROOT


def unread_sections(name: str) -> set[str]:
    """Return the sections of `DataConfig` that a data set does not read."""
    dataset_reader(name)  # imports the package that registers it
    return _ALL_SECTIONS - {_SECTIONS.get(name)}


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureChunk:
    """Ready-made features of several videos: audio (V, T, D_a) and visual (V, T, R, D_v)."""

    video_ids: Sequence[str]
    audio_VTD: NDArray[np.floating]
    visual_VTRD: NDArray[np.floating]


ReadFeatures = Callable[[DataConfig, Location], Iterator[FeatureChunk]]
"""Reader of ready-made features, which yields a few videos at a time."""

FeatureFiles = Callable[[VideoSet], Sequence[str]]
"""Returns the paths of the feature files of the videos, below the root."""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Ready-made features of a data set, which replace an extractor.

    Args:
        read: Reader of the features.
        files_of: Returns the files of the features; a changed file invalidates the cache.
    """

    read: ReadFeatures
    files_of: FeatureFiles


_FEATURES: dict[str, FeatureSource] = {}


def _no_files(videos: VideoSet) -> Sequence[str]:
    return ()


def register_features(
    name: str, *, files_of: FeatureFiles = _no_files
) -> Callable[[ReadFeatures], ReadFeatures]:
    """Register a reader of ready-made features of the data set `name` (function decorator).

    The reader yields chunks, so that a data set of any size is imported in constant memory. Videos
    that it skips are listed as failures.

    Args:
        name: Name of the data set.
        files_of: Returns the files that the reader reads; none if the features are generated.
    """

    def register(read: ReadFeatures) -> ReadFeatures:
        if name in _FEATURES:
            raise ValueError(f"features of {name!r} are already registered by {_FEATURES[name]}")
        _FEATURES[name] = FeatureSource(read, files_of)
        return read

    return register


def feature_source(name: str) -> FeatureSource | None:
    """Return the source of a data set's ready-made features, or None if they are extracted."""
    dataset_reader(name)  # imports the package that registers it
    return _FEATURES.get(name)


def dataset_names() -> list[str]:
    """Return the names of all data sets, in alphabetical order."""
    return _DATASETS.names()


def load_dataset(config: DataConfig, root: Location | None = None) -> VideoSet:
    """Read the data set `config.dataset`, with the split of `config.split` if it is set.

    Args:
        config: Section `data` of the settings.
        root: Folder of its files; `config.root` by default.

    Raises:
        ConfigError: There is no such data set, or it needs a folder and none is given.
        DatasetError: The data set has errors; the message lists up to 20.
    """
    problems = Problems()
    if root is None:
        if config.root is None and needs_root(config.dataset):
            raise ConfigError(f"data.root: set it to the folder of the files of {config.dataset!r}")
        root = Location.at(config.root or ".")
    videos = inspect_dataset(config, root, problems)
    problems.refuse(config.dataset)
    return videos


def inspect_dataset(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """Read a data set without its unusable rows, which are reported in `problems`.

    Raises:
        ConfigError: There is no such data set.
        DatasetError: Its reader cannot continue.
    """
    videos = dataset_reader(config.dataset)(config, root, problems)
    return _resplit(videos, Location.at(config.split), problems) if config.split else videos


def split_file(split: Split) -> str:
    """Return the name of the file in `data.split` that lists the video ids of a split."""
    return f"{split}.txt"


def _resplit(videos: VideoSet, folder: Location, problems: Problems) -> VideoSet:
    """Return the videos in the split files of a folder, with their new split."""
    by_id = {video.video_id: video for video in videos.videos}
    resplit: dict[str, Video] = {}
    for split in get_args(Split):
        file = folder / split_file(split)
        if not file.exists():
            raise DatasetError(
                f"{file}: no such file; data.split must be a folder with train.txt, val.txt "
                f"and test.txt, with one video id per line"
            )
        lines = enumerate(read_lines(file), start=1)
        for number, video_id in ((number, line.strip()) for number, line in lines):
            if not video_id:
                continue
            if video_id not in by_id:
                problems.error(f"{file}:{number}: {videos.name} has no video {video_id!r}")
            elif video_id in resplit:
                taken = split_file(resplit[video_id].split)
                problems.error(f"{file}:{number}: {video_id!r} is already in {taken}")
            else:
                resplit[video_id] = replace(by_id[video_id], split=split)
        if not any(video.split == split for video in resplit.values()):
            problems.error(f"{file}: lists no video; every split needs at least one")
    return replace(videos, videos=tuple(resplit.values()))
