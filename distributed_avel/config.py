"""Typed configuration: the only place where a default value is written.

Values come from the class, then a YAML file, then the command line; the later
one wins. Unknown keys and impossible values are refused before any work starts,
and all problems are reported together.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from distributed_avel.errors import ConfigError

Arm = Literal["base", "PL", "LR_dummy", "LR", "A", "A+LR", "MA"]
Precision = Literal["fp32", "bf16", "fp16"]
Preprocessing = Literal["keras_caffe", "torchvision"]


class Config(BaseModel):
    """Base of all configuration: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DemoConfig(Config):
    """The rendered demo videos (synthetic)."""

    num_train: PositiveInt = 200
    """Training videos with an event."""

    num_event_free: PositiveInt = 30
    """Training videos without an event."""

    num_val: PositiveInt = 50
    """Validation videos."""

    num_test: PositiveInt = 80
    """Test videos."""

    seed: NonNegativeInt = 0
    """Seed of the generator; the run's own seed does not change the videos."""


class SyntheticConfig(Config):
    """The generated features (synthetic)."""

    num_train: PositiveInt = 800
    """Training videos with an event."""

    num_event_free: PositiveInt = 40
    """Training videos without an event."""

    num_val: PositiveInt = 150
    """Validation videos."""

    num_test: PositiveInt = 300
    """Test videos."""

    seed: NonNegativeInt = 0
    """Seed of the generator; the run's own seed does not change the features."""


class SyntheticLlpConfig(SyntheticConfig):
    """The generated features for parsing (synthetic)."""

    num_event_free: NonNegativeInt = 0
    """Training videos without an event; LLP has none."""


class DataConfig(Config):
    """Which videos, and how they are cut into segments."""

    dataset: str = "demo"
    """A registered data set."""

    root: str | None = None
    """Folder or URI in the layout of the data set. The demo is rendered into it
    (default: a folder of the run directory)."""

    split: str | None = None
    """Folder or URI with train.txt, val.txt and test.txt, a video id a line, in place of the
    data set's own split. jobs/check_data.py writes one in which no file is shared."""

    num_segments: PositiveInt = 10
    """T, the number of segments of a video."""

    segment_s: PositiveFloat = 1.0
    """Length of a segment, in seconds."""

    demo: DemoConfig = DemoConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    synthetic_llp: SyntheticLlpConfig = SyntheticLlpConfig()


class ExtractConfig(Config):
    """Features: decoding, and the pool of feature actors."""

    extractor: str = "descriptors"
    """A registered extractor."""

    num_actors: PositiveInt = 2
    """Feature actors in the pool."""

    cpus_per_actor: PositiveInt = 1
    """Decoding processes of each actor, and the CPUs it claims."""

    gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs of each actor; a fraction shares one."""

    unit_size: PositiveInt = 8
    """Videos in a unit of work, and in a Parquet file. An actor has two units in hand, one
    decoded while the other is embedded: what a kill can cost, and what memory must hold."""

    timeout_s: PositiveFloat = 60.0
    """A file that takes longer to decode is given up."""

    frames_per_segment: PositiveInt | None = None
    """Frames sampled in a segment; their features are averaged. By default the number of the
    published features: 16, and 8 for the networks of LLP."""

    weights: dict[str, str] = {}
    """Weights of a network, by its name: a path, a URI, the name of published weights, or
    `random` to try the machinery with features that mean nothing. By default the published
    ones, fetched once."""

    weights_dir: str | None = None
    """Folder for fetched weights (default: distributed_avel/weights in the cache folder of
    the user, XDG_CACHE_HOME or ~/.cache)."""

    preprocessing: Preprocessing = "keras_caffe"
    """Pictures for VGG-19, and which published weights go with them: `keras_caffe`, as AVE's
    published features (BGR, 0..255, mean subtracted), or `torchvision` (RGB, 0..1, scaled)."""

    precision: Precision = "fp32"
    """Arithmetic of the networks. bf16 and fp16 are faster on a GPU, and not exact."""

    frames_per_batch: PositiveInt = 64
    """Pictures that a network takes at once, of one video or several; what GPU memory allows."""

    max_failed_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    """The stage fails when a larger part of the videos could not be used."""


class ModelConfig(Config):
    """The base model, shared by Step 1 and Step 3."""

    name: str = "ave"
    """A registered base model."""

    hidden_size: PositiveInt = 32
    """Width of each direction of the recurrent layers."""

    pooling: Literal["model", "max", "mean", "lse"] = "model"
    """MIL pooling from segment-level to video-level scores; by default the model's own."""


