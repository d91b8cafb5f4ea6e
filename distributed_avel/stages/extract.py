"""Stage `extract`: media files -> decoding processes -> feature actors -> Parquet.

A feature actor has one decoding process per CPU. The actor itself runs the network, which may be on
a GPU. It processes two units at once, so that it decodes one while it embeds and writes the other.

Existing features are reused: if the name, size and modification time of a media file are the same,
its features are copied from an earlier result of the same extractor in the same run directory.

Shape suffixes used in this file:
    T = segments    R = regions    D = feature size
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distributed_avel.artifacts import Artifact, read_sealed, sealed
from distributed_avel.cluster.actor_pool import UNIT, Pool, cut_into_units, run_units
from distributed_avel.cluster.progress import say
from distributed_avel.config import ExtractConfig, RunConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.errors import ArtifactError, AvelError, StorageError
from distributed_avel.features.any_length import AtMostRecipe
from distributed_avel.features.base import Extractor, ExtractorRecipe, Features
from distributed_avel.features.decoder_pool import NO_FILE, DecodingProcesses, Failed, MakeExtractor
from distributed_avel.features.store import INDEX, PARTS
from distributed_avel.schema import FAILURES, NUM_SEGMENTS, features_schema, tensor_column
from distributed_avel.stages.cache_keys import option_settings, short_hash, without_neutral
from distributed_avel.stages.features import (
    FAILURES_FILE,
    FeaturesManifest,
    FeatureStage,
    MediaFiles,
    find_media,
    refuse_too_many_failures,
)
from distributed_avel.storage import Location

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

RETRY_S = (1.0, 2.0, 4.0, 8.0)
"""Delays before retries of files that cannot be read, in seconds."""

SOURCES_FILE = "sources.parquet"
REUSED_FILE = "reused.json"
T = TypeVar("T")

_FAILED_PARTS = "failed"
_MISSING = Failed(NO_FILE, 0.0)
_UNREAD = Failed("not read yet", 0.0, is_unreadable=True)
_MAX_LISTED = 10

_INDEX = pa.schema([("video_id", pa.string()), ("uri", pa.string()), ("part", pa.string())])


class Extract(FeatureStage):
    """Features that an extractor computes from media files."""

    revision = 5

    @cached_property
    def extractor(self) -> Extractor:
        """The extractor, without its weights in memory."""
        return ExtractorRecipe(self.data.videos.timeline, self.config.extract)()

    @cached_property
    def media(self) -> MediaFiles:
        """The media files; files that are missing are looked for again for a few seconds."""
        media = find_media(self.data.videos, self.data.root)
        for wait_s in RETRY_S:
            if not media.missing or self._artifact_of(media).is_done():
                break
            say(f"extract: {len(media.missing)} media files are missing; looking again")
            time.sleep(wait_s)
            media = find_media(self.data.videos, self.data.root)
        return media

    @cached_property
    def extractor_key(self) -> dict[str, Any]:
        """What the features of a video depend on in addition to its media file, as JSON."""
        timeline = self.data.videos.timeline
        return {
            "settings": settings(self.config, self.extractor),
            "extractor": self.extractor.provenance(),
            "timeline": [timeline.num_segments, timeline.segment_s],
            "short_videos": self.config.data.short_videos,
        }

    def depends(self) -> Mapping[str, Any]:
        """Return the extractor, the videos and their media files, but not their labels."""
        return self._depends_on(self.media)

    def _depends_on(self, media: MediaFiles) -> dict[str, Any]:
        ids = sorted((v.video_id, v.uri) for v in self.data.videos.videos)
        return {**self.extractor_key, "videos": short_hash(ids), "media": media.fingerprint}

    def _artifact_of(self, media: MediaFiles) -> Artifact:
        depends = {"revision": self.revision, **self._depends_on(media)}
        return Artifact(self.context.run_dir, self.name, depends)

    def compute(self, out: Location, run: "Run") -> FeaturesManifest:
        """Extract the features of videos that have none yet, and list the failures."""
        config, videos = self.config.extract, self.data.videos
        manifest = extract(
            videos,
            self.data.root,
            config,
            out,
            missing=self.media.missing,
            reusable=self._reusable(),
            weights_note=self.extractor.weights_note,
            keeps_short=self.config.data.short_videos == "keep",
        )
        (out / SOURCES_FILE).write_table(self._unchanged_sources())
        refuse_too_many_failures(out, len(videos.videos), config)
        run.metrics({"num_videos": manifest.num_videos, "num_failed": manifest.num_failed})
        run.file(out / FAILURES_FILE)
        return manifest

    def _unchanged_sources(self) -> pa.Table:
        """Return the files that did not change during extraction, whose features can be reused."""
        before, after = self.media.sources, find_media(self.data.videos, self.data.root).sources
        same = {tuple(row.values()) for row in after.to_pylist()}
        is_same = [tuple(row.values()) in same for row in before.to_pylist()]
        for uri in before.filter(pa.array([not s for s in is_same], pa.bool_()))["uri"].to_pylist():
            say(f"WARNING: {self.data.root / uri} changed during extraction; run the command again")
        return before.filter(pa.array(is_same, pa.bool_()))

    def identity(self, videos: Sequence[Video]) -> str:
        """Compute a fingerprint of the extractor and of the media files of these videos only.

        If the storage has no modification times, return the fingerprint of all features.
        """
        sources = _by_uri((self.location / SOURCES_FILE).read_table())
        if any(video.uri not in sources for video in videos):
            return self.fingerprint
        files = [[v.video_id, v.uri, sources[v.uri]] for v in videos]
        depends = self.artifact.depends  # `extractor_key` would look up the weights again
        names = ("revision", "settings", "extractor", "timeline", "short_videos")
        key = {name: depends[name] for name in names}
        return short_hash([key, files])

    def _reusable(self) -> "list[Reusable]":
        """Find earlier extractions by the same extractor with features of the current files."""
        current = _by_uri(self.media.sources)
        uri_of = {v.video_id: v.uri for v in self.data.videos.videos}
        expected = {"revision": self.revision, **self.extractor_key}
        found = []
        for earlier in self.artifact.siblings() if current else ():
            if any(earlier.depends.get(key) != value for key, value in expected.items()):
                continue
            try:
                sources = _by_uri((earlier.location / SOURCES_FILE).read_table())
                index = (earlier.location / INDEX).read_table().to_pylist()
            except (OSError, AvelError, pa.ArrowInvalid):  # not finished, or being removed
                continue
            part_of = {
                row["video_id"]: row["part"]
                for row in index
                if row["uri"] == uri_of.get(row["video_id"])
                and row["uri"] in current
                and sources.get(row["uri"]) == current[row["uri"]]
            }
            if part_of:
                found.append(Reusable(earlier, part_of))
        return sorted(found, key=lambda reusable: -len(reusable.part_of))


@dataclass(frozen=True, slots=True)
class Reusable:
    """An earlier extraction with reusable features.

    Args:
        artifact: The earlier extraction.
        part_of: Name of the Parquet file of each video whose media file is unchanged.
    """

    artifact: Artifact
    part_of: Mapping[str, str]


def settings(config: RunConfig, extractor: Extractor) -> dict[str, Any]:
    """Return the settings of `extract` that the extractor reads."""
    unread = extractor.unread | {"gpus_per_actor", "frames_per_segment", "options"}
    read = without_neutral(config.extract, "extract", unread)
    if "gpus_per_actor" not in extractor.unread:
        read["use_gpu"] = config.extract.gpus_per_actor > 0
    read["frames_per_segment"] = extractor.frames_per_segment
    return {**read, **option_settings(extractor.options)}


def _by_uri(sources: pa.Table) -> dict[str, list[int]]:
    """Return size and modification time of each file that has a time.

    Without a time, equal sizes do not imply equal content.
    """
    return {
        row["uri"]: [row["size"], row["mtime_ns"]]
        for row in sources.to_pylist()
        if row["mtime_ns"] is not None
    }


class ExtractWorker:
    """Extracts the features of units with rows (video_id, uri); a failure is a row of a table.

    Several threads may call it; the network processes one unit at a time.

    Args:
        make_extractor: Creates the extractor, here and in each decoding process.
        root: Folder of the media files.
        num_processes: Number of decoding processes.
        timeout_s: Time limit for decoding a file.
        missing: Files that are known to be missing, which are failures. Other files that cannot be
            read are retried; if that fails, the unit is not finished.
        retry_s: Delays before retries, in seconds.
        keeps_short: Accept files with fewer segments than the timeline.
    """

    def __init__(
        self,
        make_extractor: MakeExtractor,
        root: Location,
        *,
        num_processes: int,
        timeout_s: float,
        missing: AbstractSet[str] = frozenset(),
        retry_s: Sequence[float] = RETRY_S,
        keeps_short: bool = False,
    ) -> None:
        self._processes = DecodingProcesses(
            AtMostRecipe(make_extractor) if keeps_short else make_extractor,
            num_processes=num_processes,
            timeout_s=timeout_s,
        )
        self._keeps_short = keeps_short
        self._extractor = make_extractor()
        self._extractor.load()
        shapes = self._extractor.shapes
        self._schema = features_schema(shapes.audio, shapes.visual, any_length=keeps_short)
        self._root, self._missing = root, missing
        self._retry_s, self._timeout_s = retry_s, timeout_s
        self._lock = Lock()

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Extract one unit; return its features and its failures.

        Raises:
            StorageError: A file cannot be read after all retries.
        """
        videos = rows.to_pylist()
        prepared: dict[str, Any] = {}
        failures = []
        for video, result in zip(videos, self._prepare_all(videos), strict=True):
            if isinstance(result, Failed):
                how = {"stage": "extract", "error": result.reason, "seconds": result.seconds}
                failures.append({**video, **how})
            else:
                prepared[video["video_id"]] = result
        with self._lock:
            features = self._embed(list(prepared.values())) if prepared else []
        return {
            PARTS: self._table(list(prepared), features),
            _FAILED_PARTS: pa.Table.from_pylist(failures, schema=FAILURES),
        }

    def _embed(self, prepared: list[Any]) -> list[Features]:
        if not self._keeps_short:
            return self._extractor.embed(prepared)
        timeline = self._extractor.timeline
        return [
            features
            for num_segments, of_video in prepared
            for features in self._extractor.with_timeline(
                replace(timeline, num_segments=num_segments)
            ).embed([of_video])
        ]

    def _prepare_all(self, videos: Sequence[Mapping[str, str]]) -> list[Any]:
        """Prepare the videos of a unit; retry files that cannot be read.

        Retries end early if reading has taken long, as from storage that hangs.

        Raises:
            StorageError: Some files cannot be read; the message has a line for each.
        """
        results = [_MISSING if v["uri"] in self._missing else _UNREAD for v in videos]
        waits, end = iter(self._retry_s), time.monotonic() + sum(self._retry_s) + self._timeout_s
        while unread := [n for n, result in enumerate(results) if _is_unreadable(result)]:
            if results[unread[0]] is not _UNREAD:  # not the first round
                wait_s = next(waits, None)
                if wait_s is None or time.monotonic() > end:
                    raise StorageError(
                        "\n".join(
                            f"{self._root / videos[n]['uri']}: {results[n].reason}" for n in unread
                        )
                    )
                time.sleep(wait_s)
            futures = [self._processes.prepare(self._root / videos[n]["uri"]) for n in unread]
            for number, future in zip(unread, futures, strict=True):
                results[number] = future.result()
        return results

    def close(self) -> None:
        """End the decoding processes."""
        self._processes.close()

    def _table(self, video_ids: list[str], features: list[Features]) -> pa.Table:
        num_segments = self._extractor.timeline.num_segments
        audio = [_padded(f.audio_TD, num_segments) for f in features]
        visual = [_padded(f.visual_TRD, num_segments) for f in features]
        columns = [
            pa.array(video_ids, pa.string()),
            tensor_column(audio, self._schema.field("audio").type),
            tensor_column(visual, self._schema.field("visual").type),
        ]
        if self._keeps_short:
            columns.append(pa.array([len(f.audio_TD) for f in features], pa.int32()))
        return pa.Table.from_arrays(columns, schema=self._schema)


