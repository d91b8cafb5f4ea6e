"""The settings that fingerprints hash: all of a section, without a few that are named.

A setting that is added to a section of the configuration is hashed by every stage that reads the
section, until somebody names it: in `NEUTRAL`, if no result depends on it, or in the file of a
stage that does not read it. A forgotten setting costs a computation, never a stale result.
"""

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

from distributed_avel.config import Config, RunConfig, TuneConfig
from distributed_avel.datasets import unread_sections
from distributed_avel.features.base import extractor_options
from distributed_avel.models import model_options
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
        "extract.unit_size": "an extractor computes each video independently of the others",
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

WINDOWS = frozenset({"window", "stride"})
"""Settings of `refine`: the windows."""

PARTNERS = frozenset({"partners", "num_partners"})
"""Settings of `refine`: the partner videos."""

THRESHOLD_CHOICE = frozenset({"threshold", "num_candidates", "screen_keep"})
"""Settings of `refine` that say how tau is chosen."""

STEP_3 = THRESHOLD_CHOICE | {"labels"}
"""Settings of `refine` that Step 2 does not read, because its probabilities serve every tau."""


def without_neutral(
    config: Config, key: str = "", unread: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """The settings of a configuration or of a section, as JSON, without those that are neutral.

    Args:
        key: Key of the section; empty for the whole configuration.
        unread: Names of settings of this section that the stage does not read.
    """
    return _pruned(config.model_dump(mode="json", exclude={*unread}), key)


def _pruned(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    pruned = {}
    for name, value in settings.items():
        full = f"{key}.{name}" if key else name
        if full not in NEUTRAL:
            pruned[name] = _pruned(value, full) if isinstance(value, Mapping) else value
    return pruned


def training_settings(config: RunConfig, task: Task, num_epochs: int) -> dict[str, Any]:
    """Settings that Steps 1 and 3 read alike.

    Threads and workers are hashed, because the rounding of sums depends on how they are split.
    """
    unread = unread_by_training(config, task)
    unread |= {"base_epochs", "retrain_epochs"}  # one of them is `num_epochs`
    return {
        "seed": config.seed,
        "epochs": num_epochs,
        "model": model_settings(config),
        "train": without_neutral(config.train, "train", unread),
    }


def model_settings(config: RunConfig) -> dict[str, Any]:
    """Settings of the base model."""
    options = model_options(config.model.name, config.model.options)
    return {**without_neutral(config.model, "model", {"options"}), **option_settings(options)}


def option_settings(options: Config) -> dict[str, Any]:
    """Options of a model or an extractor with their defaults, if it has any."""
    values = options.model_dump(mode="json")
    return {"options": values} if values else {}


def unread_by_training(config: RunConfig, task: Task) -> set[str]:
    """Settings of `train` without an effect on this configuration."""
    train = config.train
    unread = {*Localization.settings, *Parsing.settings} - {*task.settings}
    if train.lr_decay == 1.0:
        unread.add("lr_decay_epochs")
    if train.keep == "last":  # the weights do not depend on which epochs are evaluated
        unread.add("report_every")
    return unread


def refine_section(config: RunConfig, unread: AbstractSet[str]) -> dict[str, Any]:
    """Settings of `refine`; of its GPUs, whether there are any."""
    settings = without_neutral(config.refine, "refine", unread | {"gpus_per_actor"})
    if "use_gpu" not in unread:
        settings["use_gpu"] = config.refine.gpus_per_actor > 0
    return settings


def sweep_settings(config: TuneConfig) -> dict[str, Any]:
    """Settings of the trials of a sweep; the page of the chosen run is not part of them."""
    others = unread_sections(config.data.dataset)
    return {
        **without_neutral(config, unread={"report"}),
        "data": without_neutral(config.data, "data", others),
        "extract": {
            **without_neutral(config.extract, "extract", {"options"}),
            **option_settings(extractor_options(config.extract.extractor, config.extract.options)),
        },
        "model": model_settings(config),
    }


def short_hash(value: Any) -> str:
    """12 hexadecimal digits of the sha256 of a value, as canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
