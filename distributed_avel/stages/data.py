"""Stage `data`: the videos of the data set and their labels; renders the demo videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distributed_avel.cluster.actor_pool import Pool, cut_into_units, run_units
from distributed_avel.config import DataConfig, DemoConfig, RunConfig
from distributed_avel.datasets import (
    VideoSet,
    load_dataset,
    needs_root,
    unread_sections,
)
from distributed_avel.datasets.demo import (
    demo_identity,
    demo_specs,
    is_rendered,
    render_into,
    write_layout,
)
from distributed_avel.errors import ConfigError
from distributed_avel.stages.cache_keys import short_hash, without_neutral
from distributed_avel.stages.stage import Stage
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

VIDEOS_FILE = "videos.parquet"
_DEMO = "demo"
_RENDER_UNIT = 16


@dataclass(frozen=True, slots=True)
class DataManifest:
    """Properties of the data set.

    Args:
        name: Name of the data set.
        classes: Names of the event classes.
        synthetic: Whether videos or features are generated.
        num_segments: T.
        segment_s: Length of a segment in seconds.
        num_videos: Number of videos of each split.
    """

    name: str
    classes: tuple[str, ...]
    synthetic: bool
    num_segments: int
    segment_s: float
    num_videos: dict[str, int]


class Data(Stage[DataManifest]):
    """The videos and their labels."""

    name = "data"
    revision = 1
    command = "avel extract"
    manifest_type = DataManifest

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return no stages."""
        return ()

    def depends(self) -> Mapping[str, Any]:
        """Return the settings of the data set and a hash of its current annotations."""
        config = self.config.data
        return {"settings": settings(self.config), "annotations": annotations(config, self.root)}

    def compute(self, out: Location, run: "Run") -> DataManifest:
        """Write the table of videos; render the demo videos if they do not exist."""
        config = self.config.data
        if config.dataset == _DEMO and not is_rendered(config.demo, self.root):
            _render(config.demo, self.root, self.config.extract.num_actors, out)
        videos = load_dataset(config, self.root)
        (out / VIDEOS_FILE).write_table(videos.to_table())
        run.file(out / VIDEOS_FILE)
        return DataManifest(
            name=videos.name,
            classes=videos.classes,
            synthetic=videos.synthetic,
            num_segments=videos.timeline.num_segments,
            segment_s=videos.timeline.segment_s,
            num_videos={split: len(videos.split(split)) for split in ("train", "val", "test")},
        )

    def after_ensuring(self) -> None:
        """Tag the MLflow run with the fingerprint of the data."""
        self.context.tracker.parent.tags({"data_fingerprint": self.fingerprint})

    @cached_property
    def root(self) -> Location:
        """The folder of the media files."""
        return root_of(self.config.data, self.context.run_dir)

    @cached_property
    def videos(self) -> VideoSet:
        """The videos of the data set, with their labels.

        Raises:
            ArtifactError: The stage is not finished.
            DatasetError: The annotations are not sufficient for the task.
        """
        manifest = self.manifest
        videos = _read_videos(
            self.location,
            manifest.name,
            manifest.classes,
            Timeline(num_segments=manifest.num_segments, segment_s=manifest.segment_s),
            manifest.synthetic,
        )
        self.context.task.refuse(videos)
        return videos


@lru_cache(maxsize=4)
def _read_videos(
    location: Location, name: str, classes: tuple[str, ...], timeline: Timeline, synthetic: bool
) -> VideoSet:
    """Read the table of videos once per process: a study has many pipelines on one data set."""
    return VideoSet.from_table(
        (location / VIDEOS_FILE).read_table(),
        name=name,
        classes=classes,
        timeline=timeline,
        synthetic=synthetic,
    )


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of the data set, without the sections of other data sets."""
    return without_neutral(config.data, "data", unread_sections(config.data.dataset))


def root_of(config: DataConfig, run_dir: Location) -> Location:
    """Return the folder of the media files of a data set.

    Raises:
        ConfigError: The data set consists of files, but `data.root` is not set.
    """
    if config.root is not None:
        return Location.at(config.root)
    if config.dataset == _DEMO:
        return run_dir / "videos" / short_hash(demo_identity(config.demo))
    if not needs_root(config.dataset):
        return run_dir / "videos"
    raise ConfigError(f"data.root: give the folder with the files of {config.dataset!r}")


def annotations(config: DataConfig, root: Location) -> str:
    """Hash the current annotations, or the specification of the videos to render."""
    if config.dataset == _DEMO:
        return short_hash(demo_identity(config.demo))
    videos = load_dataset(config, root)
    return short_hash([videos.classes, videos.to_table().to_pylist()])


@dataclass(frozen=True, slots=True)
class _RenderWorker:
    """Renders units of demo videos."""

    config: DemoConfig
    root: Location

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Render the videos of one unit; returns no tables."""
        for number in rows["number"].to_pylist():
            render_into(demo_specs(self.config)[number], self.root)
        return {}


def _render(config: DemoConfig, root: Location, num_actors: int, scratch: Location) -> None:
    rows = pa.table({"number": list(range(len(demo_specs(config))))})
    run_units(
        "render",
        cut_into_units(rows, _RENDER_UNIT),
        lambda: _RenderWorker(config, root),
        scratch,
        Pool(num_actors=num_actors),
    )
    write_layout(config, root)
