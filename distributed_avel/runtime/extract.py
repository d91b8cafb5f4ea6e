"""Features on Ray: manifest -> decoding processes -> feature actors -> Parquet.

A feature actor keeps one decoding process per CPU that it claims. What it does itself, running
the network, may be on a GPU. It has two units in hand, so that one is decoded while the other
is embedded and written; neither waits for the other.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa

from distributed_avel.artifacts import Location
from distributed_avel.config import ExtractConfig
from distributed_avel.datasets import VideoSet
from distributed_avel.errors import ArtifactError, DatasetError, StorageError
from distributed_avel.features.base import ExtractorRecipe, Features
from distributed_avel.features.decoder_pool import NO_FILE, DecodingProcesses, Failed, MakeExtractor
from distributed_avel.features.store import INDEX, PARTS
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.units import Pool, cut_into_units, run_units
from distributed_avel.schema import FAILURES, features_schema, tensor_column

RETRY_S = (1.0, 2.0, 4.0, 8.0)
"""Waits before files that cannot be read are tried again, in seconds."""

_FAILED_PARTS = "failed"
_MISSING = Failed(NO_FILE, 0.0)
_UNREAD = Failed("not read yet", 0.0, is_unreadable=True)
_MAX_LISTED = 10
FAILURES_FILE = "failures.parquet"

_INDEX = pa.schema([("video_id", pa.string()), ("part", pa.string())])


class ExtractWorker:
    """Turns units of (video_id, uri) rows into features, and a row for each failure.

    Several threads may call it; the network takes one unit at a time.

    Args:
        missing: Files that are known to be missing. Others that cannot be read are tried again,
            and a unit with one of them is not finished.
        retry_s: Waits before they are tried again, in seconds.
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
    ) -> None:
        self._processes = DecodingProcesses(
            make_extractor, num_processes=num_processes, timeout_s=timeout_s
        )
        self._extractor = make_extractor()
        self._extractor.load()
        shapes = self._extractor.shapes
        self._schema = features_schema(shapes.audio, shapes.visual)
        self._root, self._missing = root, missing
        self._retry_s, self._timeout_s = retry_s, timeout_s
        self._lock = Lock()

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """The tables of one unit."""
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
            features = self._extractor.embed(list(prepared.values())) if prepared else []
        return {
            PARTS: self._table(list(prepared), features),
            _FAILED_PARTS: pa.Table.from_pylist(failures, schema=FAILURES),
        }

    def _prepare_all(self, videos: Sequence[Mapping[str, str]]) -> list[Any]:
        """Prepare the videos of a unit; retry files that cannot be read.

        Retries end early when reading has taken long, as it does from a storage that hangs.

        Raises:
            StorageError: Some files cannot be read; a line for each.
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
        columns = [
            pa.array(video_ids, pa.string()),
            tensor_column([f.audio_TD for f in features], self._schema.field("audio").type),
            tensor_column([f.visual_TRD for f in features], self._schema.field("visual").type),
        ]
        return pa.Table.from_arrays(columns, schema=self._schema)


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
) -> dict[str, Any]:
    """Extract the features of all videos into `out`, and list what failed.

    Args:
        make_extractor: How a process builds its extractor, if not as `config` says.
        missing: Files that are known to be missing; they are failures.
        retry_s: Waits before files that cannot be read are tried again, in seconds.

    Returns:
        Counts and shapes for the manifest.

    Raises:
        ArtifactError: Some files cannot be read, though they are not missing. What is
            extracted is kept, and the same call does the rest.
    """
    make_extractor = make_extractor or ExtractorRecipe(videos.timeline, config)
    rows = videos.to_table().select(["video_id", "uri"])
    make_worker = partial(
        ExtractWorker,
        make_extractor,
        root,
        num_processes=config.cpus_per_actor,
        timeout_s=config.timeout_s,
        missing=missing,
        retry_s=retry_s,
    )
    pool = Pool(
        num_actors=config.num_actors,
        cpus_per_actor=config.cpus_per_actor,
        gpus_per_actor=config.gpus_per_actor,
        units_in_hand=2,
    )
    try:
        run_units("extract", cut_into_units(rows, config.unit_size), make_worker, out, pool)
    except StorageError as error:
        lines = str(error).splitlines()
        if len(lines) > _MAX_LISTED:
            lines[_MAX_LISTED:] = [f"and {len(lines) - _MAX_LISTED} more"]
        raise ArtifactError(
            f"{root}: these files cannot be read, after {len(retry_s)} retries:\n  "
            + "\n  ".join(lines)
            + "\nbring them back unchanged and run the same command again, which goes on with what "
            "is extracted; or take them out of the annotations, to extract all others anew"
        ) from None
    failures = pa.concat_tables(
        [FAILURES.empty_table(), *_map(_read_failures, (out / _FAILED_PARTS).children())]
    )
    (out / FAILURES_FILE).write_table(failures)
    index = pa.concat_tables([_INDEX.empty_table(), *_map(_index, (out / PARTS).children())])
    _refuse_lost_rows(rows, index, failures, out)
    (out / INDEX).write_table(index)
    if failures.num_rows:
        say(
            f"extract: {failures.num_rows} of {rows.num_rows} videos failed, see "
            f"{out / FAILURES_FILE}"
        )
    shapes = make_extractor().shapes
    return {
        "num_videos": index.num_rows,
        "num_failed": failures.num_rows,
        "audio_shape": shapes.audio,
        "visual_shape": shapes.visual,
    }


def _map(read: Callable[[Location], pa.Table], parts: Sequence[Location]) -> list[pa.Table]:
    """Tables of many small files, several at once: each takes a while on object storage."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(read, parts))


def _read_failures(part: Location) -> pa.Table:
    return part.read_table().cast(FAILURES)


def _index(part: Location) -> pa.Table:
    ids = part.read_table(columns=["video_id"])["video_id"]
    return pa.Table.from_arrays([ids, pa.array([part.name] * len(ids))], schema=_INDEX)


def _refuse_lost_rows(rows: pa.Table, index: pa.Table, failures: pa.Table, out: Location) -> None:
    found = {*index["video_id"].to_pylist(), *failures["video_id"].to_pylist()}
    lost = [video_id for video_id in rows["video_id"].to_pylist() if video_id not in found]
    if lost:
        raise ArtifactError(
            f"{out}: {len(lost)} videos are neither extracted nor failed, such as {lost[0]!r}; "
            "all machines must see the same run_dir: use a shared folder, s3:// or gs://"
        )


def refuse_too_many_failures(out: Location, num_videos: int, config: ExtractConfig) -> None:
    """Stop where more of the videos failed than may.

    Raises:
        DatasetError: The message has the commonest reasons.
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
