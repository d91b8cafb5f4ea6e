"""Predictions for many files, written as tables and subtitles (`avel predict`)."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
from pyarrow import fs as pafs

from distributed_avel.errors import AvelError, ConfigError, DatasetError
from distributed_avel.predict.events_page import write_events_page
from distributed_avel.predict.model import load_model
from distributed_avel.predict.prediction import (
    EVENT_COLUMNS,
    Prediction,
    to_audacity,
    to_json_text,
    to_srt,
    to_vtt,
)
from distributed_avel.redaction import redact
from distributed_avel.registry import import_plugins
from distributed_avel.storage import Location

MEDIA_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".ts", ".webm", ".wmv"}
)
"""Files that are taken from a folder; a file that is named is always taken."""

SUBTITLES = {"vtt": to_vtt, "srt": to_srt, "audacity": to_audacity}
_SUFFIX = {"vtt": ".vtt", "srt": ".srt", "audacity": ".txt"}
FORMATS = ("csv", "json", "parquet", *SUBTITLES)

_FAILURES = "failures.txt"

_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A media file to predict.

    Args:
        address: Path or URI, as a user named it or a folder that it is in.
        name: Its path below the source that a user named, or its name; without the suffix, the
            name of its subtitles.
    """

    address: str
    name: str


def predict_files(options: Namespace) -> int:
    """Print the events of media files, and write them if a folder is named.

    A file or source that cannot be used is reported, and the others are predicted.

    Args:
        options: `model`, `sources`, `out`, `format`, `processes`, `gpu`, `weights`, `weights_dir`
            and `plugins` as in `avel predict --help`.

    Returns:
        Exit status: 1 if some files failed, else 0.

    Raises:
        AvelError: An option is wrong, the model cannot be loaded, or no source can be used.
    """
    formats = _checked_formats(options)
    processes = _checked_processes(options)
    weights = _weights_by_network(options.weights)
    out = None if options.out is None else Location.at(options.out)
    files, failures = find_files(options.sources)
    if not files:
        raise DatasetError("\n".join(failures))
    for failure in failures:
        _complain(failure)
    num_sources_failed = len(failures)
    import_plugins(tuple(options.plugins))
    model = load_model(
        options.model,
        use_gpu=options.gpu,
        weights=weights,
        weights_dir=options.weights_dir,
    )
    addresses = [file.address for file in files]
    predictions: list[Prediction | None] = []
    show_progress = _Progress(len(files))
    for _, result in model.predict_all(addresses, processes or min(len(files), _num_cpus())):
        if isinstance(result, AvelError):
            failures.append(redact(str(result)))
            predictions.append(None)
            _complain(str(result))
        else:
            predictions.append(result)
            print(redact(_text(result)), flush=True)  # noqa: T201
        show_progress(len(predictions))
    named = [
        (file.name, prediction)
        for file, prediction in zip(files, predictions, strict=True)
        if prediction is not None
    ]
    if out is not None:
        write_predictions(named, failures, out, formats)
        write_events_page([prediction for _, prediction in named], failures, out, model.settings)
    _say(_summary([prediction for _, prediction in named], len(failures), num_sources_failed, out))
    return int(bool(failures))


def find_files(sources: Sequence[str]) -> tuple[list[MediaFile], list[str]]:
    """Find the media files of the sources: files, and folders or prefixes with all below them.

    Returns:
        The files, each once, and the reason of each source that cannot be used.
    """
    files: dict[Location, MediaFile] = {}
    failures: list[str] = []
    for source in sources:
        try:
            for file in _files_of(source):
                files.setdefault(Location.at(file.address), file)
        except (AvelError, OSError) as error:
            failures.append(str(error))
        except UnicodeEncodeError:
            failures.append(f"{source!a}: the name is not UTF-8; rename it")
    return list(files.values()), failures


def _files_of(source: str) -> Iterator[MediaFile]:
    location = Location.at(source)
    info = location.fs.get_file_info(location.path)
    if info.type == pafs.FileType.NotFound:
        raise DatasetError(f"{source}: no such file or folder; check the path")
    if info.type != pafs.FileType.Directory:
        yield MediaFile(source, location.name)
        return
    selector = pafs.FileSelector(location.path, recursive=True)
    prefix = location.path.rstrip("/") + "/"
    paths, num_unnameable = [], 0
    for found in location.fs.get_file_info(selector):
        try:
            paths += [found.path] if found.is_file else []
        except UnicodeDecodeError:
            num_unnameable += 1
    names = sorted(
        path.removeprefix(prefix) for path in paths if Path(path).suffix.lower() in MEDIA_SUFFIXES
    )
    if not names and not num_unnameable:
        raise DatasetError(f"{source}: no media file in this folder; name a file instead")
    for name in names:
        is_uri = "://" in source
        address = str(location / name) if is_uri else str(Path(source).expanduser() / name)
        yield MediaFile(address, name)
    if num_unnameable:
        raise DatasetError(
            f"{source}: the names of {num_unnameable} files or folders in it are not UTF-8; "
            "rename them"
        )


