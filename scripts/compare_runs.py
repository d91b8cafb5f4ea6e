"""Compare the results of two run directories, such as those before and after a refactoring.

    python scripts/compare_runs.py RUN_A RUN_B [--assert-equal]

Compares the metrics of each arm, every column of the predictions, and the content of the files of
each stage (features, weights, learning curves, window probabilities). Cache keys, manifests, times
and the report page are not compared. With --assert-equal, the exit status is 1 unless all results
are equal, bit for bit.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TIMES = ("seconds",)
"""Columns of Parquet files that hold measured times, as in failures.parquet."""

NOT_RESULTS = ("manifest.json", "depends.json", "DONE", "report.html")
"""Files that name cache keys, times and versions."""

_HASH_OF_UNIT = re.compile(r"(?<=\d{7}-\d{7})-[0-9a-f]{12}(?=\.parquet$)")


def main(argv: list[str]) -> int:
    """Print the differences; return the exit status."""
    parser = argparse.ArgumentParser(description="Compare the results of two runs.")
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--assert-equal", action="store_true")
    args = parser.parse_args(argv)
    for run in args.runs:
        if not (run / "results.json").is_file():
            parser.error(f"{run}: no results.json; name the directory of a finished run")
    found = list(differences(*args.runs))
    print("\n".join(found) if found else "all results are equal, bit for bit")
    return int(args.assert_equal and bool(found))


def differences(a: Path, b: Path) -> Iterator[str]:
    """A line for each difference."""
    yield from metric_differences(
        *(json.loads((run / "results.json").read_text()) for run in (a, b))
    )
    yield from prediction_differences(
        *(pq.read_table(run / "predictions.parquet") for run in (a, b))
    )
    stages_a, stages_b = stage_contents(a), stage_contents(b)
    for stage in sorted(stages_a.keys() | stages_b.keys()):
        only_a = stages_a.get(stage, Counter()) - stages_b.get(stage, Counter())
        only_b = stages_b.get(stage, Counter()) - stages_a.get(stage, Counter())
        for name in sorted({name for name, _ in (*only_a, *only_b)}):
            counts = [
                sum(n for (key, _), n in only.items() if key == name) for only in (only_a, only_b)
            ]
            yield f"{stage}: {name} differs ({counts[0]} only in {a}, {counts[1]} only in {b})"


def metric_differences(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """Metrics that are not equal."""
    for arm in sorted(a["arms"].keys() | b["arms"].keys()):
        metrics_a, metrics_b = a["arms"].get(arm), b["arms"].get(arm)
        if metrics_a is None or metrics_b is None:
            yield f"arm {arm}: in one run only"
            continue
        for name in sorted(metrics_a.keys() | metrics_b.keys()):
            if metrics_a.get(name) != metrics_b.get(name):
                yield f"{arm}: {name} {metrics_a.get(name)} and {metrics_b.get(name)}"


def prediction_differences(a: pa.Table, b: pa.Table) -> Iterator[str]:
    """Columns of the predictions that are not equal."""
    for name in sorted({*a.column_names, *b.column_names}):
        if name not in a.column_names or name not in b.column_names:
            yield f"predictions: column {name} in one run only"
        elif table_hash(a.select([name])) != table_hash(b.select([name])):
            yield f"predictions: column {name} differs"


def stage_contents(run: Path) -> dict[str, Counter[tuple[str, str]]]:
    """Names and content hashes of result files, counted over all runs of each stage."""
    stages: dict[str, Counter[tuple[str, str]]] = {}
    for path in sorted(run.glob("*/*/**/*")):
        if path.is_file() and path.name not in NOT_RESULTS:
            stage, _, *below = path.relative_to(run).parts
            if below[0] == "units":  # hashes of the other files
                continue
            name = _HASH_OF_UNIT.sub("", "/".join(below))
            stages.setdefault(stage, Counter())[name, content_hash(path)] += 1
    stages.pop("videos", None)
    stages.pop("report", None)
    return stages


def content_hash(path: Path) -> str:
    """SHA-256 of a file; of the columns for Parquet, whose header names the version of Arrow."""
    if path.suffix != ".parquet":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    table = pq.read_table(path)
    return table_hash(table.drop_columns([name for name in TIMES if name in table.column_names]))


def table_hash(table: pa.Table) -> str:
    """SHA-256 of the columns of a table, without metadata."""
    sink = pa.BufferOutputStream()
    table = table.combine_chunks()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata())
    return hashlib.sha256(sink.getvalue()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
