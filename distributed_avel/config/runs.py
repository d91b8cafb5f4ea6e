"""What a job can be given: a run, a sweep of runs, or the paper's tables.

What concerns several sections at once is checked here.
"""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from distributed_avel.config.sections import (
    ClusterConfig,
    Config,
    DataConfig,
    ExtractConfig,
    ModelConfig,
    RefineConfig,
    ReportConfig,
    TrackingConfig,
    TrainConfig,
)

Arm = Literal["base", "PL", "LR_alone", "LR_dummy", "LR", "A", "A+LR", "MA"]


class RunConfig(Config):
    """Everything that one run of the pipeline depends on."""

    run_dir: str | None = None
    """Folder or URI for the artifacts of each stage (default: runs/<data set>)."""

    seed: NonNegativeInt = 0
    """Seed of the run. All randomness derives from (seed, stage, epoch, video id)."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("base", "A", "A+LR")
    """What to train: the base model; with the auxiliary loss (A); with refined labels (LR); fully
    supervised by what the base model predicts for each training segment (PL); with labels of
    windows of the original videos (LR_alone); with the video-level label in every window
    (LR_dummy); for parsing also with labels of each modality (MA: the exchange of Wu and Yang
    2021, without their contrastive loss)."""

    plugins: tuple[str, ...] = ()
    """Modules to import, which register models, extractors or data sets of your own. Packages that
    name theirs as entry points need not be listed."""

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


class InspectConfig(RunConfig):
    """The settings of a run for looking at one file: windows need not fit its length."""

    @field_validator("refine")
    @classmethod
    def _windows_fit_the_video(cls, refine: RefineConfig, info: ValidationInfo) -> RefineConfig:
        return refine


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
    validation split finds worth it). For parsing, one tau for what is heard and what is seen."""

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
    """Settings of model or train for one base model, in place of the run's: MODEL:KEY=VALUE,
    such as psp:train.batch_size=128."""

    max_concurrent: PositiveInt | None = None
    """No more trainings than this at once (default: what the cluster holds)."""

    @property
    def run(self) -> RunConfig:
        """The run without the tables."""
        return RunConfig.model_validate(
            self.model_dump(exclude={"tables", "seeds", "by_model", "max_concurrent"})
        )
