"""Settings that fingerprints hash: whole sections, except for named settings.

A new setting of a section is hashed by every stage that reads the section, unless it is named in
`NEUTRAL`, if no result depends on it, or in the file of a stage that does not read it. A forgotten
entry causes a recomputation, never a stale result.
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
        "run_dir": "location of results",
        "plugins": "the names of the components that a run uses are hashed instead",
        "tracking": "location of the MLflow log",
        "cluster": "cluster that Ray runs on",
        "data.root": "the annotations, and sizes and times of the files, are hashed instead",
        "data.features": "the files, and the content of the features, are hashed instead",
        "data.split": "the splits themselves are hashed, with the annotations",
        "extract.num_actors": "actors process units of videos independently",
        "extract.unit_size": "an extractor processes each video independently",
        "model.weights": "the sha256 of the file is hashed instead",
        "extract.weights": "the sha256 of the weights is hashed instead",
        "extract.weights_dir": "the sha256 of the weights is hashed instead",
        "extract.max_failed_fraction": "every run compares it with the failures",
        "refine.num_actors": "the scores of a video do not depend on other videos of the actor",
        "sweep.num_best": "selects trials, does not change their results",
        "sweep.num_seeds": "selects trials, does not change their results",
        "sweep.max_concurrent": "number of concurrent trials",
        "sweep.gpus_per_trial": "share of a GPU; train.use_gpu, which is hashed, enables the GPU",
        "sweep.max_retries": "a retried trial gives the same result",
    }
)
"""Settings, or whole sections, that no result depends on, with the reasons."""

WINDOWS = frozenset({"window", "stride"})
"""Settings of `refine`: the windows."""

PARTNERS = frozenset({"partners", "num_partners"})
"""Settings of `refine`: the partner videos."""

THRESHOLD_CHOICE = frozenset({"threshold", "num_candidates", "screen_keep"})
"""Settings of `refine` for the choice of tau."""

STEP_3 = THRESHOLD_CHOICE | {"labels"}
"""Settings of `refine` that Step 2 does not read, because its probabilities serve every tau."""


def without_neutral(
    config: Config, key: str = "", unread: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """Return the settings of a configuration or section as JSON, without neutral settings.

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
    """Return the settings that both Step 1 and Step 3 read.

    The numbers of threads and workers are hashed, because the rounding of sums depends on them.
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
    """Return the settings of the base model, with the defaults of its options."""
    options = model_options(config.model.name, config.model.options)
    return {**without_neutral(config.model, "model", {"options"}), **option_settings(options)}


def option_settings(options: Config) -> dict[str, Any]:
    """Return the options of a model or an extractor, with defaults; empty if it has none."""
    values = options.model_dump(mode="json")
    return {"options": values} if values else {}


def unread_by_training(config: RunConfig, task: Task) -> set[str]:
    """Return the settings of `train` that have no effect with this configuration."""
    train = config.train
    unread = {*Localization.settings, *Parsing.settings} - {*task.settings}
    if train.lr_decay == 1.0:
        unread.add("lr_decay_epochs")
    if train.keep == "last":  # the weights do not depend on which epochs are evaluated
        unread.add("report_every")
    return unread


def refine_section(config: RunConfig, unread: AbstractSet[str]) -> dict[str, Any]:
    """Return the settings of `refine`; `gpus_per_actor` becomes `use_gpu`."""
    settings = without_neutral(config.refine, "refine", unread | {"gpus_per_actor"})
    if "use_gpu" not in unread:
        settings["use_gpu"] = config.refine.gpus_per_actor > 0
    return settings


def sweep_settings(config: TuneConfig) -> dict[str, Any]:
    """Return the settings of the trials of a sweep, without those of the report."""
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
    """Hash the canonical JSON of a value: 12 hexadecimal digits of its sha256."""
    canonical = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
