"""Stage `extract` of a run with own features (`data.features`): check and convert them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distributed_avel.datasets import Video
from distributed_avel.datasets.base import FeatureChunk, FeatureSource
from distributed_avel.datasets.own_features import OwnFeatures
from distributed_avel.features.store import INDEX
from distributed_avel.schema import NUM_SEGMENTS
from distributed_avel.stages.cache_keys import short_hash
from distributed_avel.stages.features import (
    FAILURES_FILE,
    FeaturesManifest,
    FeatureStage,
    refuse_too_many_failures,
)
from distributed_avel.stages.import_features import import_features
from distributed_avel.storage import Location

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

DIGESTS_FILE = "digests.parquet"


class ImportOwnFeatures(FeatureStage):
    """Features that a user computed, in place of an extractor or of those of the data set."""

    revision = 1

    @cached_property
    def own(self) -> OwnFeatures:
        """The features below `data.features`."""
        place = self.config.data.features
        assert place is not None
        return OwnFeatures(
            Location.at(place),
            self.data.videos.timeline.num_segments,
            keeps_short=self._keeps_short,
        )

    @property
    def _keeps_short(self) -> bool:
        return self.config.data.short_videos == "keep"

    def depends(self) -> Mapping[str, Any]:
        """Return the ids of the videos, the timeline and the files, but no labels."""
        ids = sorted(video.video_id for video in self.data.videos.videos)
        files = {file for video_id in ids for file in self.own.files_of(video_id)}
        has_times = all(file.mtime_ns is not None for file in files)
        sources = sorted([file.name, file.size, file.mtime_ns] for file in files)
        return {
            "settings": {"features": "own"},
            "videos": short_hash(ids),
            "num_segments": self.data.videos.timeline.num_segments,
            **({"short_videos": "keep"} if self._keeps_short else {}),
            "media": short_hash(sources),
            # Without a time of change, an equal size does not mean that a file is the same.
            **({} if has_times else {"place": self.config.data.features}),
        }

    def compute(self, out: Location, run: "Run") -> FeaturesManifest:
        """Write the features of all videos as Parquet, and list the videos without features."""
        videos, digests = self.data.videos, dict[str, str]()
        ids = sorted(video.video_id for video in videos.videos)
        source = FeatureSource(
            lambda config, root: _digested(self.own.read(ids), digests, self.own.lengths),
            lambda videos: (),
        )
        manifest = import_features(
            videos, source, self.config.data, self.data.root, out, self.own.missing
        )
        if self._keeps_short:
            manifest = self._add_lengths(out, manifest)
        columns = {"video_id": list(digests), "sha256": list(digests.values())}
        (out / DIGESTS_FILE).write_table(pa.table(columns))
        refuse_too_many_failures(out, len(videos.videos), self.config.extract)
        run.metrics({"num_videos": manifest.num_videos, "num_failed": manifest.num_failed})
        run.file(out / FAILURES_FILE)
        return manifest

    def _add_lengths(self, out: Location, manifest: FeaturesManifest) -> FeaturesManifest:
        """Add the number of segments of each video to the index of the features."""
        index, lengths = (out / INDEX).read_table(), self.own.lengths
        num_short = sum(length < manifest.audio_shape[0] for length in lengths.values())
        if not num_short:
            return manifest
        column = pa.array([lengths[i] for i in index["video_id"].to_pylist()], pa.int32())
        (out / INDEX).write_table(index.append_column(NUM_SEGMENTS, column))
        return replace(manifest, num_short=num_short)

    def identity(self, videos: Sequence[Video]) -> str:
        """Compute a fingerprint of the content of the features of these videos only."""
        table = (self.location / DIGESTS_FILE).read_table()
        sha256_of = dict(
            zip(table["video_id"].to_pylist(), table["sha256"].to_pylist(), strict=True)
        )
        return short_hash([[video.video_id, sha256_of[video.video_id]] for video in videos])


def _digested(
    chunks: Iterator[FeatureChunk], digests: dict[str, str], lengths: Mapping[str, int]
) -> Iterator[FeatureChunk]:
    """Pass chunks on, and record the sha256 of the features of each video."""
    for chunk in chunks:
        arrays = zip(chunk.video_ids, chunk.audio_VTD, chunk.visual_VTRD, strict=True)
        for video_id, audio_TD, visual_TRD in arrays:
            shapes = f"{lengths[video_id]}{audio_TD.shape}{visual_TRD.shape}"
            sha256 = hashlib.sha256(shapes.encode())
            sha256.update(audio_TD.tobytes())
            sha256.update(visual_TRD.tobytes())
            digests[video_id] = sha256.hexdigest()
        yield chunk
