"""Predictions for many files, written as tables and subtitles (`avel predict`)."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import fs as pafs

from distributed_avel.artifacts import Location
from distributed_avel.errors import AvelError, ConfigError, DatasetError
from distributed_avel.predict.model import load_model
from distributed_avel.predict.prediction import (
    EVENT_COLUMNS,
    Prediction,
    to_audacity,
    to_json_text,
    to_srt,
    to_vtt,
)
from distributed_avel.registry import import_plugins

MEDIA_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".ts", ".webm", ".wmv"}
)
"""Files that are taken from a folder; a file that is named is always taken."""

SUBTITLES = {"vtt": to_vtt, "srt": to_srt, "audacity": to_audacity}
_SUFFIX = {"vtt": ".vtt", "srt": ".srt", "audacity": ".txt"}
FORMATS = ("csv", "json", "parquet", *SUBTITLES)


def predict_files(options: Namespace) -> int:
    """Print the events of media files, and write them if a folder is named.

    Args:
        options: `model`, `sources`, `out`, `format`, `processes`, `gpu` and `plugins` as in
            `avel predict --help`.

    Returns:
        Exit status: 1 if some files failed, else 0.

    Raises:
        AvelError: The model cannot be loaded, or there is no file.
    """
    unknown = [name for name in options.format if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--format: no format {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    import_plugins(tuple(options.plugins))
    model = load_model(options.model, use_gpu=options.gpu)
    files = list(find_files(options.sources))
    processes = options.processes or min(len(files), os.cpu_count() or 1)
    predictions: list[Prediction] = []
    failures: list[str] = []
    for _, result in model.predict_all(files, processes):
        if isinstance(result, AvelError):
            failures.append(str(result))
            print(f"error: {result}", file=sys.stderr, flush=True)  # noqa: T201
        else:
            predictions.append(result)
            print(_text(result), flush=True)  # noqa: T201
    if options.out is not None:
        write_predictions(predictions, failures, Location.at(options.out), options.format)
    if failures:
        print(f"{len(failures)} of {len(files)} files failed", file=sys.stderr)  # noqa: T201
    return int(bool(failures))


def find_files(sources: Sequence[str]) -> Iterator[Location]:
    """Media files of the sources: files, and folders or prefixes with all that is below them.

    Raises:
        DatasetError: A folder has no media file, or a file does not exist.
    """
    for source in sources:
        location = Location.at(source)
        info = location.fs.get_file_info(location.path)
        if info.type == pafs.FileType.NotFound:
            raise DatasetError(f"{source}: no such file or folder")
        if info.type == pafs.FileType.File:
            yield location
            continue
        selector = pafs.FileSelector(location.path, recursive=True)
        paths = sorted(
            found.path
            for found in location.fs.get_file_info(selector)
            if found.is_file and Path(found.path).suffix.lower() in MEDIA_SUFFIXES
        )
        if not paths:
            raise DatasetError(f"{source}: no media file in this folder; name a file instead")
        prefix = location.path.rstrip("/") + "/"
        for path in paths:
            yield location / path.removeprefix(prefix)


def write_predictions(
    predictions: Sequence[Prediction],
    failures: Sequence[str],
    out: Location,
    formats: Sequence[str],
) -> None:
    """Write events and probabilities.

    Args:
        formats: Some of `FORMATS`. "csv" and "parquet" write `events`, and "parquet" also
            `segments`, with the probability of each segment; "json" writes `predictions.json`; the
            others write a file per video.
    """
    frames = [prediction.to_dataframe() for prediction in predictions]
    frames = [frame for frame in frames if len(frame)]
    events = pd.concat(frames) if frames else pd.DataFrame(columns=list(EVENT_COLUMNS))
    if "csv" in formats:
        (out / "events.csv").write_bytes(events.to_csv(index=False).encode())
    if "parquet" in formats:
        (out / "events.parquet").write_table(pa.Table.from_pandas(events, preserve_index=False))
        segments = [prediction.segments_dataframe() for prediction in predictions]
        if segments:
            table = pa.Table.from_pandas(pd.concat(segments), preserve_index=False)
            (out / "segments.parquet").write_table(table)
    if "json" in formats:
        (out / "predictions.json").write_bytes(to_json_text(predictions).encode())
    names: dict[str, int] = {}
    for prediction in predictions:
        stem = Path(prediction.video).stem
        names[stem] = names.get(stem, 0) + 1
        unique = stem if names[stem] == 1 else f"{stem}-{names[stem]}"
        for name in formats:
            if name in SUBTITLES:
                text = SUBTITLES[name](prediction.events)
                (out / f"{unique}{_SUFFIX[name]}").write_bytes(text.encode())
    if failures:
        (out / "failures.txt").write_bytes("".join(f"{line}\n" for line in failures).encode())


def _text(prediction: Prediction) -> str:
    lines = [f"{prediction.video}: {prediction.num_segments} segments"]
    for event in prediction.events:
        modality = "" if event.modality == "audio-visual" else f"  {event.modality}"
        lines.append(
            f"  {event.start_s:8.2f} - {event.end_s:8.2f} s  {event.confidence:4.0%}  "
            f"{event.label}{modality}"
        )
    return "\n".join(lines if len(lines) > 1 else [f"{lines[0]}, no event"])
