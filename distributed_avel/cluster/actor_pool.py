"""Work cut into units that a pool of Ray actors does, each unit at most once.

Extraction, rendering and Step 2 all have this form: many independent videos, an actor that is
expensive to set up, results that must survive a kill. Ray Data streams the units through the
pool, restarts actors that die and repeats their units. The actor itself writes what a unit
yields, as one Parquet file a kind of table, so that a unit that is written is never done again,
whoever was killed; the files of a unit have the same names and contents whoever writes them.
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
from distributed_avel.artifacts import Location, digests, read_sealed, sealed
from distributed_avel.cluster.progress import progress
from distributed_avel.errors import ArtifactError, AvelError, StorageError

UNIT = "unit"
"""The column that holds a unit's name."""

_UNITS = "units"
_TABLE = "table"

_MAX_UNDONE_IN_A_ROW = 4
"""The storage must be gone where so many units in a row cannot be done: others are not tried."""


class UnitWorker(Protocol):
    """What an actor holds: an ordinary class, so that its tests need no Ray."""

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Do one unit.

        Returns:
            Tables by the folder that they are written to; an empty one is not written.

        Raises:
            StorageError: The unit cannot be done now. Others are done first.
            AvelError: No unit can be done.
        """
        ...


MakeWorker = Callable[[], UnitWorker]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The actors that do the units.

    Args:
        units_per_actor: How many units an actor does at once, each in a thread of its own. They
            are what is done again when it is killed.
    """

    num_actors: int
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0
    units_per_actor: int = 1


class _UnitActor:
    """Does units, writes their tables, and reports how many rows each had.

    An `AvelError` reaches the driver as its class and message; Ray would wrap it in a traceback.
    """

    def __init__(self, make_worker: MakeWorker, out: Location) -> None:
        self._out = out
        self._error: AvelError | None = None
        try:
            self._worker = make_worker()
        except AvelError as error:
            self._error = error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do the unit whose table is in `row`, as an Arrow stream."""
        rows = pa.ipc.open_stream(row[_TABLE]).read_all()
        error = self._error
        if error is None:
            try:
                self._do(rows)
            except AvelError as mistake:
                error = mistake
        return {
            "rows": rows.num_rows,
            "error": type(error).__name__ if error else "",
            "message": str(error or ""),
        }

    def _do(self, rows: pa.Table) -> None:
        unit, written = rows[UNIT][0].as_py(), []
        for folder, table in self._worker(rows.drop_columns(UNIT)).items():
            path = f"{folder}/{unit}.parquet"
            part = self._out / path
            if table.num_rows:
                part.write_table(table)
                written.append(path)
            elif part.exists():  # a killed attempt left it, such as a failure that was none
                part.fs.delete_file(part.path)
        (self._out / _UNITS / unit).write_json(sealed({"files": digests(self._out, written)}))


def cut_into_units(rows: pa.Table, size: int) -> list[pa.Table]:
    """Tables of at most `size` rows, each with its unit's name in every row.

    The name contains a hash of the rows, so that a unit of other rows is never taken for this one.
    """
    units = []
    for start in range(0, rows.num_rows, size):
        part = rows.slice(start, size)
        values = json.dumps(part.to_pylist(), default=str)
        content = hashlib.sha256(values.encode()).hexdigest()[:12]
        name = f"{start:07d}-{start + part.num_rows:07d}-{content}"
        units.append(part.append_column(UNIT, pa.array([name] * part.num_rows)))
    return units


def run_units(
    stage: str, units: Sequence[pa.Table], make_worker: MakeWorker, out: Location, pool: Pool | None
) -> None:
    """Do all units that `out` does not have yet.

    Args:
        make_worker: Called once in each actor.
        out: The folder of the stage.
        pool: The actors; without them, this process does all, with the same result.

    Raises:
        AvelError: What a worker raised. Units that are done stay done.
        StorageError: Some units could not be done; the same call does them later.
    """
    with ThreadPoolExecutor() as threads:
        markers = (out / _UNITS).children()
        are_intact = threads.map(lambda marker: _is_intact(marker, out), markers)
        finished = {m.name for m, is_intact in zip(markers, are_intact, strict=True) if is_intact}
    todo = [unit for unit in units if unit[UNIT][0].as_py() not in finished]
    total = sum(unit.num_rows for unit in units)
    done = total - sum(unit.num_rows for unit in todo)
    with progress(stage, total, "videos", already=done) as report:
        do = _stream(todo, make_worker, out, pool) if pool else _do_here(todo, make_worker, out)
        undone: list[str] = []
        in_a_row = 0
        for summary in do:
            if summary["error"] == StorageError.__name__:
                undone.append(summary["message"])
                in_a_row += 1
                if in_a_row == _MAX_UNDONE_IN_A_ROW:
                    break
                continue
            in_a_row = 0
            if summary["error"]:
                raise getattr(errors, summary["error"])(summary["message"])
            done += summary["rows"]
            report(done)
    if undone:
        raise StorageError("\n".join(undone))


def _is_intact(marker: Location, out: Location) -> bool:
    """Whether the files of a unit that was finished are as they were written."""
    try:
        files = read_sealed(marker)["files"]
        return digests(out, list(files)) == files
    except (ArtifactError, FileNotFoundError):
        return False


def _stream(
    units: Sequence[pa.Table], make_worker: MakeWorker, out: Location, pool: Pool
) -> Iterator[dict[str, Any]]:
    """What `_UnitActor` returns for each unit, as it is done."""
    if not units:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    # A unit is one row. map_batches requires a batch size with GPUs, and could then join units.
    rows = [pa.table({_TABLE: [_to_stream(unit)]}) for unit in units]
    actor: Any = _UnitActor  # the annotation of map knows functions only
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


def _do_here(
    units: Sequence[pa.Table], make_worker: MakeWorker, out: Location
) -> Iterator[dict[str, Any]]:
    """What `_stream` does, unit by unit in this process."""
    if units:
        actor = _UnitActor(make_worker, out)
        yield from (actor({_TABLE: _to_stream(unit)}) for unit in units)


def _to_stream(unit: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, unit.schema) as writer:
        writer.write_table(unit)
    return sink.getvalue().to_pybytes()
