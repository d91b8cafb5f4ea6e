"""Predictions for many files, written as tables and subtitles (`avel predict`)."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd
import pyarrow as pa

from distributed_avel.errors import AvelError, ConfigError, DatasetError
from distributed_avel.predict.events_page import write_events_page
from distributed_avel.predict.formats import (
    fiftyone_labels,
    label_studio_config,
    label_studio_tasks,
    to_eaf,
)
from distributed_avel.predict.model import TrainedModel, load_model
from distributed_avel.predict.prediction import (
    EVENT_COLUMNS,
    Column,
    Prediction,
    label_name,
    to_audacity,
    to_json_text,
    to_srt,
    to_vtt,
)
from distributed_avel.predict.sources import SourceFile, find_files
from distributed_avel.redaction import redact
from distributed_avel.registry import import_plugins
from distributed_avel.storage import Location

SUBTITLES = {"vtt": to_vtt, "srt": to_srt, "audacity": to_audacity}
_SUFFIX = {"vtt": ".vtt", "srt": ".srt", "audacity": ".txt", "elan": ".eaf"}
FORMATS = ("csv", "json", "parquet", *SUBTITLES, "elan", "label-studio", "fiftyone")

_FAILURES = "failures.txt"

_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Checked options of `avel predict`, and the media files that its sources have.

    Args:
        model: Path or URI of the model folder.
        files: The files, at least one.
        failures: Reasons of the sources that cannot be used.
        out: Folder to write to; None to write nothing.
        formats: Some of `FORMATS`.
        processes: Decoding processes; None for the default.
        use_gpu: Whether the base model runs on the GPU.
        weights: File of the weights of a network, by the network's name.
        weights_dir: Folder for downloaded weights.
        plugins: Modules to import.
        hop_s: See `load_model`.
    """

    model: str
    files: Sequence[SourceFile]
    failures: Sequence[str]
    out: Location | None
    formats: Sequence[str]
    processes: int | None
    use_gpu: bool
    weights: Mapping[str, str]
    weights_dir: str | None
    plugins: tuple[str, ...]
    hop_s: float | None

    def load_model(self) -> TrainedModel:
        """Import the plug-ins and load the model.

        Raises:
            AvelError: The model cannot be loaded.
        """
        import_plugins(self.plugins)
        return load_model(
            self.model,
            use_gpu=self.use_gpu,
            weights=self.weights,
            weights_dir=self.weights_dir,
            hop_s=self.hop_s,
        )


def read_request(options: Namespace) -> Request:
    """Check the options, find the files, and report the sources that cannot be used.

    Args:
        options: `model`, `sources`, `out`, `format`, `processes`, `hop`, `gpu`, `weights`,
            `weights_dir` and `plugins` as in `avel predict --help`.

    Raises:
        AvelError: An option is wrong, or no source can be used.
    """
    formats = _checked_formats(options)
    processes = positive("--processes", "processes", options.processes)
    weights = _weights_by_network(options.weights)
    out = None if options.out is None else Location.at(options.out)
    files, failures = find_files(options.sources)
    if not files:
        raise DatasetError("\n".join(failures))
    for failure in failures:
        _complain(failure)
    return Request(
        model=options.model,
        files=files,
        failures=failures,
        out=out,
        formats=formats,
        processes=processes,
        use_gpu=options.gpu,
        weights=weights,
        weights_dir=options.weights_dir,
        plugins=tuple(options.plugins),
        hop_s=_seconds(options.hop),
    )


def predict_files(options: Namespace) -> int:
    """Print the events of media files, and write them if a folder is named, in this process.

    A file or source that cannot be used is reported, and the others are predicted.

    Args:
        options: See `read_request`.

    Returns:
        Exit status: 1 if some files failed, else 0.

    Raises:
        AvelError: An option is wrong, the model cannot be loaded, or no source can be used.
    """
    request = read_request(options)
    model = request.load_model()
    addresses = [file.address for file in request.files]
    results: list[Prediction | AvelError] = []
    show_progress = _Progress(len(addresses))
    num_processes = request.processes or min(len(addresses), num_cpus())
    for _, result in model.predict_all(addresses, num_processes):
        results.append(result)
        show_result(result)
        show_progress(len(results))
    return write_results(request, results, model)


def show_result(result: Prediction | AvelError) -> None:
    """Print the events of a file, or the reason why there are none."""
    if isinstance(result, AvelError):
        _complain(str(result))
    else:
        print(redact(_text(result)), flush=True)  # noqa: T201


def write_results(
    request: Request, results: Sequence[Prediction | AvelError], model: TrainedModel
) -> int:
    """Write the predictions if a folder is named, and print a summary.

    Args:
        results: One per file of the request.

    Returns:
        Exit status: 1 if some files failed, else 0.
    """
    failures = list(request.failures)
    predictions: list[tuple[str, Prediction]] = []
    for file, result in zip(request.files, results, strict=True):
        if isinstance(result, AvelError):
            failures.append(redact(str(result)))
        else:
            predictions.append((file.name, result))
    if request.out is not None:
        failures = write_predictions(
            predictions,
            failures,
            request.out,
            request.formats,
            model.columns,
            f"{model.settings.arm} {model.settings.sha256[:12]}",
        )
    made = [prediction for _, prediction in predictions]
    if request.out is not None:
        write_events_page(made, failures, request.out, model.settings)
    _say(_summary(made, len(failures), len(request.failures), request.out))
    return int(bool(failures))


