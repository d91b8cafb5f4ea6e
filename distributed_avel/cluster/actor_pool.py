"""Process units, which are batches of rows, with a pool of Ray actors; finished units are skipped.

Extraction, rendering and Step 2 have this form: many independent videos, actors that are expensive
to set up, and results that must survive a kill. Ray Data streams the units through the pool,
restarts actors that die, and repeats their units. The actor writes the results of a unit itself, as
one Parquet file per table, so that a finished unit is never repeated. The names and contents of
these files do not depend on the actor.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray.data

from distributed_avel import errors
from distributed_avel.artifacts import digests, read_sealed, sealed
from distributed_avel.cluster.progress import progress
from distributed_avel.errors import ArtifactError, AvelError, StorageError
from distributed_avel.storage import Location

UNIT = "unit"
"""Column with the name of the unit."""

UNIT_MARKERS = "units"
"""Folder of the markers of finished units."""

_TABLE = "table"

_MAX_CONSECUTIVE_FAILURES = 4
"""After so many consecutive storage failures, the storage is gone and no more units are tried."""


class UnitWorker(Protocol):
    """Processes units inside an actor: an ordinary class, so that its tests need no Ray."""

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Process one unit.

        Returns:
            Tables by the folder to write them to; empty tables are not written.

        Raises:
            StorageError: This unit fails for now; the others are still processed.
            AvelError: No unit can be processed.
        """
        ...


MakeWorker = Callable[[], UnitWorker]
"""Creates the worker of an actor; pickled and called in the actor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Number and resources of the actors.

    Args:
        units_per_actor: Units that an actor processes at once, one thread each. They are repeated
            if the actor is killed.
    """

    num_actors: int
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0
    units_per_actor: int = 1


class _UnitActor:
    """Processes units, writes their tables, and returns a summary of each unit.

    An `AvelError` is returned as class name and message; Ray would wrap it in a traceback.
    """

    def __init__(self, make_worker: MakeWorker, out: Location) -> None:
        self._out = out
        self._error: AvelError | None = None
        try:
            self._worker = make_worker()
        except AvelError as error:
            self._error = error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Process the unit whose table is in `row`, as an Arrow stream."""
        rows = pa.ipc.open_stream(row[_TABLE]).read_all()
        error = self._error
        if error is None:
            try:
                self._process(rows)
            except AvelError as unit_error:
                error = unit_error
        return {
            "rows": rows.num_rows,
            "error": type(error).__name__ if error else "",
            "message": str(error or ""),
        }

    def _process(self, rows: pa.Table) -> None:
        unit, written = rows[UNIT][0].as_py(), []
        for folder, table in self._worker(rows.drop_columns(UNIT)).items():
            path = f"{folder}/{unit}.parquet"
            file = self._out / path
            if table.num_rows:
                file.write_table(table)
                written.append(path)
            elif file.exists():  # from a killed attempt, such as failures that did not recur
                file.fs.delete_file(file.path)
        (self._out / UNIT_MARKERS / unit).write_json(sealed({"files": digests(self._out, written)}))


def cut_into_units(rows: pa.Table, size: int) -> list[pa.Table]:
    """Split a table into units of at most `size` rows, and add a column with the unit's name.

    The name contains a hash of the rows, so that units with different rows are never confused.
    """
    units = []
    for start in range(0, rows.num_rows, size):
        unit = rows.slice(start, size)
        values = json.dumps(unit.to_pylist(), default=str)
        content = hashlib.sha256(values.encode()).hexdigest()[:12]
        name = f"{start:07d}-{start + unit.num_rows:07d}-{content}"
        units.append(unit.append_column(UNIT, pa.array([name] * unit.num_rows)))
    return units


def run_units(
    stage: str, units: Sequence[pa.Table], make_worker: MakeWorker, out: Location, pool: Pool | None
) -> None:
    """Process all units that are not finished in `out`.

    Args:
        stage: Name of the stage, for progress messages.
        make_worker: Called once in each actor.
        out: Folder of the stage.
        pool: The actors; if None, process all units in the current process, with the same result.

    Raises:
        AvelError: A worker raised it. Finished units stay finished.
        StorageError: Some units failed; the same call processes them later.
    """
    with ThreadPoolExecutor() as threads:
        markers = (out / UNIT_MARKERS).children()
        are_intact = threads.map(lambda marker: _is_intact(marker, out), markers)
        finished = {m.name for m, is_intact in zip(markers, are_intact, strict=True) if is_intact}
    todo = [unit for unit in units if unit[UNIT][0].as_py() not in finished]
    total = sum(unit.num_rows for unit in units)
    done = total - sum(unit.num_rows for unit in todo)
    with progress(stage, total, "videos", already=done) as report:
        process = _process_in_pool if pool else _process_here
        failures: list[str] = []
        num_consecutive = 0
        for summary in process(todo, make_worker, out, pool):
            if summary["error"] == StorageError.__name__:
                failures.append(summary["message"])
                num_consecutive += 1
                if num_consecutive == _MAX_CONSECUTIVE_FAILURES:
                    break
                continue
            num_consecutive = 0
            if summary["error"]:
                raise getattr(errors, summary["error"])(summary["message"])
            done += summary["rows"]
            report(done)
    if failures:
        raise StorageError("\n".join(failures))


def _is_intact(marker: Location, out: Location) -> bool:
    """Return True if the files of a finished unit match their checksums."""
    try:
        files = read_sealed(marker)["files"]
        return digests(out, list(files)) == files
    except (ArtifactError, FileNotFoundError):
        return False


def _process_in_pool(
    units: Sequence[pa.Table], make_worker: MakeWorker, out: Location, pool: Pool | None
) -> Iterator[dict[str, Any]]:
    """Yield the summary of each unit, in the order in which they finish."""
    if not units:
        return
    assert pool
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    # A unit is one row. With GPUs, map_batches requires a batch size, which could merge units.
    rows = [pa.table({_TABLE: [_to_stream(unit)]}) for unit in units]
    actor: Any = _UnitActor  # the type annotation of map allows functions only
    summaries = ray.data.from_arrow(rows).map(
        actor,
        fn_constructor_args=(make_worker, out),
        compute=ray.data.ActorPoolStrategy(
            size=min(pool.num_actors, len(units)),
            max_concurrent_calls_per_actor=pool.units_per_actor,
            enable_true_multi_threading=pool.units_per_actor > 1,
        ),
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor,
    )
    yield from summaries.iter_rows()


def _process_here(
    units: Sequence[pa.Table], make_worker: MakeWorker, out: Location, pool: Pool | None
) -> Iterator[dict[str, Any]]:
    """Process the units in the current process, and yield their summaries."""
    if units:
        actor = _UnitActor(make_worker, out)
        yield from (actor({_TABLE: _to_stream(unit)}) for unit in units)


def _to_stream(unit: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, unit.schema) as writer:
        writer.write_table(unit)
    return sink.getvalue().to_pybytes()
