"""Features on Ray: manifest -> decoding processes -> feature actors -> Parquet.

A feature actor keeps one process per CPU that it claims. They read and decode; one that hangs
or crashes on a broken file is killed and replaced, and only that file is lost. What the actor
itself does, running the network, may be on a GPU.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

import pebble
import pyarrow as pa
import pyarrow.compute as pc

from distributed_avel.artifacts import Location
from distributed_avel.config import ExtractConfig
from distributed_avel.datasets import VideoSet
from distributed_avel.errors import DatasetError, MediaError
from distributed_avel.features import descriptors as descriptors  # registers it
from distributed_avel.features.base import Extractor, Features, extractor_class
from distributed_avel.features.store import INDEX, PARTS
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.units import Pool, cut_into_units, run_units
from distributed_avel.schema import FAILURES, features_schema, tensor_column
from distributed_avel.timeline import Timeline

_FAILED_PARTS = "failed"
FAILURES_FILE = "failures.parquet"

MakeExtractor = Callable[[], Extractor]


@dataclass(frozen=True, slots=True)
class ExtractorRecipe:
    """How a process builds its own extractor."""

    timeline: Timeline
    config: ExtractConfig

    def __call__(self) -> Extractor:
        """A new extractor."""
        return extractor_class(self.config.extractor)(self.timeline, self.config)


class ExtractWorker:
    """Turns units of (video_id, uri) rows into features, and a row for each failure."""

    def __init__(
        self, make_extractor: MakeExtractor, root: Location, *, processes: int, timeout_s: float
    ) -> None:
        self._extractor = make_extractor()
        self._extractor.load()
        shapes = self._extractor.shapes
        self._schema = features_schema(shapes.audio, shapes.visual)
        self._root = root
        self._timeout_s = timeout_s
        self._processes = pebble.ProcessPool(
            max_workers=processes,
            context=multiprocessing.get_context("spawn"),
            initializer=_set_up_process,
            initargs=(make_extractor,),
        )
        self._processes.schedule(_ready).result()

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """The tables of one unit."""
        videos = rows.to_pylist()
        started = time.monotonic()
        futures = [
            self._processes.schedule(_prepare, (self._root / v["uri"],), timeout=self._timeout_s)
            for v in videos
        ]
        prepared, failures = [], []
        for video, future in zip(videos, futures, strict=True):
            try:
                prepared.append((video["video_id"], future.result()))
            except (MediaError, OSError, FutureTimeoutError, pebble.ProcessExpired) as error:
                reason = self._reason(error)
                failures.append(
                    {
                        **video,
                        "stage": "extract",
                        "error": reason,
                        "seconds": time.monotonic() - started,
                    }
                )
        features = self._extractor.embed([value for _, value in prepared])
        return {
            PARTS: self._table([video_id for video_id, _ in prepared], features),
            _FAILED_PARTS: pa.Table.from_pylist(failures, schema=FAILURES),
        }

    def close(self) -> None:
        """End the decoding processes."""
        self._processes.stop()
        self._processes.join()

    def _reason(self, error: Exception) -> str:
        if isinstance(error, FutureTimeoutError) and not isinstance(error, OSError):
            return f"gave up after {self._timeout_s:g} s; raise extract.timeout_s if it is whole"
        if isinstance(error, pebble.ProcessExpired):
            return f"the decoder crashed on it (exit code {error.exitcode}); replace the file"
        if isinstance(error, FileNotFoundError):
            return "no such file; put it there or remove it from the annotations"
        return str(error)

    def _table(self, video_ids: list[str], features: list[Features]) -> pa.Table:
        columns = [
            pa.array(video_ids, pa.string()),
            tensor_column([f.audio_TD for f in features], self._schema.field("audio").type),
            tensor_column([f.visual_TRD for f in features], self._schema.field("visual").type),
        ]
        return pa.Table.from_arrays(columns, schema=self._schema)


_process_extractor: Extractor | None = None


def _set_up_process(make_extractor: MakeExtractor) -> None:
    global _process_extractor
    _process_extractor = make_extractor()


def _ready() -> None:
    """Return once a process is set up, so that its start is no file's time."""


def _prepare(media: Location) -> Any:
    assert _process_extractor is not None
    return _process_extractor.prepare(media.read_bytes())


def extract(
    videos: VideoSet, root: Location, config: ExtractConfig, out: Location
) -> dict[str, Any]:
    """Extract the features of all videos into `out`, and list what failed.

    Returns:
        Counts for the manifest.
    """
    recipe = ExtractorRecipe(videos.timeline, config)
    rows = videos.to_table().select(["video_id", "uri"])
    run_units(
        "extract",
        cut_into_units(rows, config.unit_size),
        _MakeWorker(recipe, root, config.cpus_per_actor, config.timeout_s),
        out,
        Pool(
            num_actors=config.num_actors,
            cpus_per_actor=config.cpus_per_actor,
            gpus_per_actor=config.gpus_per_actor,
        ),
    )
    failures = _gather(out / _FAILED_PARTS, FAILURES)
    (out / FAILURES_FILE).write_table(failures)
    index = _index(out / PARTS)
    (out / INDEX).write_table(index)
    shapes = recipe().shapes
    return {
        "num_videos": index.num_rows,
        "num_failed": failures.num_rows,
        "audio_shape": shapes.audio,
        "visual_shape": shapes.visual,
    }


@dataclass(frozen=True, slots=True)
class _MakeWorker:
    make_extractor: MakeExtractor
    root: Location
    processes: int
    timeout_s: float

    def __call__(self) -> ExtractWorker:
        return ExtractWorker(
            self.make_extractor, self.root, processes=self.processes, timeout_s=self.timeout_s
        )


def _gather(folder: Location, schema: pa.Schema) -> pa.Table:
    parts = [part.read_table().cast(schema) for part in folder.children()]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _index(folder: Location) -> pa.Table:
    tables = []
    for part in folder.children():
        ids = part.read_table(columns=["video_id"])
        tables.append(ids.append_column("part", pa.array([part.name] * ids.num_rows)))
    if not tables:
        return pa.table({"video_id": pa.array([], pa.string()), "part": pa.array([], pa.string())})
    return pa.concat_tables(tables)


def refuse_too_many_failures(out: Location, num_videos: int, config: ExtractConfig) -> None:
    """Stop where more of the videos failed than may.

    Raises:
        DatasetError: The message has the commonest reasons.
    """
    failures = (out / FAILURES_FILE).read_table()
    if failures.num_rows:
        say(
            f"extract: {failures.num_rows} of {num_videos} videos failed, see {out}/{FAILURES_FILE}"
        )
    if failures.num_rows <= config.max_failed_fraction * num_videos:
        return
    reasons = pc.value_counts(failures["error"]).to_pylist()
    reasons.sort(key=lambda reason: -reason["counts"])
    lines = [f"  {reason['counts']} x {reason['values']}" for reason in reasons[:5]]
    raise DatasetError(
        f"{failures.num_rows} of {num_videos} videos failed, more than "
        f"extract.max_failed_fraction {config.max_failed_fraction:g}:\n"
        + "\n".join(lines)
        + f"\nsee {out / FAILURES_FILE}; mend the files or raise extract.max_failed_fraction"
    )
