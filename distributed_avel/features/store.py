"""Read extracted features from Parquet files by video id.

Shape suffixes used in this file:
    V = videos    T = segments    R = regions    D = feature size
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distributed_avel.errors import ArtifactError
from distributed_avel.schema import NUM_SEGMENTS, tensor_array
from distributed_avel.storage import Location

INDEX = "index.parquet"
PARTS = "features"


class FeatureStore:
    """Features of a data set.

    Args:
        location: Folder of the stage that computed them.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        index = (location / INDEX).read_table()
        ids, parts = index["video_id"].to_pylist(), index["part"].to_pylist()
        self._part_of: dict[str, str] = dict(zip(ids, parts, strict=True))
        self._length_of: dict[str, int] = {}
        if NUM_SEGMENTS in index.column_names:
            self._length_of = dict(zip(ids, index[NUM_SEGMENTS].to_pylist(), strict=True))

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._part_of

    def lengths(self, video_ids: Sequence[str]) -> NDArray[np.int64] | None:
        """Return the number of segments of each video, (V,); None if all videos have T."""
        if not self._length_of:
            return None
        return np.array([self._length_of[video_id] for video_id in video_ids], dtype=np.int64)

    def read(self, video_ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Read features in the order of `video_ids`; those of short videos are padded with zeros.

        Returns:
            Audio (V, T, D_a) and visual (V, T, R, D_v).

        Raises:
            ArtifactError: A video has no features, or `video_ids` is empty.
        """
        missing = [video_id for video_id in video_ids if video_id not in self._part_of]
        if missing or not video_ids:
            subject = f"{missing[0]!r} ({len(missing)} videos)" if missing else "an empty list"
            raise ArtifactError(f"{self._location}: no features of {subject}")
        # A part that was copied from an earlier extraction may also hold features of media files
        # that were replaced since. The index names the part of each video.
        ids_of: dict[str, list[str]] = {}
        for video_id in sorted(set(video_ids)):
            ids_of.setdefault(self._part_of[video_id], []).append(video_id)
        tables = []
        for part, ids in sorted(ids_of.items()):
            table = (self._location / PARTS / part).read_table()
            tables.append(table.filter(pc.field("video_id").isin(ids)))
        table = pa.concat_tables(tables)
        row_of = {video_id: row for row, video_id in enumerate(table["video_id"].to_pylist())}
        rows = [row_of[video_id] for video_id in video_ids]
        return tensor_array(table["audio"])[rows], tensor_array(table["visual"])[rows]
