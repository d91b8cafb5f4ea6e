"""Export the model of an arm to a model folder (`avel export`)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from distributed_avel.errors import ArtifactError, ConfigError
from distributed_avel.predict.model_card import Metrics
from distributed_avel.predict.model_folder import (
    MODEL_CONFIG,
    ModelSettings,
    check_weights,
    read_metrics,
    read_model_folder,
    write_model_folder,
)
from distributed_avel.predict.run_models import RunModels, read_run_models
from distributed_avel.storage import Location


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of `avel export`.

    Args:
        run: Run directory or model folder.
        to: Folder of the model.
        arm: Arm such as A+LR; that of the run's folder `model` by default.
        seeds: Run directories that differ from `run` in the seed.
    """

    run: str
    to: str
    arm: str | None = None
    seeds: Sequence[str] = ()


def export(options: ExportOptions) -> None:
    """Write a model folder.

    Raises:
        ArtifactError: The run has no such model, or its files are damaged.
        ConfigError: The folder has other files, or runs of other seeds differ in other settings.
    """
    run, folder = Location.at(options.run), Location.at(options.to)
    _refuse_other_content(folder)
    model = _read(run, options.arm)
    seeds = [model.metrics, *(_same(model, Location.at(seed)) for seed in options.seeds)]
    settings = write_model_folder(
        folder,
        model.settings.model_dump(exclude={"sha256"}),
        model.weights,
        model.metrics,
        arms=model.arms,
        seeds=seeds,
    )
    _say(f"{settings.arm} on {settings.dataset}: {folder}")


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
