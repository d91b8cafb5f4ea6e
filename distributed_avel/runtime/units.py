"""Work cut into units that a pool of Ray actors does, one unit at a time, each at most once.

Extraction, rendering and Step 2 all have this form: many independent videos, an actor that is
expensive to set up, results that must survive a kill. Ray Data streams the units through the
pool, restarts actors that die and repeats their units. The actor itself writes what a unit
yields, as one Parquet file a kind of table, so that a unit that is written is never done again,
whoever was killed; the files of a unit have the same names and contents whoever writes them.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data

from distributed_avel.artifacts import Location
from distributed_avel.runtime.progress import progress

UNIT = "unit"
"""The column that holds a unit's name."""


class UnitWorker(Protocol):
    """What an actor holds: an ordinary class, so that its tests need no Ray."""

    def __call__(self, rows: pa.Table) -> Mapping[str, pa.Table]:
        """Do one unit.

        Returns:
            Tables by the folder that they are written to; an empty one is not written.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The actors that do the units."""

    num_actors: int
    cpus_per_actor: float = 1.0
    gpus_per_actor: float = 0.0
    units_in_hand: int = 1
    """Units that an actor does at once, each in a thread: what a kill can cost."""


class _UnitActor:
    """Does units, writes their tables, and says what it wrote."""

    def __init__(self, make_worker: Callable[[], UnitWorker], out: Location) -> None:
        self._worker = make_worker()
        self._out = out

    def __call__(self, rows: pa.Table) -> pa.Table:
        started = time.monotonic()
        unit = rows[UNIT][0].as_py()
        tables = self._worker(rows.drop_columns(UNIT))
        for folder, table in tables.items():
            if table.num_rows:
                (self._out / folder / f"{unit}.parquet").write_table(table)
        (self._out / "units" / unit).write_bytes(b"")
        return pa.table(
            {"unit": [unit], "rows": [rows.num_rows], "seconds": [time.monotonic() - started]}
        )


def cut_into_units(rows: pa.Table, size: int) -> list[pa.Table]:
    """Tables of at most `size` rows, each with its unit's name in every row."""
    return [
        rows.slice(start, size).append_column(
            UNIT, pa.array([f"{start // size:06d}"] * rows.slice(start, size).num_rows)
        )
        for start in range(0, rows.num_rows, size)
    ]


def run_units(
    stage: str,
    units: Sequence[pa.Table],
    make_worker: Callable[[], UnitWorker],
    out: Location,
    pool: Pool | None,
) -> None:
    """Do all units that `out` does not have yet.

    Args:
        make_worker: Called once in each actor.
        out: The folder of the stage.
        pool: The actors; without them, all is done in this process.
    """
    finished = {location.name for location in (out / "units").children()}
    todo = [unit for unit in units if unit[UNIT][0].as_py() not in finished]
    total = sum(unit.num_rows for unit in units)
    done = total - sum(unit.num_rows for unit in todo)
    with progress(stage, total, "videos", already=done) as report:
        do = _stream(todo, make_worker, out, pool) if pool else _do_here(todo, make_worker, out)
        for summary in do:
            done += summary["rows"]
            report(done)


def _do_here(
    units: Sequence[pa.Table], make_worker: Callable[[], UnitWorker], out: Location
) -> Iterator[dict[str, Any]]:
    if not units:
        return
    actor = _UnitActor(make_worker, out)
    for unit in units:
        yield actor(unit).to_pylist()[0]


def _stream(
    units: Sequence[pa.Table],
    make_worker: Callable[[], UnitWorker],
    out: Location,
    pool: Pool,
) -> Iterator[dict[str, Any]]:
    if not units:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    summaries = ray.data.from_arrow(list(units)).map_batches(
        _UnitActor,
        fn_constructor_args=(make_worker, out),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=min(pool.num_actors, len(units)),
            max_concurrent_calls_per_actor=pool.units_in_hand,
            enable_true_multi_threading=pool.units_in_hand > 1,
        ),
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor,
    )
    yield from summaries.iter_rows()
