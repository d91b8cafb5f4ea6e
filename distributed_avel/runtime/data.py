"""The data stage: which videos there are; the demo is rendered on the way."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs as pafs

from distributed_avel.artifacts import Location, Stage
from distributed_avel.config import DataConfig, DemoConfig
from distributed_avel.datasets import (
    VideoSet,
    feature_source,
    load_dataset,
    needs_root,
)
from distributed_avel.datasets.demo import (
    demo_identity,
    demo_specs,
    is_rendered,
    render_into,
    write_layout,
)
from distributed_avel.errors import ConfigError, DatasetError, StorageError
from distributed_avel.runtime.units import Pool, cut_into_units, run_units
from distributed_avel.timeline import Timeline

VIDEOS_FILE = "videos.parquet"
_DEMO = "demo"
_RENDER_UNIT = 16


def root_of(config: DataConfig, run_dir: Location) -> Location:
    """Where the media files lie.

    Raises:
        ConfigError: A data set of files has no `data.root`.
    """
    if config.root is not None:
        return Location.at(config.root)
    if config.dataset == _DEMO:
        return run_dir / "videos" / _short_hash(demo_identity(config.demo))
    if not needs_root(config.dataset):
        return run_dir / "videos"
    raise ConfigError(f"data.root: say where the files of {config.dataset!r} lie")


def annotations(config: DataConfig, root: Location) -> str:
    """A fingerprint of the annotations as they are now, or of what will be rendered."""
    if config.dataset == _DEMO:
        return _short_hash(demo_identity(config.demo))
    videos = load_dataset(config, root)
    return _short_hash([videos.classes, videos.to_table().to_pylist()])


@dataclass(frozen=True, slots=True)
class MediaFiles:
    """The media or feature files of a data set, as they are found.

    Args:
        fingerprint: Of their sizes and times; None where features are generated. When a file was
            replaced, the features are extracted anew: its own would be those of the file that
            is gone.
        missing: Names of files that are not there.
    """

    fingerprint: str | None
    missing: frozenset[str] = frozenset()


def find_media(videos: VideoSet, root: Location) -> MediaFiles:
    """Look for the files of a data set.

    Raises:
        DatasetError: None of them is there.
        StorageError: The storage does not answer.
    """
    if videos.synthetic:
        return MediaFiles(None)
    source = feature_source(videos.name)
    files = sorted(source.files_of(videos) if source else {v.uri for v in videos.videos})
    try:
        infos = root.fs.get_file_info([(root / file).path for file in files])
    except OSError as error:
        raise StorageError(f"data.root: {root} cannot be read ({error})") from None
    found = list(zip(files, infos, strict=True))
    missing = frozenset(file for file, info in found if info.type == pafs.FileType.NotFound)
    if files and len(missing) == len(files):
        raise DatasetError(
            f"data.root: none of the {len(files)} files is in {root}, such as {files[0]}; name the "
            "folder that has them, or bring it back"
        )
    return MediaFiles(_short_hash([[f, i.size, i.mtime_ns] for f, i in found]), missing)


def videos_fingerprint(videos: VideoSet) -> str:
    """A fingerprint of what extraction reads: which videos, and how they are cut; no labels."""
    timeline = videos.timeline
    ids = sorted((v.video_id, v.uri) for v in videos.videos)
    return _short_hash([timeline.num_segments, timeline.segment_s, ids])


def load(config: DataConfig, root: Location, num_actors: int, scratch: Location) -> VideoSet:
    """The data set; the demo is rendered if it is not there.

    Args:
        scratch: Folder of the stage, where rendering notes which files are done.
    """
    if config.dataset == _DEMO and not is_rendered(config.demo, root):
        _render(config.demo, root, num_actors, scratch)
    return load_dataset(config, root)


def write(videos: VideoSet, out: Location) -> dict[str, Any]:
    """Write the data set; `read` is the inverse.

    Returns:
        What the table does not say, for the manifest.
    """
    (out / VIDEOS_FILE).write_table(videos.to_table())
    return {
        "name": videos.name,
        "classes": videos.classes,
        "synthetic": videos.synthetic,
        "num_segments": videos.timeline.num_segments,
        "segment_s": videos.timeline.segment_s,
        "num_videos": {split: len(videos.split(split)) for split in ("train", "val", "test")},
    }


def read(stage: Stage) -> VideoSet:
    """The data set that a stage wrote."""
    manifest = stage.manifest()
    timeline = Timeline(num_segments=manifest["num_segments"], segment_s=manifest["segment_s"])
    return VideoSet.from_table(
        (stage.location / VIDEOS_FILE).read_table(),
        name=manifest["name"],
        classes=manifest["classes"],
        timeline=timeline,
        synthetic=manifest["synthetic"],
    )


@dataclass(frozen=True, slots=True)
class _RenderWorker:
    """Renders units of the demo's videos."""

    config: DemoConfig
    root: Location

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Write the videos of one unit; there is no table to keep."""
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


def _short_hash(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