def _padded(features: NDArray[Any], num_segments: int) -> NDArray[Any]:
    """Append zeros to features up to a number of segments, their first axis."""
    missing = num_segments - len(features)
    if not missing:
        return features
    return np.pad(features, [(0, missing), *[(0, 0)] * (features.ndim - 1)])


def _is_unreadable(result: Any) -> bool:
    return isinstance(result, Failed) and result.is_unreadable


def extract(
    videos: VideoSet,
    root: Location,
    config: ExtractConfig,
    out: Location,
    make_extractor: MakeExtractor | None = None,
    missing: AbstractSet[str] = frozenset(),
    retry_s: Sequence[float] = RETRY_S,
    reusable: Sequence[Reusable] = (),
    weights_note: str | None = None,
    keeps_short: bool = False,
) -> FeaturesManifest:
    """Extract the features of all videos into `out`, and list the failures.

    Args:
        videos: Data set.
        root: Folder of the media files.
        config: Settings of the extraction.
        out: Folder of the stage.
        make_extractor: Creates the extractor in each process; that of `config` by default.
        missing: Files that are known to be missing, which are failures.
        retry_s: Delays before retries of files that cannot be read, in seconds.
        reusable: Earlier extractions whose features are copied.
        weights_note: Remark on the weights, for the manifest.
        keeps_short: Accept files with fewer segments than the timeline.

    Raises:
        ArtifactError: Some files exist but cannot be read. Extracted features are kept, and the
            same call continues from there.
    """
    make_extractor = make_extractor or ExtractorRecipe(videos.timeline, config)
    rows = videos.to_table().select(["video_id", "uri"])
    reused = reuse(reusable, rows["video_id"].to_pylist(), out)
    is_new = [video_id not in reused for video_id in rows["video_id"].to_pylist()]
    units = cut_into_units(rows.filter(pa.array(is_new, pa.bool_())), config.unit_size)
    make_worker = partial(
        ExtractWorker,
        make_extractor,
        root,
        num_processes=config.cpus_per_actor,
        timeout_s=config.timeout_s,
        missing=missing,
        retry_s=retry_s,
        keeps_short=keeps_short,
    )
    pool = Pool(
        num_actors=config.num_actors,
        cpus_per_actor=config.cpus_per_actor,
        gpus_per_actor=config.gpus_per_actor,
        units_per_actor=2,
    )
    try:
        run_units("extract", units, make_worker, out, pool)
    except StorageError as error:
        lines = str(error).splitlines()
        if len(lines) > _MAX_LISTED:
            lines[_MAX_LISTED:] = [f"and {len(lines) - _MAX_LISTED} more"]
        raise ArtifactError(
            f"{root}: these files cannot be read, after {len(retry_s)} retries:\n  "
            + "\n  ".join(lines)
            + "\nrestore them unchanged and run the same command, which continues from here; or "
            "remove them from the annotations, which extracts all others again"
        ) from None
    names = {f"{unit[UNIT][0].as_py()}.parquet" for unit in units}
    failed, parts = (
        [part for part in (out / folder).children() if part.name in names]
        for folder in (_FAILED_PARTS, PARTS)
    )
    failures = pa.concat_tables([FAILURES.empty_table(), *_map(_read_failures, failed)])
    (out / FAILURES_FILE).write_table(failures)
    uri_of = dict(zip(rows["video_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
    part_of = {**reused, **{i: part for parts_of in _map(_index, parts) for i, part in parts_of}}
    index = pa.table(
        {
            "video_id": list(part_of),
            "uri": [uri_of[video_id] for video_id in part_of],
            "part": list(part_of.values()),
        },
        schema=_INDEX,
    )
    num_segments = videos.timeline.num_segments
    lengths = _lengths(index, out) if keeps_short else []
    num_short = sum(length < num_segments for length in lengths)
    if num_short:
        column = pa.array(lengths, pa.int32())
        index = index.append_column(pa.field(NUM_SEGMENTS, pa.int32()), column)
    _refuse_lost_rows(rows, index, failures, out)
    (out / INDEX).write_table(index)
    if failures.num_rows:
        say(
            f"extract: {failures.num_rows} of {rows.num_rows} videos failed, see "
            f"{out / FAILURES_FILE}"
        )
    if num_short:
        say(f"extract: {num_short} videos have less than {num_segments} segments")
    shapes = make_extractor().shapes
    return FeaturesManifest(
        num_videos=index.num_rows,
        num_failed=failures.num_rows,
        num_reused=len(reused),
        num_short=num_short,
        audio_shape=shapes.audio,
        visual_shape=shapes.visual,
        weights_note=weights_note,
    )


def reuse(
    reusable: Sequence[Reusable], video_ids: Sequence[str], out: Location
) -> Mapping[str, str]:
    """Copy the features of earlier extractions to `out`.

    `REUSED_FILE` records the copies, so that an interrupted extraction continues with the same
    units, even if other extractions have finished since.

    Args:
        reusable: Earlier extractions.
        video_ids: Videos whose features are needed.
        out: Folder of the stage.

    Returns:
        Name of the Parquet file of each video that was copied.
    """
    if (recorded := _recorded_copies(out)) is not None:
        return recorded
    part_of: dict[str, str] = {}
    missing = set(video_ids)
    for earlier in reusable:
        wanted = {i: part for i, part in earlier.part_of.items() if i in missing}
        if not wanted or not earlier.artifact.is_done():
            continue
        names = sorted(set(wanted.values()))
        try:
            parts = [earlier.artifact.location / PARTS / name for name in names]
            copies = _map(partial(_copy, out=out), parts)
        except (FileNotFoundError, AvelError) as error:
            say(f"WARNING: extract: nothing is reused of {earlier.artifact.location}: {error}")
            continue
        copy_of = dict(zip(names, copies, strict=True))
        part_of |= {video_id: copy_of[part] for video_id, part in wanted.items()}
        missing -= wanted.keys()
    (out / REUSED_FILE).write_json(sealed({"part_of": part_of}))
    if part_of:
        say(f"extract: features of {len(part_of)} videos are copied from earlier results")
    return part_of


def _copy(part: Location, out: Location) -> str:
    """Copy a Parquet file under a name that contains the hash of its content."""
    content = part.read_bytes()
    name = f"reused-{_hash(content)}.parquet"
    (out / PARTS / name).write_bytes(content)
    return name


def _recorded_copies(out: Location) -> Mapping[str, str] | None:
    """Return the copies of an interrupted extraction; None if there are none or one is damaged."""
    try:
        part_of = read_sealed(out / REUSED_FILE)["part_of"]
        for name in set(part_of.values()):
            if name != f"reused-{_hash((out / PARTS / name).read_bytes())}.parquet":
                return None
    except (FileNotFoundError, ArtifactError):
        return None
    return part_of


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _map(read: Callable[[Location], T], parts: Sequence[Location]) -> list[T]:
    """Read many small files with several threads, because object storage is slow."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(read, parts))


def _read_failures(part: Location) -> pa.Table:
    return part.read_table().cast(FAILURES)


def _index(part: Location) -> list[tuple[str, str]]:
    return [(i, part.name) for i in part.read_table(columns=["video_id"])["video_id"].to_pylist()]


def _lengths(index: pa.Table, out: Location) -> list[int]:
    """Return the number of segments of each video of an index, from the files that it names."""
    columns = ["video_id", NUM_SEGMENTS]
    read = partial(Location.read_table, columns=columns)
    parts = sorted(set(index["part"].to_pylist()))
    tables = dict(zip(parts, _map(read, [out / PARTS / part for part in parts]), strict=True))
    length_of = {
        (part, row["video_id"]): row[NUM_SEGMENTS]
        for part, table in tables.items()
        for row in table.to_pylist()
    }
    keys = zip(index["part"].to_pylist(), index["video_id"].to_pylist(), strict=True)
    return [length_of[key] for key in keys]


def _refuse_lost_rows(rows: pa.Table, index: pa.Table, failures: pa.Table, out: Location) -> None:
    found = {*index["video_id"].to_pylist(), *failures["video_id"].to_pylist()}
    lost = [video_id for video_id in rows["video_id"].to_pylist() if video_id not in found]
    if lost:
        raise ArtifactError(
            f"{out}: {len(lost)} videos are neither extracted nor failed, such as {lost[0]!r}; "
            "all machines must see the same run_dir: use a shared folder, s3:// or gs://"
        )
