"""Check a data set before anything runs.

    python jobs/check_data.py --config configs/ave.yaml --data.root DIR

Looks for missing, empty and duplicate files, media files that extraction will refuse or cut off,
files in two splits, names of classes that differ only in spelling, wrong separators, events
without time or outside the video, labels without ground truth, and classes without training
videos. Prints the counts of each split, then the
findings in groups: how many, the consequence, the remedy, and the first five with file and line.

Exit status: 0 if there are no findings; 1 if there are some, "unusable" being those for which the
pipeline refuses the data set; 2 if an option or the configuration is wrong.

    --json               print the whole report as JSON, with every finding
    --no-files           check the labels only; do not look for the files of the videos
    --write-split DIR    write a split in which no file is shared: test keeps all its videos, val
                         and train lose those that share a file with test, and train those that
                         share one with val. Use it with --data.split DIR. The data set is not
                         changed.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from distributed_avel.artifacts import Location
from distributed_avel.cli import run_job
from distributed_avel.config import RunConfig
from distributed_avel.datasets import Problems, inspect_dataset
from distributed_avel.datasets.checks import (
    NO_FILES,
    check,
    survey,
    unreadable,
    without_leaks,
    write_split,
)
from distributed_avel.datasets.demo import is_rendered
from distributed_avel.datasets.findings import render
from distributed_avel.errors import DatasetError
from distributed_avel.runtime.data import root_of


def check_data(options: Namespace, config: RunConfig) -> int:
    """Print the report; return 1 if it has findings, else 0."""
    data, problems = config.data, Problems()
    root = root_of(data, Location.at(config.resolved_run_dir))
    if data.dataset == "demo" and not is_rendered(data.demo, root):
        raise DatasetError(f"{root}: the demo is not rendered yet; jobs/pipeline.py renders it")
    videos, files = None, NO_FILES
    with problems.collect():
        videos = inspect_dataset(data, root, problems)
    if videos is None:
        report = unreadable(data.dataset, problems)
    else:
        if not options.no_files:
            files = survey(videos, root)
        report = check(videos, problems, files)
    print(json.dumps(report.to_json(), indent=2) if options.json else render(report))
    if options.write_split:
        if videos is None or problems.errors:
            raise DatasetError("no split was written: fix what is unusable first")
        write_split(without_leaks(videos, files.twin_of), Location.at(options.write_split))
        print(f"split without leaks: --data.split {options.write_split}", file=sys.stderr)
    return int(bool(report.findings))


def main(argv: list[str]) -> int:
    """Parse the options of this job; all others are settings, as in every job."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-files", action="store_true")
    parser.add_argument("--write-split", metavar="DIR")
    options, settings = parser.parse_known_args(argv)
    return run_job(partial(check_data, options), settings, __doc__)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