class TrainConfig(Config):
    """Steps 1 and 3."""

    num_workers: PositiveInt = 1
    """DDP workers. Results do not depend on it, unless the base model has dropout."""

    cpus_per_worker: PositiveInt = 2
    """CPUs that each worker claims, and its torch threads."""

    use_gpu: bool = False
    """One GPU for each worker."""

    batch_size: PositiveInt = 32
    """Videos in a global batch, over all workers."""

    learning_rate: PositiveFloat = 2e-3
    """Learning rate of Adam."""

    lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate after every lr_decay_epochs; 1 leaves it as it is."""

    lr_decay_epochs: PositiveInt = 10
    """Epochs between two changes of the learning rate."""

    base_epochs: PositiveInt = 50
    """Epochs of Step 1."""

    retrain_epochs: PositiveInt = 50
    """Epochs of Step 3."""

    loss: Literal["soft_margin", "cross_entropy"] = "cross_entropy"
    """g, the video-level loss of localization. The paper's is soft_margin, on the softmax
    output. Parsing has its own, a binary cross-entropy."""

    visual_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Parsing: this part of a visual video-level target is replaced by 1/2, as weak labels name
    many events that are only heard. HAN's code calls the rest, 0.9, label smoothing."""

    keep: Literal["last", "best"] = "last"
    """Weights to keep: the last ones, or the best ones by the validation split, of the epochs
    that end with a validation. Accuracy decides for localization, segment Type@AV for parsing."""

    report_every: PositiveInt = 10
    """Epochs between checkpoints and validations: what a kill can cost."""


class RefineConfig(Config):
    """Step 2: how the base model relabels windows of the training videos."""

    window: PositiveInt = 4
    """N, the length of a relabelled window, in segments."""

    stride: PositiveInt = 2
    """s, the distance between the starts of neighbouring windows, in segments."""

    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["validation"] = "validation"
    """tau: a class is present in a window when its probability reaches it."""

    partners: Literal["event_free", "disjoint"] = "event_free"
    """Partner videos: those without any event if there are any, or any that share no label."""

    num_partners: PositiveInt = 1
    """K, the partner videos of a video; the window probabilities are the mean over them."""

    labels: Literal["hard", "soft"] = "hard"
    """Pseudo-labels of Step 3: thresholded at tau, or the window probabilities themselves."""

    num_actors: PositiveInt = 2
    """Actors that hold the base model."""

    gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs of each actor; a fraction shares one."""

    unit_size: PositiveInt = 64
    """Videos in a unit of work: what a kill can cost."""


class ReportConfig(Config):
    """The report page."""

    num_timelines: PositiveInt = 12
    """Test videos shown with their timelines and frames."""


class TrackingConfig(Config):
    """MLflow."""

    enabled: bool = True
    """Whether to log at all."""

    uri: str | None = None
    """Tracking store; else MLFLOW_TRACKING_URI; else a local sqlite file, runs/mlflow.db."""

    experiment: str = "distributed_avel"
    """Name of the experiment."""


class ClusterConfig(Config):
    """Where Ray runs."""

    address: str | None = None
    """Address of a running cluster; else RAY_ADDRESS; else a local one is started."""

    num_cpus: PositiveInt | None = None
    """Logical CPUs of a local cluster; by default the cores, but at least 4."""


class RunConfig(Config):
    """Everything that one run of the pipeline depends on."""

    run_dir: str | None = None
    """Folder or URI for the artifacts of each stage (default: runs/<data set>)."""

    seed: NonNegativeInt = 0
    """Seed of the run. All randomness derives from (seed, stage, epoch, video id)."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("base", "A", "A+LR")
    """What to train: the base model, with the auxiliary loss (A), with refined labels (LR), with
    labels that windows of the base model get by themselves (PL), with the video label in every
    window (LR_dummy); for parsing also with labels of each modality (MA)."""

    data: DataConfig = DataConfig()
    extract: ExtractConfig = ExtractConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    refine: RefineConfig = Field(default=RefineConfig(), validate_default=True)
    report: ReportConfig = ReportConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("refine")
    @classmethod
    def _windows_fit_the_video(cls, refine: RefineConfig, info: ValidationInfo) -> RefineConfig:
        if "data" not in info.data:
            return refine  # it is refused already, for a reason of its own
        num_segments = info.data["data"].num_segments
        if num_segments < 4:
            raise ValueError(f"videos of {num_segments} segments have no window; 4 are the least")
        if not 1 < refine.window < (num_segments + 1) / 2:
            raise ValueError(
                f"window must lie in 2..{num_segments // 2} for {num_segments} segments, "
                f"got {refine.window}"
            )
        if (num_segments - refine.window) % refine.stride:
            raise ValueError(
                f"stride must divide data.num_segments - refine.window = "
                f"{num_segments - refine.window}, got {refine.stride}"
            )
        return refine

    @property
    def resolved_run_dir(self) -> str:
        """The run directory, with its default filled in."""
        return self.run_dir or f"runs/{self.data.dataset}"


