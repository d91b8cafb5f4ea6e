"""Stage `extract` of a data set with its own features: convert them in constant memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distributed_avel.cluster.progress import progress
from distributed_avel.config import DataConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.datasets.base import FeatureChunk, FeatureSource
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import INDEX, PARTS
from distributed_avel.schema import FAILURES, features_schema, tensor_column
from distributed_avel.stages.data import Data
from distributed_avel.stages.features import (
    FAILURES_FILE,
    FeaturesManifest,
    FeatureStage,
    find_media,
    refuse_too_many_failures,
)
from distributed_avel.stages.stage import Context
from distributed_avel.storage import Location

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run


class ImportFeatures(FeatureStage):
    """Features that the data set contains."""

    revision = 4

    def __init__(self, context: Context, data: Data, source: FeatureSource) -> None:
        super().__init__(context, data)
        self.source = source

    def depends(self) -> Mapping[str, Any]:
        """Return fingerprints of the data set and of its feature files."""
        media = find_media(self.data.videos, self.data.root)
        return {"settings": {}, "videos": self.data.fingerprint, "media": media.fingerprint}

    def compute(self, out: Location, run: "Run") -> FeaturesManifest:
        """Write the features of all videos as Parquet, and list the videos without features."""
        config, videos = self.config, self.data.videos
        manifest = import_features(videos, self.source, config.data, self.data.root, out)
        refuse_too_many_failures(out, len(videos.videos), config.extract)
        run.metrics({"num_videos": manifest.num_videos, "num_failed": manifest.num_failed})
        run.file(out / FAILURES_FILE)
        return manifest

    def identity(self, videos: Sequence[Video]) -> str:
        """Return the fingerprint of all features, because a file may contain many videos."""
        return self.fingerprint


def _not_there(video_id: str) -> str:
    return "the data set has no features of it"


def import_features(
    videos: VideoSet,
    source: FeatureSource,
    config: DataConfig,
    root: Location,
    out: Location,
    why_missing: Callable[[str], str] = _not_there,
) -> FeaturesManifest:
    """Write the features of a data set into `out`; videos without features are failures.

    Args:
        why_missing: Returns the reason why a video, by its id, has no features.

    Raises:
        DatasetError: There are no features, or some differ in shape from the first.
    """
    known = {video.video_id: video for video in videos.videos}
    index: dict[str, str] = {}
    schema: pa.Schema | None = None
    with progress("import", len(known), "videos") as report:
        for number, chunk in enumerate(source.read(config, root)):
            if schema is None:
                schema = features_schema(chunk.audio_VTD.shape[1:], chunk.visual_VTRD.shape[1:])
            part = f"{number:06d}.parquet"
            (out / PARTS / part).write_table(_table(chunk, schema, videos.name))
            index |= dict.fromkeys(chunk.video_ids, part)
            report(len(index))
    if schema is None:
        raise DatasetError(f"{videos.name}: no features in {root}")
    (out / INDEX).write_table(pa.table({"video_id": list(index), "part": list(index.values())}))
    missing = [video for video_id, video in known.items() if video_id not in index]
    failures = [
        {
            "video_id": video.video_id,
            "uri": video.uri,
            "stage": "import",
            "error": why_missing(video.video_id),
            "seconds": 0.0,
        }
        for video in missing
    ]
    (out / FAILURES_FILE).write_table(pa.Table.from_pylist(failures, schema=FAILURES))
    return FeaturesManifest(
        num_videos=len(index),
        num_failed=len(missing),
        audio_shape=tuple(schema.field("audio").type.shape),
        visual_shape=tuple(schema.field("visual").type.shape),
    )


def _table(chunk: FeatureChunk, schema: pa.Schema, name: str) -> pa.Table:
    try:
        columns = [
            pa.array(chunk.video_ids, pa.string()),
            tensor_column(chunk.audio_VTD, schema.field("audio").type),
            tensor_column(chunk.visual_VTRD, schema.field("visual").type),
        ]
    except ValueError as error:
        raise DatasetError(f"{name}: features of {chunk.video_ids[0]}: {error}") from None
    return pa.Table.from_arrays(columns, schema=schema)
