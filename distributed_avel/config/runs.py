"""Configurations of commands: a run, a sweep of runs, or the paper's tables.

Constraints between sections are checked here.
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

from distributed_avel.arms import ARMS, check_arms
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


class RunConfig(Config):
    """Settings of one run of the pipeline."""

    run_dir: str | None = None
    """Folder or URI of the artifacts (default: runs/, followed by the name of the data set)."""

    seed: NonNegativeInt = 0
    """Seed of the run. All randomness derives from (seed, stage, epoch, video id)."""

    arms: Annotated[tuple[str, ...], Field(min_length=1)] = ("base", "A", "A+LR")
    """Ablation arms: the base model (base); the auxiliary loss (A); label refinement (LR); both
    (A+LR); full supervision with the segment-level predictions of the base model (PL);
    pseudo-labels from windows of the original videos (LR_alone); the video-level label in every
    window (LR_dummy); for parsing also modality-aware exchange (MA: Wu and Yang 2021, without their
    contrastive loss)."""

    plugins: tuple[str, ...] = ()
    """Modules to import that register models, extractors or data sets. Installed packages with
    entry points need not be listed."""

    data: DataConfig = DataConfig()
    extract: ExtractConfig = ExtractConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    refine: RefineConfig = Field(default=RefineConfig(), validate_default=True)
    report: ReportConfig = ReportConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("arms")
    @classmethod
    def _arms_exist(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        check_arms(arms)
        return arms

    @field_validator("train")
    @classmethod
    def _step_1_has_epochs(cls, train: TrainConfig, info: ValidationInfo) -> TrainConfig:
        if train.base_epochs or "model" not in info.data or "arms" not in info.data:
            return train
        if info.data["model"].weights is None:
            raise ValueError("base_epochs is 0, and there is no model.weights to evaluate")
        auxiliary = [arm for arm in info.data["arms"] if ARMS[arm].auxiliary]
        if auxiliary:
            raise ValueError(
                f"base_epochs is 0, so the auxiliary loss of arm {auxiliary[0]} would have no "
                "effect; leave the arm out, or train Step 1"
            )
        return train

    @field_validator("refine")
    @classmethod
    def _windows_fit_the_video(cls, refine: RefineConfig, info: ValidationInfo) -> RefineConfig:
        if "data" not in info.data:
            return refine  # `data` is invalid and is reported on its own
        num_segments = info.data["data"].num_segments
        if num_segments < 4:
            raise ValueError(
                f"{num_segments} segments are too short for windows; at least 4 are needed"
            )
        if not 1 < refine.window < (num_segments + 1) / 2:
            raise ValueError(
                f"window must be in 2..{num_segments // 2} for {num_segments} segments, "
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
        """The run directory or its default."""
        return self.run_dir or f"runs/{self.data.dataset}"


class InspectConfig(RunConfig):
    """Settings of `avel inspect`: windows need not fit the length of the file."""

    @field_validator("arms")
    @classmethod
    def _arms_exist(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        check_arms(arms)
        return arms

    @field_validator("refine")
    @classmethod
    def _windows_fit_the_video(cls, refine: RefineConfig, info: ValidationInfo) -> RefineConfig:
        return refine


class SweepConfig(Config):
    """Search space of a sweep, and selection of its best trial."""

    search: Literal["grid", "random", "optuna", "asha"] = "grid"
    """grid: all combinations; random, optuna: num_trials of them; asha: num_trials random ones, of
    which ASHA stops the worse early."""

    num_trials: PositiveInt = 20
    """Number of trials, except for a grid."""

    windows: tuple[str, ...] = ()
    """Windows and strides N:s, such as 4:2 (default: all valid combinations)."""

    max_windows: PositiveInt | None = None
    """Maximum number of windows T1 per video; the cost grows with it."""

    max_unevenness: float = Field(default=1.0, ge=0.0, le=1.0)
    """Maximum unevenness of the coverage by windows: 1 - (fewest / most windows that contain a
    segment). Below 1, every segment is covered."""

    thresholds: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = ()
    """Values of tau of a grid (default: num_thresholds values pre-selected on validation). For
    parsing, both modalities use the same tau."""

    num_thresholds: PositiveInt = 5
    """Number of values of tau of a grid, evenly spaced on the logit scale."""

    screen_keep: float = Field(default=0.5, ge=0.0, le=1.0)
    """Pre-selection of tau: the Youden index (sensitivity + specificity - 1) of window labels on
    the validation split must be at least this fraction of the best; 0 tries all."""

    vary: tuple[str, ...] = ()
    """Other settings to vary: KEY=VALUE,VALUE,... or KEY=LOW..HIGH (logarithmic), such as
    train.learning_rate=0.001,0.002, model.name=ave,psp or model.options.head_size=32,64."""

    auxiliary: bool = True
    """Train Step 1 with the auxiliary loss: arm A+LR instead of LR."""

    criterion: tuple[str, ...] = ()
    """Metrics whose mean on the validation split selects the best trial (default: accuracy and
    non_ave_f1 for localization, segment_type and event_type for parsing)."""

    num_best: PositiveInt = 3
    """Number of best points that are repeated with more seeds."""

    num_seeds: PositiveInt = 3
    """Number of seeds of each of these points."""

    max_concurrent: PositiveInt | None = None
    """Maximum number of concurrent trials (default: as the resources of the cluster allow)."""

    gpus_per_trial: NonNegativeFloat = 0.0
    """GPUs of each trial; with a fraction, trials share a GPU."""

    max_retries: NonNegativeInt = 1
    """Number of retries of a trial that failed or was killed."""


class TuneConfig(RunConfig):
    """Settings of a sweep: settings of its runs, and the search space."""

    sweep: SweepConfig = Field(default=SweepConfig(), validate_default=True)

    @field_validator("sweep")
    @classmethod
    def _gpus_are_used(cls, sweep: SweepConfig, info: ValidationInfo) -> SweepConfig:
        if sweep.gpus_per_trial and "train" in info.data and not info.data["train"].use_gpu:
            raise ValueError("gpus_per_trial needs --train.use-gpu")
        return sweep

    @property
    def run(self) -> RunConfig:
        """Settings of the run."""
        return RunConfig.model_validate(self.model_dump(exclude={"sweep"}))


class ReproduceConfig(RunConfig):
    """Settings of `avel reproduce`. The tables define models, arms, windows and fixed tau; all
    other settings are those of the run."""

    tables: tuple[Annotated[int, Field(ge=1, le=7)], ...] = Field(
        default=(1, 2, 3, 4, 5, 6, 7), min_length=1
    )
    """Tables to compute, 1 to 7."""

    seeds: PositiveInt = 5
    """Number of seeds, starting at `seed`."""

    by_model: tuple[str, ...] = ()
    """Settings of one base model that override those of the run: MODEL:KEY=VALUE, such as
    psp:train.batch_size=128."""

    max_concurrent: PositiveInt | None = None
    """Maximum number of concurrent trainings (default: as the resources of the cluster allow)."""

    @property
    def run(self) -> RunConfig:
        """Settings of the run."""
        return RunConfig.model_validate(
            self.model_dump(exclude={"tables", "seeds", "by_model", "max_concurrent"})
        )
