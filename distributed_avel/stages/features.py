"""Base class of the stages `extract`: extract features, or import those that exist."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs as pafs

from distributed_avel.config import ExtractConfig
from distributed_avel.datasets import Split, Video, VideoSet, feature_source
from distributed_avel.errors import DatasetError, StorageError
from distributed_avel.features.store import FeatureStore
from distributed_avel.schema import SOURCES
from distributed_avel.stages.cache_keys import short_hash
from distributed_avel.stages.data import Data
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.storage import Location

FAILURES_FILE = "failures.parquet"


@dataclass(frozen=True, slots=True)
class FeaturesManifest:
    """Counts and shapes of the features.

    Args:
        num_videos: Videos with features.
        num_failed: Videos without features; `failures.parquet` has the reasons.
        num_reused: Videos whose features were copied from an earlier extraction.
        audio_shape: (T, D_a).
        visual_shape: (T, R, D_v).
        weights_note: Remark on the extractor's weights for reports, if there is one.
        num_short: Videos with fewer than T segments; their features are padded.
    """

    num_videos: int
    num_failed: int
    audio_shape: tuple[int, ...]
    visual_shape: tuple[int, ...]
    num_reused: int = 0
    weights_note: str | None = None
    num_short: int = 0


class FeatureStage(Stage[FeaturesManifest]):
    """The features of all videos that can be used."""

    name = "extract"
    command = "avel extract"
    manifest_type = FeaturesManifest

    def __init__(self, context: Context, data: Data) -> None:
        super().__init__(context)
        self.data = data

    def inputs(self) -> Sequence[Stage[Any]]:
        """The videos."""
        return (self.data,)

    def after_ensuring(self) -> None:
        """Check the number of failures, also if an earlier run with a higher limit extracted."""
        num_videos = len(self.data.videos.videos)
        refuse_too_many_failures(self.location, num_videos, self.config.extract)

    @cached_property
    def store(self) -> FeatureStore:
        """The features, by video."""
        return FeatureStore(self.location)

    def usable(self, split: Split) -> list[Video]:
        """Videos of a split that have features, sorted by id."""
        return [video for video in self.data.videos.split(split) if video.video_id in self.store]

    def lengths(self, videos: Sequence[Video]) -> NDArray[np.int64] | None:
        """Return the number of segments of each video, shape (V,); None if all have T."""
        return self.store.lengths([video.video_id for video in videos])

    def failures(self) -> pa.Table:
        """Videos without features, with the reasons; `schema.FAILURES`."""
        return (self.location / FAILURES_FILE).read_table()

    @abstractmethod
    def identity(self, videos: Sequence[Video]) -> str:
        """Compute a fingerprint of the features of some videos.

        If the source of the features allows it, the fingerprint does not depend on other videos.
        """


@dataclass(frozen=True, slots=True)
class MediaFiles:
    """The current media or feature files of a data set.

    Args:
        sources: Name, size and time of each file that exists, as `schema.SOURCES`.
        missing: Names of files that do not exist.
    """

    sources: pa.Table
    missing: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str | None:
        """Hash of names, sizes and modification times; None if features are generated.

        A replaced file changes the fingerprint, because its features may differ.
        """
        return short_hash(self.sources.to_pylist()) if self.sources.num_rows else None


def find_media(videos: VideoSet, root: Location) -> MediaFiles:
    """List the files of a data set, and those that are missing.

    Raises:
        DatasetError: None of the files exists.
        StorageError: The storage does not answer.
    """
    if videos.synthetic:  # the settings determine them
        return MediaFiles(SOURCES.empty_table())
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
            f"data.root: none of the {len(files)} files is in {root}, such as {files[0]}; give the "
            "folder that contains them, or mount it"
        )
    rows = [
        {"uri": file, "size": info.size, "mtime_ns": info.mtime_ns}
        for file, info in found
        if file not in missing
    ]
    return MediaFiles(pa.Table.from_pylist(rows, schema=SOURCES), missing)


def refuse_too_many_failures(out: Location, num_videos: int, config: ExtractConfig) -> None:
    """Stop if more videos failed than `extract.max_failed_fraction` allows.

    Raises:
        DatasetError: The message has the most frequent reasons and the remedy.
    """
    failures = (out / FAILURES_FILE).read_table()
    if failures.num_rows <= config.max_failed_fraction * num_videos:
        return
    reasons = Counter(failures["error"].to_pylist()).most_common(5)
    lines = [f"  {count} x {reason}" for reason, count in reasons]
    raise DatasetError(
        f"{failures.num_rows} of {num_videos} videos failed, more than "
        f"extract.max_failed_fraction {config.max_failed_fraction:g}:\n"
        + "\n".join(lines)
        + f"\nsee {out / FAILURES_FILE}; repair the files or raise "
        f"extract.max_failed_fraction (to try the same files again, remove {out})"
    )
