"""The settings that each stage's fingerprint hashes: all of them, without a few that are named.

A setting that is added to a section of the configuration is hashed by every stage that reads the
section, until somebody names it here: as neutral (no result depends on it), or as one that a
stage does not read. A forgotten setting therefore costs a computation, and never a stale result.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

from distributed_avel.arms import WindowLabels
from distributed_avel.config import Config, RunConfig, TuneConfig
from distributed_avel.datasets import unread_sections
from distributed_avel.features.base import Extractor, extractor_options
from distributed_avel.models import model_options
from distributed_avel.refine.pseudo_labels import Threshold
from distributed_avel.tasks import Localization, Parsing, Task

NEUTRAL: Mapping[str, str] = MappingProxyType(
    {
        "run_dir": "where results lie",
        "plugins": "the names of what is used of them are hashed",
        "tracking": "where results are logged as well",
        "cluster": "where Ray runs",
        "data.root": "the annotations, and sizes and times of the files, are hashed instead",
        "data.split": "the splits themselves are hashed, with the annotations",
        "extract.num_actors": "an actor extracts each unit of videos by itself",
        "extract.weights": "the sha256 of the weights is hashed instead",
        "extract.weights_dir": "the sha256 of the weights is hashed instead",
        "extract.max_failed_fraction": "every run compares it with the failures",
        "refine.num_actors": "the scores of a video do not depend on what an actor scored before",
        "sweep.num_best": "which trials there are, not the result of one",
        "sweep.num_seeds": "which trials there are, not the result of one",
        "sweep.max_concurrent": "how many trials run at once",
        "sweep.gpus_per_trial": "how many trials share a GPU; train.use_gpu says whether they do",
        "sweep.max_retries": "a trial that is run again gives the same result",
    }
)
"""Settings, or whole sections, that no result depends on, each with the reason."""

_WINDOWS = frozenset({"window", "stride"})
_PARTNERS = frozenset({"partners", "num_partners"})
_CHOICE_OF_TAU = frozenset({"threshold", "num_candidates", "screen_keep"})
_STEP_3 = _CHOICE_OF_TAU | {"labels"}


def without_neutral(
    config: Config, key: str = "", unread: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """The settings of a configuration or of a section, as JSON, without those that are neutral.

    Args:
        key: Of the section; empty for the whole configuration.
        unread: Names of settings of this section that the stage does not read.
    """
    return _pruned(config.model_dump(mode="json", exclude={*unread}), key)


def _pruned(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        full = f"{key}.{name}" if key else name
        if full not in NEUTRAL:
            found[name] = _pruned(value, full) if isinstance(value, Mapping) else value
    return found


def data_settings(config: RunConfig) -> dict[str, Any]:
    """The videos and their labels: without the sections of other data sets."""
    return without_neutral(config.data, "data", unread_sections(config.data.dataset))


def extract_settings(config: RunConfig, extractor: Extractor | None) -> dict[str, Any]:
    """Features.

    Args:
        extractor: None where the data set brings its features, which are imported as they are.
    """
    if extractor is None:
        return {}
    settings = without_neutral(
        config.extract,
        "extract",
        extractor.unread | {"gpus_per_actor", "frames_per_segment", "options"},
    )
    if "gpus_per_actor" not in extractor.unread:
        settings["use_gpu"] = config.extract.gpus_per_actor > 0
    settings["frames_per_segment"] = extractor.frames_per_segment
    return {**settings, **_options(extractor.options)}


def base_settings(config: RunConfig, task: Task, *, auxiliary: bool) -> dict[str, Any]:
    """Step 1. Only its auxiliary loss reads the section of Step 2, for windows and partners."""
    settings = _training(config, task, config.train.base_epochs)
    if auxiliary:
        settings["auxiliary"] = _refine(config, _STEP_3 | {"num_partners", "unit_size", "use_gpu"})
    return settings


def refine_settings(config: RunConfig, scored: WindowLabels) -> dict[str, Any]:
    """Step 2, whose probabilities serve every tau."""
    unread: AbstractSet[str] = {
        "refined": frozenset(),
        "alone": _PARTNERS,
        "exchanged": _WINDOWS,
        "segments": _PARTNERS | _WINDOWS,
    }[scored]
    refine = _refine(config, _STEP_3 | unread)
    seed = {} if unread >= _PARTNERS else {"seed": config.seed}
    return {**seed, "scored": scored, "refine": refine}


def screen_settings(config: RunConfig, task: Task) -> dict[str, Any]:
    """The choice of tau by Step 3; Step 2 has a fingerprint of its own."""
    training = _training(config, task, config.train.retrain_epochs)
    return {**training, "refine": _refine(config, {"threshold", "labels"})}


def retrain_settings(
    config: RunConfig, task: Task, windows: WindowLabels, threshold: Threshold | None
) -> dict[str, Any]:
    """Step 3; its Step 2, if it has one, has a fingerprint of its own.

    Args:
        threshold: tau itself, however it was chosen.
    """
    unread = {
        "refined": _CHOICE_OF_TAU,
        "alone": _CHOICE_OF_TAU | _PARTNERS,
        "exchanged": _CHOICE_OF_TAU | _WINDOWS,
        "segments": _STEP_3 | _PARTNERS | _WINDOWS,
        "dummy": _STEP_3 | _PARTNERS | {"unit_size", "use_gpu"},
    }[windows]
    return {
        **_training(config, task, config.train.retrain_epochs),
        "windows": windows,
        "threshold": threshold,
        "refine": _refine(config, unread),
    }


def report_settings(config: RunConfig, task: Task, extract: Mapping[str, Any]) -> dict[str, Any]:
    """The page, which shows these settings.

    Settings that a stage does not hash are left out: the stage may come from a run in which they
    had other values.

    Args:
        extract: Settings of the features, from `extract_settings`.
    """
    return {
        **without_neutral(config),
        "data": data_settings(config),
        "extract": dict(extract),
        "model": _model(config),
        "train": without_neutral(config.train, "train", _unread_by_training(config, task)),
        "refine": _refine(config, frozenset()),
    }


def sweep_settings(config: TuneConfig) -> dict[str, Any]:
    """The trials of a sweep, of which the page of the run that was chosen is no part."""
    others = unread_sections(config.data.dataset)
    return {
        **without_neutral(config, unread={"report"}),
        "data": without_neutral(config.data, "data", others),
        "extract": {
            **without_neutral(config.extract, "extract", {"options"}),
            **_options(extractor_options(config.extract.extractor, config.extract.options)),
        },
        "model": _model(config),
    }


def _training(config: RunConfig, task: Task, num_epochs: int) -> dict[str, Any]:
    """Steps 1 and 3 alike. Threads and workers are hashed: sums are rounded as they are split."""
    unread = _unread_by_training(config, task)
    unread |= {"base_epochs", "retrain_epochs"}  # one of them is `num_epochs`
    return {
        "seed": config.seed,
        "epochs": num_epochs,
        "model": _model(config),
        "train": without_neutral(config.train, "train", unread),
    }


def _model(config: RunConfig) -> dict[str, Any]:
    """Settings of the base model."""
    options = model_options(config.model.name, config.model.options)
    return {**without_neutral(config.model, "model", {"options"}), **_options(options)}


def _options(options: Config) -> dict[str, Any]:
    """Options of a model or an extractor with their defaults, if it has any."""
    values = options.model_dump(mode="json")
    return {"options": values} if values else {}


def _unread_by_training(config: RunConfig, task: Task) -> set[str]:
    train = config.train
    unread = {*Localization.settings, *Parsing.settings} - {*task.settings}
    if train.lr_decay == 1.0:
        unread.add("lr_decay_epochs")
    if train.keep == "last":  # the weights do not depend on which epochs are looked at
        unread.add("report_every")
    return unread


def _refine(config: RunConfig, unread: AbstractSet[str]) -> dict[str, Any]:
    """Step 2: of its GPUs, whether there are any."""
    settings = without_neutral(config.refine, "refine", unread | {"gpus_per_actor"})
    if "use_gpu" not in unread:
        settings["use_gpu"] = config.refine.gpus_per_actor > 0
    return settings
