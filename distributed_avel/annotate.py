"""Implementation of `avel annotate-export` and `avel import-annotations`.

Shape suffixes used in this file:
    V = videos    T = segments    K = event classes + background
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from distributed_avel.datasets.annotations import LOCAL_FILES, Annotations, merge, read_annotations
from distributed_avel.datasets.problems import Problems
from distributed_avel.errors import ConfigError, DatasetError
from distributed_avel.predict.formats import label_studio_config, label_studio_tasks
from distributed_avel.predict.model_folder import MODEL, ModelSettings, read_model_folder
from distributed_avel.predict.prediction import Column, Prediction
from distributed_avel.randomness import derive
from distributed_avel.schema import PREDICTIONS_FILE
from distributed_avel.storage import Location

_TASKS, _INTERFACE = "tasks.json", "config.xml"
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


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of `avel annotate-export`.

    Args:
        run: Directory of a finished run.
        out: Folder to write.
        n: Number of videos.
        random: Draw the videos at random, instead of by the uncertainty of the model.
        media: Text before the id of a video in its address; in a URL, the id is quoted.
    """

    run: str
    out: str
    n: int = 20
    random: bool = False
    media: str = ""


def annotate_export(options: ExportOptions) -> None:
    """Write a Label Studio project of test videos without times, with predicted events.

    Raises:
        ConfigError: The run is not finished, is a parsing run, or has times for all test videos.
    """
    run = Location.at(options.run)
    if not (run / PREDICTIONS_FILE).exists():
        raise ConfigError(f"{run}: no {PREDICTIONS_FILE}; name the directory of a finished run")
    settings, _ = read_model_folder(run / MODEL)
    videos = [video for video in _predictions(run, settings) if not video.has_times]
    if not videos:
        raise ConfigError(f"{run}: all test videos have times; there is nothing to annotate")

    def order(video: _Predicted) -> tuple[float, int]:
        drawn = derive(0, "annotate", video.video_id)
        return (0.0 if options.random else -video.uncertainty, drawn)

    chosen = sorted(videos, key=order)[: options.n]
    columns = tuple(Column(name, "audio-visual") for name in settings.classes)
    predictions = [
        Prediction(
            video=video_address(options.media, video.video_id),
            segment_s=settings.segment_s,
            columns=columns,
            probabilities=video.prob_TK,
            predicted=video.prob_TK.argmax(axis=1)[:, None] == np.arange(video.prob_TK.shape[1]),
        )
        for video in chosen
    ]
    out = Location.at(options.out)
    (out / _TASKS).write_bytes(label_studio_tasks(predictions, settings.arm).encode())
    (out / _INTERFACE).write_bytes(label_studio_config(settings.classes).encode())
    print(  # noqa: T201
        f"{out}: {len(chosen)} of {len(videos)} test videos without times; set up a project of "
        f"Label Studio with {_INTERFACE} and import {_TASKS}"
    )


def video_address(media: str, video_id: str) -> str:
    """Return the address of a video; `import-annotations` reads the same URLs."""
    is_url = media.startswith(("http://", "https://", "file://", LOCAL_FILES))
    return media + (quote(video_id, safe="/") if is_url else video_id)


@dataclass(frozen=True, slots=True)
class _Predicted:
    video_id: str
    prob_TK: NDArray[np.float32]
    has_times: bool

    @property
    def uncertainty(self) -> float:
        """Mean entropy of the segments, in nats."""
        prob_TK = np.clip(self.prob_TK.astype(np.float64), 1e-12, None)
        return float(-(prob_TK * np.log(prob_TK)).sum(axis=1).mean())


def _predictions(run: Location, settings: ModelSettings) -> list[_Predicted]:
    """Read the predictions of the arm of the model, by video."""
    table = (run / PREDICTIONS_FILE).read_table()
    if "scores" not in table.column_names:
        raise ConfigError(
            f"{run}: a parsing run; times of single modalities cannot be put into videos.csv"
        )
    table = table.filter(pc.field("arm") == settings.arm)
    scores = table["scores"].combine_chunks()
    prob_NK = scores.flatten().to_numpy().reshape(len(scores), -1)
    has_times_N = table["truth"].is_valid().to_numpy()
    rows_of: dict[str, list[int]] = {}
    for row, video_id in enumerate(table["video_id"].to_pylist()):
        rows_of.setdefault(video_id, []).append(row)
    return [
        _Predicted(video_id, prob_NK[rows], bool(has_times_N[rows[0]]))
        for video_id, rows in rows_of.items()
    ]
