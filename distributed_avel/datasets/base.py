"""What a data set is, and the list of those we have.

To add one: write `datasets/<name>.py` with a function from a `DataConfig` to a `VideoSet`,
decorate it with `@register_dataset("<name>")`, and import it in `datasets/__init__.py`. A data
set that brings its features says so with `@register_features("<name>")`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distributed_avel.artifacts import Location
from distributed_avel.config import DataConfig
from distributed_avel.errors import DatasetError
from distributed_avel.schema import VIDEOS
from distributed_avel.timeline import Timeline

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Span:
    """An event that is both seen and heard from `start_s` to `end_s`."""

    label: int
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One item of a data set.

    `video_id` is unique. Two videos of the same file (AVE annotates 45 files with two
    classes) have the same `uri`. `spans` is None where nobody annotated the segments.
    """

    video_id: str
    uri: str
    split: Split
    labels: tuple[int, ...]
    spans: tuple[Span, ...] | None


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """The videos of a data set and what their labels mean.

    `synthetic` says that the data were generated; every result carries it on.
    """

    name: str
    classes: tuple[str, ...]
    timeline: Timeline
    videos: tuple[Video, ...]
    synthetic: bool

    def __post_init__(self) -> None:
        """Refuse what no later stage could use."""
        seen = set()
        for video in self.videos:
            if video.video_id in seen:
                raise DatasetError(f"{self.name}: video {video.video_id!r} stands twice")
            seen.add(video.video_id)
            unknown = [c for c in video.labels if not 0 <= c < len(self.classes)]
            if unknown:
                raise DatasetError(f"{self.name}: {video.video_id}: no class {unknown[0]}")

    @property
    def num_classes(self) -> int:
        """C, the event classes; background is index C."""
        return len(self.classes)

    def split(self, split: Split) -> "list[Video]":
        """Videos of one split, by id, so that no order of rows or blocks matters later."""
        return sorted((v for v in self.videos if v.split == split), key=lambda v: v.video_id)

    def video_labels(self, videos: Iterable[Video]) -> NDArray[np.bool_]:
        """Y, shape (V, C + 1); the background bit is set only where there is no event."""
        videos = list(videos)
        labels_VK = np.zeros((len(videos), self.num_classes + 1), dtype=bool)
        for row, video in zip(labels_VK, videos, strict=True):
            row[list(video.labels) or [self.num_classes]] = True
        return labels_VK

    def segment_labels(self, videos: Iterable[Video]) -> NDArray[np.bool_]:
        """Which events each segment has, shape (V, T, C + 1); background where it has none.

        Raises:
            DatasetError: A video has no segment annotation.
        """
        videos = list(videos)
        shape = (len(videos), self.timeline.num_segments, self.num_classes + 1)
        labels_VTK = np.zeros(shape, dtype=bool)
        for labels_TK, video in zip(labels_VTK, videos, strict=True):
            if video.spans is None:
                raise DatasetError(f"{self.name}: {video.video_id} has no segment annotation")
            for span in video.spans:
                for segment in self.timeline.segments_of(span.start_s, span.end_s):
                    labels_TK[segment, span.label] = True
            labels_TK[:, -1] = ~labels_TK.any(axis=1)
        return labels_VTK

    def to_table(self) -> pa.Table:
        """The videos as a table of `schema.VIDEOS`, by id; `from_table` is its inverse."""
        rows = [
            {
                "video_id": v.video_id,
                "uri": v.uri,
                "split": v.split,
                "labels": list(v.labels),
                "spans": None
                if v.spans is None
                else [{"label": s.label, "start_s": s.start_s, "end_s": s.end_s} for s in v.spans],
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
        """The data set that `to_table` wrote, with what the table does not say."""
        videos = (
            Video(
                video_id=row["video_id"],
                uri=row["uri"],
                split=row["split"],
                labels=tuple(row["labels"]),
                spans=None if row["spans"] is None else tuple(Span(**s) for s in row["spans"]),
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


LoadDataset = Callable[[DataConfig, Location], VideoSet]
"""From the settings and the root of the data set to its videos."""

_DATASETS: dict[str, LoadDataset] = {}
_NEED_NO_ROOT: set[str] = set()


def register_dataset(name: str, *, needs_root: bool = True) -> Callable[[LoadDataset], LoadDataset]:
    """Function decorator that makes a data set known under `name`.

    Args:
        needs_root: Whether there are files that the user has to name with `data.root`.
    """

    def register(load: LoadDataset) -> LoadDataset:
        if name in _DATASETS:
            raise ValueError(f"data set {name!r} is already registered by {_DATASETS[name]}")
        _DATASETS[name] = load
        if not needs_root:
            _NEED_NO_ROOT.add(name)
        return load

    return register


def needs_root(name: str) -> bool:
    """Whether the user has to name the files of a data set."""
    return name not in _NEED_NO_ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureChunk:
    """Ready-made features of a few videos: audio (V, T, D_a) and visual (V, T, R, D_v)."""

    video_ids: Sequence[str]
    audio_VTD: NDArray[np.floating]
    visual_VTRD: NDArray[np.floating]


ReadFeatures = Callable[[DataConfig, Location], Iterator[FeatureChunk]]
"""From the settings and the root of the data set to its features, a few videos at a time."""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Where a data set's features come from instead of an extractor.

    `files` lie below the root; features are read anew when one of them was replaced.
    """

    read: ReadFeatures
    files: tuple[str, ...]


_FEATURES: dict[str, FeatureSource] = {}


def register_features(
    name: str, *, files: Sequence[str] = ()
) -> Callable[[ReadFeatures], ReadFeatures]:
    """Function decorator: the data set `name` brings its features, so none are extracted.

    The function yields chunks, so that a data set of any size is imported in constant memory.
    Videos that it leaves out are listed as failures.
    """

    def register(read: ReadFeatures) -> ReadFeatures:
        if name in _FEATURES:
            raise ValueError(f"features of {name!r} are already registered by {_FEATURES[name]}")
        _FEATURES[name] = FeatureSource(read, tuple(files))
        return read

    return register


def feature_source(name: str) -> FeatureSource | None:
    """The ready-made features of a data set, or None where they are extracted."""
    return _FEATURES.get(name)


def dataset_names() -> list[str]:
    """Names of all data sets, in alphabetical order."""
    return sorted(_DATASETS)


def load_dataset(config: DataConfig, root: Location) -> VideoSet:
    """The data set that `config` names, or an error that lists the ones there are."""
    try:
        load = _DATASETS[config.dataset]
    except KeyError:
        known = ", ".join(dataset_names())
        raise DatasetError(
            f"data.dataset: no data set {config.dataset!r}; there are: {known}"
        ) from None
    return load(config, root)