def write_predictions(
    predictions: Sequence[tuple[str, Prediction]],
    failures: Sequence[str],
    out: Location,
    formats: Sequence[str],
) -> None:
    """Write events and probabilities.

    Args:
        predictions: With the name of each file, as in `MediaFile`.
        failures: Reasons of the files that failed.
        formats: Some of `FORMATS`. "csv" and "parquet" write `events`, and "parquet" also
            `segments`, with the probability of each segment; "json" writes `predictions.json`; the
            others write a file per video, with the name of the video.
    """
    for name, prediction in zip(
        _unique_stems([name for name, _ in predictions]),
        [prediction for _, prediction in predictions],
        strict=True,
    ):
        for kind in formats:
            if kind in SUBTITLES:
                text = SUBTITLES[kind](prediction.events)
                (out / f"{name}{_SUFFIX[kind]}").write_bytes(text.encode())
    all_predictions = [prediction for _, prediction in predictions]
    no_event = pd.DataFrame(columns=list(EVENT_COLUMNS)).astype(EVENT_COLUMNS)
    frames = [prediction.to_dataframe() for prediction in all_predictions]
    events = pd.concat([frame for frame in frames if len(frame)] or [no_event])
    if "csv" in formats:
        (out / "events.csv").write_bytes(events.to_csv(index=False).encode())
    if "parquet" in formats:
        table = pa.Table.from_pandas(events, EVENTS_SCHEMA, preserve_index=False)
        (out / "events.parquet").write_table(table)
        if all_predictions:
            segments = pd.concat([made.segments_dataframe() for made in all_predictions])
            table = pa.Table.from_pandas(segments, preserve_index=False)
            (out / "segments.parquet").write_table(table)
    if "json" in formats:
        (out / "predictions.json").write_bytes(to_json_text(all_predictions).encode())
    (out / _FAILURES).write_bytes("".join(f"{line}\n" for line in failures).encode())


EVENTS_SCHEMA = pa.schema(
    [
        (name, pa.string() if kind == "object" else pa.float64())
        for name, kind in EVENT_COLUMNS.items()
    ]
)
"""Columns of `events.parquet`, also if there is no event."""


def _unique_stems(names: Sequence[str]) -> Iterator[str]:
    """Names without suffixes, made unique by a number, also where case does not count."""
    taken: set[str] = set()
    for name in names:
        stem = str(PurePosixPath(name).with_suffix(""))
        unique, number = stem, 1
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.casefold())
        yield unique


def _checked_formats(options: Namespace) -> list[str]:
    formats = options.format or ["csv"]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--format: no format {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    if options.format and options.out is None:
        raise ConfigError("--format: nothing is written without a folder; add --out DIR")
    return formats


def _checked_processes(options: Namespace) -> int | None:
    text = options.processes
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"--processes: {text!r} is not a number of processes, such as 4")
    return None if text is None else int(text)


def _weights_by_network(words: Sequence[str]) -> dict[str, str]:
    weights = {}
    for word in words:
        network, mark, source = word.partition("=")
        if not (network and mark and source):
            raise ConfigError(f"--weights: {word!r} is not NETWORK=FILE, such as vggish=vggish.pth")
        weights[network] = source
    return weights


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(prediction: Prediction) -> str:
    lines = [f"{prediction.video}: {prediction.num_segments} segments"]
    if prediction.note:
        lines[0] += f" ({prediction.note})"
    for event in prediction.events:
        modality = "" if event.modality == "audio-visual" else f"  {event.modality}"
        lines.append(
            f"  {event.start_s:8.2f} - {event.end_s:8.2f} s  {event.confidence:4.0%}  "
            f"{event.label}{modality}"
        )
    return "\n".join(lines if len(lines) > 1 else [f"{lines[0]}, no event"])


def _summary(
    predictions: Sequence[Prediction], num_failed: int, num_sources: int, out: Location | None
) -> str:
    """The last line: counts of files and events."""
    num_events = sum(len(prediction.events) for prediction in predictions)
    parts = [f"{num_events} events in {len(predictions)} files"]
    if num_failed > num_sources:
        parts.append(f"{num_failed - num_sources} files failed")
    if num_sources:
        parts.append(f"{num_sources} sources could not be used")
    if out is not None:
        parts.append(f"written to {out}")
    return ", ".join(parts)


class _Progress:
    """Says how many files are done, every few seconds, if there is more than one."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first_s: float | None = None  # of the first file, before which processes start
        self._said_s = time.monotonic()

    def __call__(self, done: int) -> None:
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
        if done == self._total or now_s - self._said_s < _PROGRESS_EVERY_S:
            return
        self._said_s = now_s
        line = f"{done} of {self._total} files"
        if done > 1:
            left_s = (now_s - self._first_s) / (done - 1) * (self._total - done)
            line += f", about {left_s:.0f} s left"
        _say(line)


def _complain(problem: str) -> None:
    _say(f"error: {problem}")


def _say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)  # noqa: T201
