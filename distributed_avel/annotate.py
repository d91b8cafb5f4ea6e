"""Implementation of `avel import-annotations`: times from annotation tools, into a data set."""

from collections.abc import Sequence
from dataclasses import dataclass

from distributed_avel.datasets.annotations import Annotations, merge, read_annotations
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import ConfigError, DatasetError
from distributed_avel.storage import Location

_TABLE, _BACKUP = "videos.csv", "videos.csv.bak"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of `avel import-annotations`.

    Args:
        files: Files of annotations.
        to: Folder of the data set, which contains `videos.csv`.
    """

    files: Sequence[str]
    to: str


def import_annotations(options: ImportOptions) -> None:
    """Merge annotations into `videos.csv`; the previous table becomes `videos.csv.bak`.

    Raises:
        ConfigError: The folder has no table.
        DatasetError: A file, an event or a video is wrong; nothing is changed.
    """
    root = Location.at(options.to)
    table = root / _TABLE
    if not table.exists():
        raise ConfigError(
            f"--to: {root} has no {_TABLE}; name the folder of a data set `folder`, or write a "
            "table with the columns uri, split and labels"
        )
    problems, read = Problems(), []
    for name in options.files:
        with problems.collect():
            read.append(read_annotations(Location.at(name)))
    problems.refuse("import-annotations")
    merged = merge(
        table,
        Annotations(
            videos=tuple(dict.fromkeys(name for of_file in read for name in of_file.videos)),
            events=tuple(event for of_file in read for event in of_file.events),
        ),
    )
    if not merged.num_videos:
        raise DatasetError("the files contain no annotated video; nothing was changed")
    (root / _BACKUP).write_bytes(table.read_bytes())
    table.write_bytes(merged.text.encode())
    for note in merged.notes:
        print(f"note: {note}")  # noqa: T201
    print(f"{table}: times of {merged.num_videos} videos; the previous table is {_BACKUP}")  # noqa: T201