def write_predictions(
    predictions: Sequence[tuple[str, Prediction]],
    failures: Sequence[str],
    out: Location,
    formats: Sequence[str],
    columns: Sequence[Column] = (),
    model: str = "",
) -> list[str]:
    """Write events and probabilities.

    The files of single videos come last: one that cannot be written is a failure of that video.

    Args:
        predictions: With the name of each file, as in `SourceFile`.
        failures: Reasons of the files that failed.
        formats: Some of `FORMATS`. "csv" and "parquet" write `events`, and "parquet" also
            `segments`, with the probability of each segment; "json" writes `predictions.json`;
            "label-studio" writes its tasks and the labelling interface, "fiftyone" its labels; the
            others write a file per video, with the name of the video.
        columns: Classes of the model.
        model: Name of the model, for Label Studio.

    Returns:
        All failures, also those of files that could not be written.
    """
    all_predictions = [prediction for _, prediction in predictions]
    all_failures = [*failures]
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
    names = [label_name(column.label, column.modality) for column in columns]
    if "label-studio" in formats:
        tasks = label_studio_tasks(all_predictions, model)
        (out / "label_studio_tasks.json").write_bytes(tasks.encode())
        (out / "label_studio_config.xml").write_bytes(label_studio_config(names).encode())
    if "fiftyone" in formats:
        stems = _unique_stems([name for name, _ in predictions])
        labels = fiftyone_labels(list(zip(stems, all_predictions, strict=True)), names)
        (out / "fiftyone_labels.json").write_bytes(labels.encode())
    # A label track of Audacity has the suffix of the list of failures.
    taken = [PurePosixPath(_FAILURES).stem] if "audacity" in formats else []
    stems = _unique_stems([_file_name(name) for name, _ in predictions], taken)
    for stem, prediction in zip(stems, all_predictions, strict=True):
        try:
            _write_video(stem, prediction, out, formats)
        except (AvelError, OSError) as error:
            all_failures.append(redact(f"{prediction.video}: {error}"))
            _complain(all_failures[-1])
    (out / _FAILURES).write_bytes("".join(f"{line}\n" for line in all_failures).encode())
    return all_failures


def _write_video(stem: str, prediction: Prediction, out: Location, formats: Sequence[str]) -> None:
    """Write the files of one video."""
    for kind in formats:
        if kind in _SUFFIX:
            text = SUBTITLES[kind](prediction.events) if kind != "elan" else to_eaf(prediction)
            (out / f"{stem}{_SUFFIX[kind]}").write_bytes(text.encode())


EVENTS_SCHEMA = pa.schema(
    [
        (name, pa.string() if kind == "object" else pa.float64())
        for name, kind in EVENT_COLUMNS.items()
    ]
)
"""Columns of `events.parquet`, also if there is no event."""


_MAX_STEM_BYTES = 200
"""File systems allow names of 255 bytes; suffixes are added, also one while a file is written."""


def _file_name(name: str) -> str:
    """Return a name below a folder without backslashes, and with a short stem."""
    path = PurePosixPath(name.replace("\\", "_"))
    short = path.stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    return str(path.with_name(f"{short}{path.suffix}"))


def _unique_stems(names: Sequence[str], taken: Sequence[str] = ()) -> Iterator[str]:
    """Names without suffixes, made unique by a number, also where case does not count.

    Args:
        names: Names of files.
        taken: Other names, in lower case.
    """
    used = {*taken}
    for name in names:
        stem = str(PurePosixPath(name).with_suffix(""))
        unique, number = stem, 1
        while unique.casefold() in used:
            number += 1
            unique = f"{stem}-{number}"
        used.add(unique.casefold())
        yield unique


def _checked_formats(options: Namespace) -> list[str]:
    formats = options.format or ["csv"]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--format: no format {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    if options.format and options.out is None:
        raise ConfigError("--format: nothing is written without a folder; add --out DIR")
    return formats


def positive(option: str, what: str, text: str | None) -> int | None:
    """Return the value of an option that is a number of things.

    Raises:
        ConfigError: It is no positive number.
    """
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"{option}: {text!r} is not a number of {what}, such as 4")
    return None if text is None else int(text)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ConfigError(f"--hop: {text!r} is not a number of seconds, such as 0.5") from None


def _weights_by_network(words: Sequence[str]) -> dict[str, str]:
    weights = {}
    for word in words:
        network, mark, source = word.partition("=")
        if not (network and mark and source):
            raise ConfigError(f"--weights: {word!r} is not NETWORK=FILE, such as vggish=vggish.pth")
        weights[network] = source
    return weights


def num_cpus() -> int:
    """Return the number of CPUs that this process may use."""
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