class SweepConfig(Config):
    """What a sweep tries, and how the best of it is chosen."""

    search: Literal["grid", "random", "optuna", "asha"] = "grid"
    """All combinations; num_trials at random; so many that Optuna suggests; or so many at
    random, of which ASHA stops the worse ones early."""

    num_trials: PositiveInt = 20
    """Trials of a search that is not a grid."""

    windows: tuple[str, ...] = ()
    """Pairs N:s of window and stride, such as 4:2 (default: all valid ones)."""

    max_windows: PositiveInt | None = None
    """No pair with more windows T1: the cost of a pair grows with them."""

    max_unevenness: float = Field(default=1.0, ge=0.0, le=1.0)
    """No pair whose windows cover the segments less evenly: 1 - least/most windows that a
    segment is in. Below 1, no segment is left out."""

    thresholds: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = ()
    """Values of tau for a grid, tried as they are (default: num_thresholds of those that the
    validation split finds worth it)."""

    num_thresholds: PositiveInt = 5
    """Values of tau for a grid, evenly spaced on the logit scale."""

    screen_keep: float = Field(default=0.5, ge=0.0, le=1.0)
    """A tau is worth a trial where sensitivity + specificity - 1 of the window pseudo-labels, on
    the validation split, reaches this part of its best; 0 tries all."""

    vary: tuple[str, ...] = ()
    """More settings: KEY=VALUE,VALUE,... or KEY=LOW..HIGH (logarithmic), such as
    train.learning_rate=0.001,0.002 or model.name=ave,psp."""

    auxiliary: bool = True
    """Whether Step 1 has the auxiliary loss: the arm A+LR rather than LR."""

    criterion: tuple[str, ...] = ()
    """The mean of these metrics on the validation split decides (default: accuracy and
    non_ave_f1 for localization, segment_type and event_type for parsing)."""

    num_best: PositiveInt = 3
    """So many of the best points are tried with more seeds."""

    num_seeds: PositiveInt = 3
    """Seeds of each of them."""

    max_concurrent: PositiveInt | None = None
    """No more trials than this at once (default: what the cluster holds)."""

    gpus_per_trial: NonNegativeFloat = 0.0
    """GPUs of a trial that trains in its own process; a fraction shares one."""

    max_retries: NonNegativeInt = 1
    """How often a trial that failed or was killed is tried again."""


class TuneConfig(RunConfig):
    """A sweep: the run that all trials start from, and what they vary."""

    sweep: SweepConfig = Field(default=SweepConfig(), validate_default=True)

    @field_validator("sweep")
    @classmethod
    def _gpus_are_used(cls, sweep: SweepConfig, info: ValidationInfo) -> SweepConfig:
        if sweep.gpus_per_trial and "train" in info.data and not info.data["train"].use_gpu:
            raise ValueError("gpus_per_trial: say --train.use-gpu as well")
        return sweep

    @property
    def run(self) -> RunConfig:
        """The run without the sweep."""
        return RunConfig.model_validate(self.model_dump(exclude={"sweep"}))


class ReproduceConfig(RunConfig):
    """The paper's tables. Which models, arms, windows and fixed tau are trained is theirs to say;
    all else is that of the run."""

    tables: tuple[Annotated[int, Field(ge=1, le=7)], ...] = Field(
        default=(1, 2, 3, 4, 5, 6, 7), min_length=1
    )
    """Numbers of the tables."""

    seeds: PositiveInt = 5
    """Seeds of every system, counted from seed."""

    by_model: tuple[str, ...] = ()
    """Settings of one base model in place of the run's: MODEL:KEY=VALUE, such as
    psp:train.batch_size=128."""

    max_concurrent: PositiveInt | None = None
    """No more trainings than this at once (default: what the cluster holds)."""

    @property
    def run(self) -> RunConfig:
        """The run without the tables."""
        return RunConfig.model_validate(
            self.model_dump(exclude={"tables", "seeds", "by_model", "max_concurrent"})
        )


AnyRun = TypeVar("AnyRun", bound=RunConfig)


def load_values(path: Path) -> dict[str, Any]:
    """The values of a YAML file, unchecked; `validate` checks them.

    Raises:
        ConfigError: There is no such file, or it holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: no configuration file to read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {type(values).__name__}")
    return values or {}


def validate(values: dict[str, Any], source: str, kind: type[AnyRun] = RunConfig) -> AnyRun:
    """A configuration from values.

    Args:
        source: Where they come from, for the error message.
        kind: What they are the values of.

    Raises:
        ConfigError: The message has everything that is wrong with them.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(source, error, kind)) from None


def explain(source: str, error: ValidationError, kind: type[RunConfig] = RunConfig) -> str:
    """All problems of a configuration, one a line, each with its key."""
    problems: dict[str, list[str]] = {}
    for problem in error.errors():
        key, siblings = _key_of(problem["loc"], kind)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "no such key"
            for close in get_close_matches(key.rpartition(".")[2], siblings, n=1):
                message += f"; perhaps {close}"
        if message not in problems.setdefault(key, []):
            problems[key].append(message)
    lines = [f"{source}: {len(problems)} problem(s)"]
    lines += [f"  {key}: {', or: '.join(messages)}" for key, messages in problems.items()]
    return "\n".join(lines)


def _key_of(location: tuple[int | str, ...], whole: type[RunConfig]) -> tuple[str, list[str]]:
    """The key that a problem concerns, and the keys that could stand in its place.

    Of a value that may be of two types, pydantic tells one problem for each.
    """
    section: Any = whole
    for depth, part in enumerate(location, start=1):
        fields = section.model_fields
        kind = fields[part].annotation if part in fields else None
        if not (isinstance(kind, type) and issubclass(kind, Config)):
            return ".".join(map(str, location[:depth])), list(fields)
        section = kind
    return ".".join(map(str, location)), []
