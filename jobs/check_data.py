"""Check a data set: what is wrong with it, before anything runs.

    python jobs/check_data.py --config configs/ave.yaml --data.root DIR

Reports missing and duplicate files, files in two splits, events without time, labels without
truth, class counts and background. Exit status 0: nothing is wrong; 1: something is.

    --json               the whole report as JSON, in place of a text with examples
    --no-files           do not look for the files of the videos, only at the labels
    --write-split DIR    write a split in which no file is shared: test stays as it is, its files
                         are taken out of val and train, those of val out of train. Use it with
                         --data.split DIR. The data set is not changed.
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
    render,
    survey,
    unreadable,
    without_leaks,
    write_split,
)
from distributed_avel.datasets.demo import is_rendered
from distributed_avel.errors import DatasetError
from distributed_avel.runtime.data import root_of


def check_data(options: Namespace, config: RunConfig) -> int:
    """Print the report, and return whether there is something in it."""
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
            raise DatasetError("no split was written: mend what is unusable first")
        write_split(without_leaks(videos, files.twin_of), Location.at(options.write_split))
        print(f"split without leaks: --data.split {options.write_split}", file=sys.stderr)
    return int(bool(report.findings))


def main(argv: list[str]) -> int:
    """Take the options of this job; the others are settings as in all jobs."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--no-files", action="store_true")
    parser.add_argument("--write-split", metavar="DIR")
    options, settings = parser.parse_known_args(argv)
    return run_job(partial(check_data, options), settings, __doc__)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
