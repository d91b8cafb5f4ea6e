"""Cache keys: every setting is hashed by a stage, or listed as neutral with a reason."""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from distributed_avel.arms import ARMS
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import Config, RunConfig, TuneConfig, validate
from distributed_avel.features import base as extractors
from distributed_avel.features.base import extractor_class, extractor_names
from distributed_avel.features.descriptors import Descriptors
from distributed_avel.models.psp import Psp
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages import base, calibrate, data, extract, refine, report, retrain, screen
from distributed_avel.stages.cache_keys import NEUTRAL, sweep_settings
from distributed_avel.stages.stage import Execution
from distributed_avel.tasks import task_of
from distributed_avel.timeline import Timeline

WITH_OPTIONS = "descriptors with options"


class WithOptions(Descriptors):
    """An extractor with an option, because those of this package have none."""

    class Config(Descriptors.Config):
        gain: float = 1.0


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors._EXTRACTORS, "_items", dict(extractors._EXTRACTORS._items))
        extractors.register_extractor(WITH_OPTIONS)(WithOptions)
        yield


# Settings that are needed so that another setting is read at all.
CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "train.lr_decay_epochs": {"train.lr_decay": 0.9},
    "train.report_every": {"train.keep": "best"},
    "train.visual_smoothing": {"model.name": "han"},
    "model.options": {"model.name": "psp"},
    "extract.options": {"extract.extractor": WITH_OPTIONS},
    "sweep.gpus_per_trial": {"train.use_gpu": True},
    "extract.weights": {"extract.extractor": "vgg19+vggish"},
    "extract.preprocessing": {"extract.extractor": "vgg19+vggish"},
    "extract.precision": {"extract.extractor": "vgg19+vggish"},
    "extract.frames_per_batch": {"extract.extractor": "vgg19+vggish"},
    "extract.cpus_per_actor": {"extract.extractor": "vgg19+vggish"},
    "extract.gpus_per_actor": {"extract.extractor": "vgg19+vggish"},
}

# Values of settings whose type alone does not give a value that is valid with the defaults.
VALUES: Mapping[str, Any] = {
    "plugins": ("os",),
    "data.num_segments": 12,
    "data.short_videos": "keep",
    "data.dataset": "synthetic",
    "extract.extractor": "vgg19+vggish",
    "extract.weights": {"vgg19": "random"},
    "model.name": "psp",
    "model.options": {"threshold": 0.5},
    "extract.options": {"gain": 2},
    "refine.threshold": 0.3,
    "refine.stride": 3,
    "refine.window": 2,
    "arms": ["base"],
    "sweep.windows": ["4:2"],
    "sweep.thresholds": [0.3],
    "sweep.vary": ["train.loss=soft_margin"],
    "sweep.criterion": ["accuracy"],
    "sweep.gpus_per_trial": 0.5,
}


