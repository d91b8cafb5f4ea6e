"""What a data set is, and the list of those we have.

To add one: write `datasets/<name>.py` with a function from a `DataConfig` to a `VideoSet`,
decorate it with `@register_dataset("<name>")`, and import it in `datasets/__init__.py`. It hands
what is wrong to `Problems` and goes on, so that a user hears of everything at once. A data set
that brings its features says so with `@register_features("<name>")`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distributed_avel.artifacts import Location
from distributed_avel.config import DataConfig
from distributed_avel.datasets.problems import Problems
from distributed_avel.datasets.text import read_lines
from distributed_avel.errors import DatasetError
from distributed_avel.schema import VIDEOS
from distributed_avel.timeline import Timeline

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Span:
    """An event of class `label` from `start_s` to `end_s`: both seen and heard, if not said
    otherwise."""

    label: int
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One item of a data set.

    `video_id` is unique. Two videos of the same file (AVE annotates 45 files with two
    classes) have the same `uri`. `spans` is None where nobody annotated the segments.
    `audio_spans` and `visual_spans` are what is heard and what is seen, where that was
    annotated apart (LLP); `spans` is then what they have in common.
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
        events_VTC = self._events(videos, [video.spans for video in videos])
        return np.concatenate([events_VTC, ~events_VTC.any(axis=2, keepdims=True)], axis=2)

    def modality_labels(
        self, videos: Iterable[Video]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which events are heard and which are seen in each segment, two of shape (V, T, C).

        Raises:
            DatasetError: Nobody annotated the two apart in a video.
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
        """The videos as a table of `schema.VIDEOS`, by id; `from_table` is its inverse."""
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
        """The data set that `to_table` wrote, with what the table does not say."""
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
"""From the settings and the root of the data set to its videos.

What cannot be used goes to `Problems`, and is left out. A reader raises `DatasetError` where it
cannot go on at all."""

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

FeatureFiles = Callable[[VideoSet], Sequence[str]]
"""From the videos to the feature files that there should be, below the root."""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """Where a data set's features come from instead of an extractor.

    Features are read anew when one of `files_of` the videos was replaced.
    """

    read: ReadFeatures
    files_of: FeatureFiles


_FEATURES: dict[str, FeatureSource] = {}


def _no_files(videos: VideoSet) -> Sequence[str]:
    return ()


def register_features(
    name: str, *, files_of: FeatureFiles = _no_files
) -> Callable[[ReadFeatures], ReadFeatures]:
    """Function decorator: the data set `name` brings its features, so none are extracted.

    The function yields chunks, so that a data set of any size is imported in constant memory.
    Videos that it leaves out are listed as failures.

    Args:
        files_of: The files that the function reads; none where the features are generated.
    """

    def register(read: ReadFeatures) -> ReadFeatures:
        if name in _FEATURES:
            raise ValueError(f"features of {name!r} are already registered by {_FEATURES[name]}")
        _FEATURES[name] = FeatureSource(read, files_of)
        return read

    return register


def feature_source(name: str) -> FeatureSource | None:
    """The ready-made features of a data set, or None where they are extracted."""
    return _FEATURES.get(name)


def dataset_names() -> list[str]:
    """Names of all data sets, in alphabetical order."""
    return sorted(_DATASETS)


def load_dataset(config: DataConfig, root: Location) -> VideoSet:
    """The data set that `config` names, in the split that it names.

    Raises:
        DatasetError: There is no such data set, or it cannot be used; the message has all that
            is wrong with it, up to 20 problems.
    """
    problems = Problems()
    videos = inspect_dataset(config, root, problems)
    problems.refuse(config.dataset)
    return videos


def inspect_dataset(config: DataConfig, root: Location, problems: Problems) -> VideoSet:
    """The data set without what cannot be used; that goes to `problems`.

    Raises:
        DatasetError: There is no such data set, or nothing of it can be read.
    """
    try:
        load = _DATASETS[config.dataset]
    except KeyError:
        known = ", ".join(dataset_names())
        raise DatasetError(
            f"data.dataset: no data set {config.dataset!r}; there are: {known}"
        ) from None
    videos = load(config, root, problems)
    return _resplit(videos, Location.at(config.split), problems) if config.split else videos


def split_file(split: Split) -> str:
    """The file of `data.split` that names the videos of one split, an id a line."""
    return f"{split}.txt"


def _resplit(videos: VideoSet, folder: Location, problems: Problems) -> VideoSet:
    """The same videos in the split that the files of a folder name; the others are left out."""
    by_id = {video.video_id: video for video in videos.videos}
    chosen: dict[str, Video] = {}
    for split in get_args(Split):
        file = folder / split_file(split)
        if not file.exists():
            raise DatasetError(
                f"{file}: no such file; data.split must be a folder with train.txt, val.txt "
                f"and test.txt, an id a line"
            )
        lines = enumerate(read_lines(file), start=1)
        for number, video_id in ((number, line.strip()) for number, line in lines):
            if not video_id:
                continue
            if video_id not in by_id:
                problems.error(f"{file}:{number}: {videos.name} has no video {video_id!r}")
            elif video_id in chosen:
                taken = split_file(chosen[video_id].split)
                problems.error(f"{file}:{number}: {video_id!r} is in {taken} already")
            else:
                chosen[video_id] = replace(by_id[video_id], split=split)
        if not any(video.split == split for video in chosen.values()):
            problems.error(f"{file}: names no video; every split needs one")
    return replace(videos, videos=tuple(chosen.values()))
