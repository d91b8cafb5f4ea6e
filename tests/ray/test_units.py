"""Units of work on a pool of Ray actors: each is processed exactly once."""

import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ray.exceptions import RayTaskError
from troubled import wait_until

from distributed_avel.cluster.actor_pool import Pool, cut_into_units, run_units
from distributed_avel.errors import DatasetError, WeightsError
from distributed_avel.storage import Location

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200), pytest.mark.usefixtures("ray_cluster")]

MISTAKE, BUG = 666, 667


class Squares:
    """Squares numbers, records them in a file, and separates results above 100."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes

    def __call__(self, rows: pa.Table) -> dict[str, pa.Table]:
        numbers = rows["number"].to_pylist()
        with self._notes.open("a") as notes:
            notes.write("".join(f"{number}\n" for number in numbers))
        if MISTAKE in numbers:
            raise DatasetError("666 is not a number; take another")
        if BUG in numbers:
            raise ZeroDivisionError
        squares = pa.table({"number": numbers, "square": [n * n for n in numbers]})
        large = pc.greater(squares["square"], 100)
        return {"small": squares.filter(pc.invert(large)), "large": squares.filter(large)}


class AllSmall(Squares):
    """Treats all results as small."""

    def __call__(self, rows: pa.Table) -> dict[str, pa.Table]:
        tables = super().__call__(rows)
        whole = pa.concat_tables(tables.values())
        return {"small": whole, "large": whole.slice(0, 0)}


class Meeting:
    """Returns from a unit only after another unit has started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, rows: pa.Table) -> dict[str, pa.Table]:
        (self._folder / f"{os.getpid()}-{rows['number'][0]}").touch()
        wait_until(lambda: len(list(self._folder.glob(f"{os.getpid()}-*"))) == 2)
        return {}


def without_weights() -> Squares:
    raise WeightsError("no weights; fetch them")


def units_of(numbers, size: int = 2) -> list[pa.Table]:
    return cut_into_units(pa.table({"number": list(numbers)}), size)


def noted(notes: Path) -> list[int]:
    return sorted(map(int, notes.read_text().split()))


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_do_not_depend_on_the_number_of_actors_or_the_order_of_units(tmp_path):
    units, notes = units_of(range(20), size=3), tmp_path / "notes"
    work = partial(Squares, notes)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"distributed_avel\.")
        run_units("a", units, work, Location.at(tmp_path / "a"), Pool(num_actors=1))
    several = Pool(num_actors=3, units_per_actor=2)
    run_units("b", units[::-1], work, Location.at(tmp_path / "b"), several)
    run_units("c", units, work, Location.at(tmp_path / "c"), None)

    assert noted(notes) == sorted([*range(20)] * 3)
    files = files_in(tmp_path / "a")
    assert files == files_in(tmp_path / "b") == files_in(tmp_path / "c")
    large = sorted(name for name in files if name.startswith("large"))
    assert [name[:21] for name in large] == [
        "large/0000009-0000012",
        "large/0000012-0000015",
        "large/0000015-0000018",
        "large/0000018-0000020",
    ]
    table = Location.at(tmp_path / "a" / large[0]).read_table()
    assert table.to_pylist() == [{"number": 11, "square": 121}]


def test_a_user_error_is_raised_unchanged_and_finished_units_are_kept(tmp_path):
    notes, out = tmp_path / "notes", Location.at(tmp_path / "out")
    work, one = partial(Squares, notes), Pool(num_actors=1)

    with pytest.raises(WeightsError, match=r"^no weights; fetch them$"):
        run_units("a", units_of(range(4)), without_weights, out, one)
    with pytest.raises(DatasetError, match=r"^666 is not a number; take another$"):
        run_units("a", units_of([1, 2, MISTAKE, 6, 3, 4]), work, out, one)
    with pytest.raises(RayTaskError, match="ZeroDivisionError"):
        run_units("a", units_of([1, 2, BUG, 6, 3, 4]), work, out, one)
    notes.unlink()
    run_units("a", units_of([1, 2, 5, 6, 3, 4]), work, out, one)

    assert 1 not in noted(notes)
    assert {5, 6} <= set(noted(notes))
    assert len(files_in(tmp_path / "out" / "small")) == 3


def test_a_repeated_unit_leaves_no_file_of_the_previous_attempt(tmp_path):
    out = tmp_path / "out"
    units, notes, one = units_of([11, 12]), tmp_path / "notes", Pool(num_actors=1)
    run_units("a", units, partial(Squares, notes), Location.at(out), one)
    assert len(files_in(out / "large")) == 1
    (marker,) = (out / "units").iterdir()
    marker.unlink()  # as if killed before the marker was written

    run_units("a", units, partial(AllSmall, notes), Location.at(out), one)

    assert files_in(out / "large") == {}
    assert list(files_in(out / "small")) == [f"{marker.name}.parquet"]


def test_a_unit_with_different_rows_is_not_taken_as_finished(tmp_path):
    notes, out = tmp_path / "notes", Location.at(tmp_path / "out")
    run_units("a", units_of([1, 2, 3, 4]), partial(Squares, notes), out, None)
    notes.write_text("")

    run_units("a", units_of([1, 2, 5, 4]), partial(Squares, notes), out, None)

    assert noted(notes) == [4, 5]


@pytest.mark.parametrize("damaged", ["small/0000002-0000004*", "units/0000002-0000004*"])
@pytest.mark.parametrize("content", [b"", None, b"other"])
def test_only_a_unit_with_damaged_files_is_repeated(tmp_path, damaged, content):
    out, notes, units = tmp_path / "out", tmp_path / "notes", units_of(range(8))
    run_units("a", units, partial(Squares, notes), Location.at(out), None)
    before = files_in(out)
    notes.write_text("")
    (file,) = out.glob(damaged)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)

    run_units("a", units, partial(Squares, notes), Location.at(out), None)

    assert noted(notes) == [2, 3]
    assert files_in(out) == before


def test_an_actor_processes_two_units_at_once_if_units_per_actor_is_2(tmp_path):
    pool = Pool(num_actors=1, units_per_actor=2)

    run_units("a", units_of([1, 2], 1), partial(Meeting, tmp_path), Location.at(tmp_path), pool)

    assert len(list((tmp_path / "units").iterdir())) == 2


def test_actors_may_share_a_gpu(tmp_path):
    """Ray accepts any declared number of GPUs and schedules by it."""
    script = f"""
import ray
from functools import partial
from pathlib import Path
from distributed_avel.storage import Location
from distributed_avel.cluster.actor_pool import Pool, run_units
from test_units import Squares, units_of
ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
pool = Pool(num_actors=2, gpus_per_actor=0.5)
work = partial(Squares, Path({str(tmp_path / "notes")!r}))
run_units("a", units_of(range(7)), work, Location.at({str(tmp_path / "out")!r}), pool)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

    assert noted(tmp_path / "notes") == [*range(7)]
    assert len(files_in(tmp_path / "out" / "units")) == 4