def leaves(kind: type[Config], key: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting of a configuration with its dotted key."""
    for name, field in kind.model_fields.items():
        full = f"{key}.{name}" if key else name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            yield from leaves(field.annotation, full)
        else:
            yield full, field


FIELDS = dict(leaves(TuneConfig))


def alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types that a setting may have, without their constraints."""
    if get_origin(kind) is Annotated:
        yield from alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for part in get_args(kind):
            yield from alternatives(part)
    else:
        yield kind


def other_value(key: str) -> Any:
    """Return a valid value that is not the default."""
    if key in VALUES:
        return VALUES[key]
    field = FIELDS[key]
    default = field.get_default(call_default_factory=True)
    kinds = list(alternatives(field.annotation))
    for kind in kinds:
        if get_origin(kind) is Literal:
            return next(value for value in get_args(kind) if value != default)
    if bool in kinds:
        return not default
    if int in kinds:
        return (default or 0) + 1
    if float in kinds:
        return default / 2 if default else 1.0
    assert str in kinds or NoneType in kinds, f"{key}: give a value in VALUES"
    return "other"


def changed(config: TuneConfig, values: Mapping[str, Any]) -> TuneConfig:
    """Return the configuration with other values, given by their dotted keys."""
    plain = config.model_dump(mode="json")
    for key, value in values.items():
        *sections, name = key.split(".")
        section = plain
        for part in sections:
            section = section[part]
        section[name] = value
    return validate(plain, "test", TuneConfig)


def keys_of(config: TuneConfig) -> dict[str, Any]:
    """Return the settings that each stage hashes."""
    task = task_of(config.model, config.train)
    timeline = Timeline(num_segments=config.data.num_segments, segment_s=config.data.segment_s)
    extractor = extractor_class(config.extract.extractor)(timeline, config.extract)
    extracted = extract.settings(config, extractor)
    found: dict[str, Any] = {
        "data": data.settings(config),
        "extract": extracted,
        "calibrate": calibrate.settings(config),
        "screen": screen.settings(config, task),
        "report": report.settings(config.run, task, extracted),
        "sweep": sweep_settings(config),
    }
    for auxiliary in (False, True):
        settings = base.settings(config, task, auxiliary=auxiliary)
        found["base, auxiliary" if auxiliary else "base"] = settings
    for windows in {plan.windows for plan in ARMS.values()} - {None}:
        if windows != "dummy":
            found[f"refine {windows}"] = refine.settings(config, windows)
        tau = None if windows in ("dummy", "segments") else config.refine.threshold
        found[f"retrain {windows}"] = retrain.settings(config, task, windows, tau)
    return found


def readers(key: str) -> set[str]:
    """Return the stages whose key changes with a setting, in a configuration that reads it."""
    start = changed(TuneConfig(), CONDITIONS.get(key, {}))
    if key.startswith("data.synthetic"):
        start = changed(start, {"data.dataset": key.split(".")[1]})
    before, after = keys_of(start), keys_of(changed(start, {key: other_value(key)}))
    return {stage for stage in before if before[stage] != after[stage]}


def is_neutral(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in NEUTRAL)


@pytest.mark.parametrize("key", FIELDS)
def test_every_setting_is_hashed_by_a_stage_or_listed_as_neutral(key):
    """A new setting that no stage hashes fails here, and so does one of an unknown type."""
    stages = readers(key)

    if is_neutral(key):
        assert stages == set()
    elif key.startswith("sweep."):
        assert stages == {"sweep"}
    elif key.startswith("report."):
        assert stages == {"report"}
    else:
        assert stages - {"report", "sweep"} or key == "arms"  # arms are keyed by their models
        assert {"report", "sweep"} <= stages


RETRAINS = {f"retrain {windows}" for windows in ("refined", "alone", "exchanged", "segments")}
TRAINED = {"base", "base, auxiliary", "screen", "retrain dummy", *RETRAINS}
REFINES = {name.replace("retrain", "refine") for name in RETRAINS}


@pytest.mark.parametrize(
    ("key", "stages"),
    [
        ("train.learning_rate", TRAINED),
        ("train.num_workers", TRAINED),
        ("train.cpus_per_worker", TRAINED),
        ("train.use_gpu", TRAINED),
        ("train.loss", TRAINED),
        ("model.hidden_size", TRAINED),
        ("model.options", TRAINED),
        ("train.base_epochs", {"base", "base, auxiliary"}),
        ("train.retrain_epochs", TRAINED - {"base", "base, auxiliary"}),
        ("refine.num_candidates", {"screen"}),
        ("refine.unit_size", {*REFINES, *RETRAINS, "calibrate", "screen"}),
        ("refine.gpus_per_actor", {*REFINES, *RETRAINS, "calibrate", "screen"}),
        (
            "refine.partners",
            {"base, auxiliary", "calibrate", "screen"}
            | {f"{stage} {w}" for stage in ("refine", "retrain") for w in ("refined", "exchanged")},
        ),
        ("extract.reader", {"extract"}),
        ("extract.options", {"extract"}),
        ("extract.sampling", {"extract"}),
        ("extract.timeout_s", {"extract"}),
        ("extract.frames_per_segment", {"extract"}),
        ("data.segment_s", {"data"}),
        ("data.demo.seed", {"data"}),
    ],
)
def test_a_setting_changes_exactly_the_stages_that_read_it(key, stages):
    """Extraction also depends on the timeline, through the fingerprint of the videos."""
    assert readers(key) - {"report", "sweep"} == stages


@pytest.mark.parametrize(
    ("key", "where_it_is_not_read"),
    [
        ("train.lr_decay_epochs", {"train.lr_decay": 1.0}),
        ("train.report_every", {"train.keep": "last"}),
        ("train.visual_smoothing", {"model.name": "ave"}),
        ("train.loss", {"model.name": "han"}),
        ("extract.precision", {"extract.extractor": "descriptors"}),
        ("data.synthetic.seed", {"data.dataset": "demo"}),
    ],
)
def test_a_setting_that_a_run_does_not_read_changes_no_stage(key, where_it_is_not_read):
    start = changed(TuneConfig(), where_it_is_not_read)
    after = changed(start, {key: other_value(key)})

    before, now = keys_of(start), keys_of(after)
    assert {stage for stage in before if before[stage] != now[stage]} <= {"report", "sweep"}


@pytest.mark.parametrize("given", [{"threshold": 0.95}, {"threshold": "0.95", "head_size": 64.0}])
def test_an_option_with_its_default_value_does_not_change_the_key(given):
    left_out = changed(TuneConfig(), {"model.name": "psp"})

    assert keys_of(changed(left_out, {"model.options": given})) == keys_of(left_out)


def test_an_extractor_option_with_its_default_value_does_not_change_the_key():
    left_out = changed(TuneConfig(), {"extract.extractor": WITH_OPTIONS})
    given = changed(left_out, {"extract.options": {"gain": "1"}})

    assert keys_of(given) == keys_of(left_out)


def test_options_are_hashed_with_their_defaults():
    """Otherwise results with an older default would be reused."""
    start = {"model.name": "psp", "extract.extractor": WITH_OPTIONS}

    keys = keys_of(changed(TuneConfig(), start))

    assert keys["base"]["model"]["options"] == Psp.Config().model_dump()
    assert keys["extract"]["options"] == {"gain": 1.0}


def test_keys_contain_no_options_if_there_are_none():
    keys = keys_of(changed(TuneConfig(), {"model.name": "cman"}))

    assert "options" not in keys["base"]["model"]
    assert "options" not in keys["extract"]


def test_the_share_of_a_gpu_does_not_change_the_key():
    half, whole = (changed(TuneConfig(), {"refine.gpus_per_actor": gpus}) for gpus in (0.5, 1.0))

    assert keys_of(half)["refine refined"] == keys_of(whole)["refine refined"]


def test_each_neutral_setting_exists_and_has_a_reason():
    sections = {key.partition(".")[0] for key in FIELDS}

    for key, reason in NEUTRAL.items():
        assert key in FIELDS or key in sections
        assert len(reason) > 10


@pytest.mark.parametrize("name", extractor_names())
def test_unread_settings_of_an_extractor_exist(name):
    assert extractor_class(name).unread <= {
        key.removeprefix("extract.") for key in FIELDS if key.startswith("extract.")
    }


def test_these_tests_cover_all_settings_of_a_run():
    assert {key for key in FIELDS if not key.startswith("sweep.")} == dict(leaves(RunConfig)).keys()


@pytest.mark.parametrize(
    ("key", "changed_stages"),
    [
        ("train.batch_size", {"base", "refine", "retrain", "evaluate"}),
        ("train.retrain_epochs", {"retrain", "evaluate"}),
        ("refine.window", {"base", "refine", "retrain", "evaluate"}),
        ("model.options", {"base", "refine", "retrain", "evaluate"}),
        ("refine.num_partners", {"refine", "retrain", "evaluate"}),
        ("refine.num_actors", set()),
    ],
)
def test_a_pipeline_uses_these_keys(tmp_path, key, changed_stages):
    def fingerprints(config: RunConfig) -> dict[str, str]:
        execution = Execution(in_process=True, quiet=True)
        pipeline = Pipeline(config, untracked(), execution=execution)
        pipeline.features.ensure()
        stages = (
            pipeline.base(auxiliary=True),
            pipeline.refine(auxiliary=True),
            pipeline.retrain(auxiliary=True),
            pipeline.evaluate(),
        )
        return {stage.name: stage.fingerprint for stage in stages}

    sizes = {"num_train": 4, "num_event_free": 1, "num_val": 2, "num_test": 2}
    start = changed(
        TuneConfig(),
        {
            "refine.threshold": 0.5,
            **CONDITIONS.get(key, {}),
            "run_dir": str(tmp_path),
            "data.dataset": "synthetic",
            **{f"data.synthetic.{name}": value for name, value in sizes.items()},
        },
    )
    before = fingerprints(start.run)
    after = fingerprints(changed(start, {key: other_value(key)}).run)

    assert {name for name in before if before[name] != after[name]} == changed_stages
