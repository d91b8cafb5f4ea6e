"""Implementation of `avel check` and `avel inspect`, which read data without running a stage."""

import json
import sys
from argparse import Namespace

from distributed_avel.cluster.session import is_in_ray_working_dir
from distributed_avel.config import InspectConfig, RunConfig
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
from distributed_avel.errors import ConfigError, DatasetError, MediaError
from distributed_avel.features.base import ExtractorRecipe
from distributed_avel.features.inspection import inspect_media
from distributed_avel.registry import import_plugins
from distributed_avel.stages.data import root_of
from distributed_avel.storage import Location
from distributed_avel.timeline import Timeline


def show_media(options: Namespace, config: InspectConfig) -> None:
    """Print the decoded input of the extractor for one file, and write it on request.

    Args:
        options: `file`, `out` and `json`; see `avel inspect --help`.
        config: Timeline and extractor.

    Raises:
        ConfigError: The output folder is temporary.
        MediaError: The file cannot be read, or the extractor refuses it.
    """
    out = _lasting_folder(options.out, "--out")
    import_plugins(config.plugins)
    data = config.data
    timeline = Timeline(num_segments=data.num_segments, segment_s=data.segment_s)
    extractor = ExtractorRecipe(timeline, config.extract)()
    try:
        media = Location.at(options.file).read_bytes()
    except OSError as error:
        raise MediaError(f"{options.file}: cannot be read ({error})") from None
    try:
        inspection = inspect_media(media, extractor)
    except MediaError as error:
        raise MediaError(f"{options.file}: {error}") from None
    as_json = json.dumps(inspection.to_json(), indent=2)
    print(as_json if options.json else inspection.to_text())  # noqa: T201
    if out is not None:
        (out / "sheet.png").write_bytes(inspection.sheet())
        (out / "samples.npz").write_bytes(inspection.samples())


def check_data(options: Namespace, config: RunConfig) -> int:
    """Print the findings of a data check; return 1 if there are any, else 0.

    Args:
        options: `json`, `no_files` and `write_split`; see `avel check --help`.
        config: The data set.

    Raises:
        ConfigError: The folder of the split is temporary.
        DatasetError: The data set does not exist, or no split can be written.
    """
    split = _lasting_folder(options.write_split, "--write-split")
    import_plugins(config.plugins)
    data, problems = config.data, Problems()
    root = root_of(data, Location.at(config.resolved_run_dir))
    if data.dataset == "demo" and not is_rendered(data.demo, root):
        raise DatasetError(f"{root}: the demo is not rendered yet; `avel run` renders it")
    videos, files = None, NO_FILES
    with problems.collect():
        videos = inspect_dataset(data, root, problems)
    if videos is None:
        report = unreadable(data.dataset, problems)
    else:
        if not options.no_files:
            files = survey(videos, root, Location.at(data.features) if data.features else None)
        report = check(videos, problems, files, keeps_short=config.data.short_videos == "keep")
    print(json.dumps(report.to_json(), indent=2) if options.json else render(report))  # noqa: T201
    if split is not None:
        if videos is None or problems.errors:
            raise DatasetError("no split was written: fix the unusable rows first")
        write_split(without_leaks(videos, files.twin_of), split)
        note = "; duplicate files under other names were not searched" if options.no_files else ""
        print(f"split without leaks{note}: --data.split {split}", file=sys.stderr)  # noqa: T201
    return int(bool(report.findings))


def _lasting_folder(uri: str | None, option: str) -> Location | None:
    """Return the folder of an option; refuse a folder that Ray removes after the job."""
    if uri is None:
        return None
    folder = Location.at(uri)
    if folder.is_local and is_in_ray_working_dir(folder.path):
        raise ConfigError(
            f"{option}: {folder} is in Ray's copy of the job's working directory, which is "
            "removed after the job; use an absolute path or a URI"
        )
    return folder
