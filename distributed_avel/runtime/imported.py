"""Ready-made features, brought into the form that extraction leaves, in constant memory."""

from typing import Any

import pyarrow as pa

from distributed_avel.artifacts import Location
from distributed_avel.config import DataConfig
from distributed_avel.datasets import VideoSet
from distributed_avel.datasets.base import FeatureChunk, FeatureSource
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import INDEX, PARTS
from distributed_avel.runtime.extract import FAILURES_FILE
from distributed_avel.runtime.progress import progress
from distributed_avel.schema import FAILURES, features_schema, tensor_column


def import_features(
    videos: VideoSet, source: FeatureSource, config: DataConfig, root: Location, out: Location
) -> dict[str, Any]:
    """Write the features that a data set brings into `out`; what it leaves out is a failure.

    Returns:
        Counts and shapes for the manifest, as extraction returns them.

    Raises:
        DatasetError: There is no feature, or one of another shape than the first.
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
            "error": "the data set has no features of it",
            "seconds": 0.0,
        }
        for video in missing
    ]
    (out / FAILURES_FILE).write_table(pa.Table.from_pylist(failures, schema=FAILURES))
    return {
        "num_videos": len(index),
        "num_failed": len(missing),
        "audio_shape": schema.field("audio").type.shape,
        "visual_shape": schema.field("visual").type.shape,
    }


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
