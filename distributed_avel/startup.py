"""Start a job: checks that need no cluster, then the Ray session and the MLflow run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed_avel.arms import ARMS
from distributed_avel.cluster.preflight import check_cluster, check_exists, check_writable
from distributed_avel.cluster.session import is_in_ray_working_dir, ray_session, require
from distributed_avel.cluster.tracking import Tracker, connect, local_folder, tracked
from distributed_avel.config import RunConfig
from distributed_avel.datasets import dataset_reader, needs_root
from distributed_avel.errors import ConfigError
from distributed_avel.features.base import extractor_options
from distributed_avel.models import model_class, model_options
from distributed_avel.registry import import_plugins
from distributed_avel.stages.resources import requirements
from distributed_avel.storage import Location

_RENDERED = "demo"
"""Data set that is rendered into `data.root` if it does not exist."""


@contextmanager
def started(config: RunConfig, name: str) -> Iterator[Tracker]:
    """Run all checks, then enter a Ray session and an MLflow run.

    Args:
        config: Configuration of the job.
        name: Name of the MLflow run.

    Raises:
        AvelError: A check fails; the message names the setting, the reason and the remedy.
    """
    check_before_start(config)
    with ray_session(config.cluster), tracked(config, name) as tracker:
        require(requirements(config))
        yield tracker


def check_names(config: RunConfig) -> None:
    """Refuse unknown names and options, and settings that the model cannot use.

    Raises:
        ConfigError: The message lists every unknown name with the names that exist.
    """
    checks: list[Callable[[], object]] = [
        lambda: dataset_reader(config.data.dataset),
        lambda: extractor_options(config.extract.extractor, config.extract.options),
        lambda: model_options(config.model.name, config.model.options),
    ]
    import_plugins(config.plugins)
    problems = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems.append(str(error))
    if not problems:
        problems += _mismatches(config)
    if problems:
        raise ConfigError("\n".join(problems))


def _mismatches(config: RunConfig) -> list[str]:
    """Describe the settings that the model cannot use, one line each."""
    if model_class(config.model.name).task != "parsing":
        return [
            f"arms: arm {arm} needs an audio-visual parsing model such as han; "
            f"{config.model.name} is a localization model"
            for arm in config.arms
            if ARMS[arm].needs_modalities
        ]
    problems = []
    if config.model.pooling != "model":
        problems.append(
            f"model.pooling: {config.model.name} pools with its own attention; leave it out"
        )
    exchanged = [arm for arm in config.arms if ARMS[arm].needs_modalities]
    if config.refine.labels == "soft" and exchanged:
        problems.append(
            f"refine.labels: arm {exchanged[0]} removes a label from a modality or keeps it, so "
            "it has no soft labels; set refine.labels to hard, or leave the arm out"
        )
    return problems


def check_before_start(config: RunConfig) -> None:
    """Check storage, cluster and MLflow before Ray starts.

    Raises:
        AvelError: The message names the setting, the reason and the remedy.
    """
    check_results_last(config)
    check_cluster(config.cluster)
    check_writable("run_dir", Location.at(config.resolved_run_dir))
    if config.data.features is not None:
        check_exists("data.features", Location.at(config.data.features))
    for key, uri in (("data.root", config.data.root), ("data.split", config.data.split)):
        if uri is not None and needs_root(config.data.dataset) and config.data.dataset != _RENDERED:
            check_exists(key, Location.at(uri))
    if config.tracking.enabled:
        connect(config.tracking)


def check_results_last(config: RunConfig) -> None:
    """Refuse results in Ray's copy of a job's working directory, which is removed after the job.

    Raises:
        ConfigError: The message names the settings to give.
    """
    problems = []
    folder = Location.at(config.resolved_run_dir)
    may_be_local = folder.root.startswith(("/", "file:"))  # others may ask the network first
    if may_be_local and is_in_ray_working_dir(folder.path):
        problems.append(_not_lasting("run_dir", "--run-dir", folder.path, "/shared/run"))
    store = local_folder(config.tracking) if config.tracking.enabled else None
    if store and is_in_ray_working_dir(store):
        example = "sqlite:////shared/mlflow.db"
        problems.append(_not_lasting("tracking.uri", "--tracking.uri", str(store), example))
    if problems:
        raise ConfigError("\n".join(problems))


def _not_lasting(key: str, option: str, path: str, example: str) -> str:
    return (
        f"{key}: {path} is in Ray's copy of the job's working directory, which is removed after "
        f"the job; give an absolute path or a URI outside it, such as {option} {example}"
    )
