"""Export the model of an arm to a model folder (`avel export`)."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distributed_avel.errors import ArtifactError, ConfigError
from distributed_avel.predict.exchange import (
    FORMATS,
    OPSET,
    Exported,
    exported,
)
from distributed_avel.predict.model import create_model
from distributed_avel.predict.model_card import Metrics
from distributed_avel.predict.model_folder import (
    FORMATS_FILE,
    MODEL_CONFIG,
    MODEL_WEIGHTS,
    SUFFIXES,
    Format,
    ModelSettings,
    check_weights,
    read_metrics,
    read_model_folder,
    write_model_folder,
)
from distributed_avel.predict.run_models import RunModels, read_run_models
from distributed_avel.registry import import_plugins
from distributed_avel.storage import Location
from distributed_avel.tasks import task_of


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of `avel export`.

    Args:
        run: Run directory or model folder.
        to: Folder of the model.
        arm: Arm such as A+LR; that of the run's folder `model` by default.
        seeds: Run directories that differ from `run` in the seed.
        format: Names in `exchange.FORMATS`.
        plugins: Modules that register the model.
    """

    run: str
    to: str
    arm: str | None = None
    seeds: Sequence[str] = ()
    format: Sequence[str] = ()
    plugins: Sequence[str] = ()


def export(options: ExportOptions) -> None:
    """Write a model folder.

    Raises:
        ArtifactError: The run has no such model, its files are damaged, or the model cannot be
            exported to a format.
        ConfigError: The folder has other files, runs of other seeds differ in other settings, or
            there is no such format.
    """
    unknown = [name for name in options.format if name not in FORMATS]
    if unknown:
        raise ConfigError(f"--format: no format {unknown[0]!r}; there are: {', '.join(FORMATS)}")
    import_plugins(options.plugins)
    run, folder = Location.at(options.run), Location.at(options.to)
    _refuse_other_content(folder)
    model = _read(run, options.arm)
    seeds = [model.metrics, *(_same(model, Location.at(seed)) for seed in options.seeds)]
    formats: dict[Format, list[Exported]] = {
        name: _functions(model, name) for name in FORMATS if name in options.format
    }
    settings = write_model_folder(
        folder,
        model.settings.model_dump(exclude={"sha256"}),
        model.weights,
        model.metrics,
        arms=model.arms,
        seeds=seeds,
    )
    _say(f"{settings.arm} on {settings.dataset}: {folder}")
    if formats:
        _write_formats(folder, settings, formats)


def _functions(model: "_Model", name: Format) -> list[Exported]:
    """Export the functions of a model to a format."""
    settings = model.settings
    network = create_model(settings, model.weights, MODEL_WEIGHTS)
    task = task_of(settings.model, settings.train)
    shapes = settings.audio_shape, settings.visual_shape
    return list(exported(network, task, name, *shapes))


def _write_formats(
    folder: Location, settings: ModelSettings, formats: dict[Format, list[Exported]]
) -> None:
    """Write the files of formats, and a description of their inputs and outputs."""
    files = []
    for format, functions in formats.items():
        for function in functions:
            name = f"{function.name}{SUFFIXES[format]}"
            (folder / name).write_bytes(function.content)
            files.append(
                {
                    "file": name,
                    "format": format,
                    "inputs": {key: _shape(settings, key, function) for key in function.inputs},
                    "output": function.output,
                    "any_number_of_segments": function.any_length,
                    "max_difference": function.difference,
                    "sha256": hashlib.sha256(function.content).hexdigest(),
                }
            )
            segments = "any number of" if function.any_length else settings.num_segments
            _say(f"{name}: {segments} segments, max. difference {function.difference:.1g}")
    made_from = {"onnx_opset": OPSET, "torch": torch.__version__, "model_sha256": settings.sha256}
    (folder / FORMATS_FILE).write_json({**made_from, "files": files})


def _shape(settings: ModelSettings, key: str, function: Exported) -> list[str | int]:
    """Return the shape of an input; axes of any size are names."""
    sizes = {"audio": settings.audio_shape[1:], "visual": settings.visual_shape[1:]}
    segments = "segments" if function.any_length else settings.num_segments
    return ["videos", segments, *sizes.get(key, ["width"])]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of a run: its arm (empty in a model folder), weights, metrics, and all metrics."""

    arm: str
    settings: ModelSettings
    weights: bytes
    metrics: Metrics
    arms: dict[str, Metrics]


def _read(run: Location, arm: str | None) -> _Model:
    """Read the model of an arm from a run directory, or that of a model folder."""
    if (run / MODEL_CONFIG).exists():
        if arm is not None:
            raise ConfigError(
                f"--arm: {run} is the folder of one model; name the run directory to choose an arm"
            )
        settings, weights = read_model_folder(run)
        metrics = read_metrics(run)
        return _Model("", settings, weights, metrics, {settings.arm: metrics})
    models = read_run_models(run)
    arm = arm or models.default
    if arm not in models.arms:
        raise ConfigError(f"--arm: {run} has no model of {arm!r}; it has: {', '.join(models.arms)}")
    found = models.arms[arm]
    place = run / found.weights
    try:
        weights = place.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{place}: no such file; run `avel run` again with the same options"
        ) from None
    check_weights(weights, found.settings, place, "run `avel run` again with the same options")
    metrics = _metrics_of(models, found.settings, run)
    return _Model(arm, found.settings, weights, metrics, {**models.metrics})


def _metrics_of(models: RunModels, settings: ModelSettings, run: Location) -> Metrics:
    try:
        return models.metrics[settings.arm]
    except KeyError:
        raise ArtifactError(f"{run}: no metrics of {settings.arm}; run `avel run` again") from None


_OF_ONE_SEED = {"seed", "sha256", "tau", "version", "packages"}


def _same(model: _Model, run: Location) -> Metrics:
    """Return the metrics of the same arm in a run that differs in the seed only."""
    other = _read(run, model.arm or None)
    ours, theirs = (
        each.settings.model_dump(exclude=_OF_ONE_SEED, mode="json") for each in (model, other)
    )
    changed = sorted(key for key in ours if ours[key] != theirs[key])
    if changed:
        raise ConfigError(
            f"--seeds: {run} differs in more than the seed: {', '.join(changed)}; name runs of "
            "the same settings"
        )
    if model.settings.seed == other.settings.seed:
        raise ConfigError(f"--seeds: {run} has the same seed, {other.settings.seed}; leave it out")
    return other.metrics


def _refuse_other_content(folder: Location) -> None:
    """Refuse a folder with files of something else, which must not be mixed with a model."""
    names = {child.name for child in folder.children()}
    if names and MODEL_CONFIG not in names:
        raise ConfigError(
            f"--to: {folder} has other files, such as {min(names)}; name a new folder"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
