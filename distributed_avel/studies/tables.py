"""Reproduce the paper's tables: train and evaluate their experiments with several seeds.

Results that several experiments need, such as Step 1 of the base model, are computed once: each
step computes all different results that are missing, with one task per result. If the command is
interrupted, the same command continues. tau is chosen on the validation split, for each seed; only
the evaluation reads the test split.

Shape suffixes used in this file:
    V = videos    T = segments    C = event classes
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from distributed_avel.arms import ARMS, arm_label
from distributed_avel.cluster.progress import say
from distributed_avel.cluster.tracking import Tracker, store_uri, untracked
from distributed_avel.config import ReproduceConfig, RunConfig
from distributed_avel.datasets import feature_source
from distributed_avel.errors import ConfigError, DatasetError
from distributed_avel.method.pseudo_labels import threshold_text
from distributed_avel.metrics.parsing import parsing_metrics
from distributed_avel.models import model_class
from distributed_avel.pipeline import Pipeline
from distributed_avel.provenance import provenance
from distributed_avel.report.alarms import prediction_warnings, segments_text, window_warnings
from distributed_avel.report.paper import TABLES, WEAK_LABELS, Experiment, PaperTable, TableRow
from distributed_avel.report.reproduction import (
    BySeed,
    Measured,
    MeasuredTable,
    Reproduction,
    render_reproduction,
    table_csv,
    table_markdown,
)
from distributed_avel.search.space import parse_model_settings, with_values
from distributed_avel.stages.resources import trial_resources
from distributed_avel.stages.retrain import Retrain
from distributed_avel.stages.stage import Execution, Stage
from distributed_avel.startup import check_names, started
from distributed_avel.storage import Location
from distributed_avel.studies.campaign import Campaign
from distributed_avel.tasks import Parsing

FOLDER = "tables"
JSON, PAGE = "tables.json", "tables.html"

Step = Literal["base", "refine", "screen", "retrain", "evaluate"]

_NO_MODALITIES = "{} has no separate annotations of the audio and the visual events"


def run_reproduce(config: ReproduceConfig) -> None:
    """Compute the tables, write them to the run directory, and print them.

    Raises:
        ConfigError: `model.options` is set, or a setting or name is invalid.
        AvelError: A check before the start fails.
    """
    if config.model.options:
        raise ConfigError(
            "model.options: the tables train several base models; give an option to one of them, "
            "such as --by-model psp:model.options.threshold=0.1"
        )
    neutral = {"model.name": Experiment().model, "arms": ["base"]}
    run_config = with_values(config.run, neutral, "configuration")
    check_names(run_config)
    by_model = parse_model_settings(config.by_model, run_config)
    with started(config, f"tables {config.data.dataset}") as tracker:
        tables = tuple(table for table in TABLES if table.number in config.tables)
        seeds = tuple(range(config.seed, config.seed + config.seeds))
        study = TableStudy(run_config, tables, seeds, tracker, by_model, config.max_concurrent)
        _publish(study.run(), Location.at(run_config.resolved_run_dir) / FOLDER, tracker)
        if config.tracking.enabled:
            say(f"MLflow: {store_uri(config.tracking)}")


def _publish(reproduction: Reproduction, folder: Location, tracker: Tracker) -> None:
    """Write the files of all tables, log them to MLflow, and print the tables."""
    (folder / JSON).write_json(reproduction.to_json())
    files = {PAGE: render_reproduction(reproduction)}
    for table in reproduction.tables:
        markdown = table_markdown(reproduction, table)
        files |= {
            f"{table.name}.md": markdown,
            f"{table.name}.csv": table_csv(reproduction, table),
        }
        print(markdown)  # noqa: T201
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    for name in (JSON, *files):
        tracker.parent.file(folder / name, FOLDER)
        say(f"{name}: {folder / name}")


@dataclass(frozen=True)
class _Run:
    """An experiment with one seed."""

    experiment: Experiment
    seed: int


@dataclass
class TableStudy:
    """Compute the experiments of the tables, step by step.

    Args:
        run_config: Settings that all experiments share.
        tables: Tables to compute.
        seeds: Seeds of each experiment.
        tracker: MLflow run of the study.
        by_model: Settings of single base models, which override those of `run_config`.
        max_concurrent: Maximum number of tasks at once, if given.
    """

    run_config: RunConfig
    tables: Sequence[PaperTable]
    seeds: Sequence[int]
    tracker: Tracker
    by_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_concurrent: int | None = None
    _failed: dict[_Run, str] = field(default_factory=dict)
    _pipelines: dict[_Run, Pipeline] = field(default_factory=dict)

    def run(self) -> Reproduction:
        """Compute all steps, or reuse their results, and collect the tables."""
        runs = [
            _Run(experiment, seed)
            for experiment in dict.fromkeys(
                s.trained for s in self._experiments() if not self._reason_not_computed(s)
            )
            for seed in self.seeds
        ]
        self._compute("base", [run for run in runs if ARMS[run.experiment.arm].windows != "dummy"])
        self._compute("refine", [run for run in runs if ARMS[run.experiment.arm].scored])
        self._compute("screen", [run for run in runs if self._is_screened(run)])
        self._compute("retrain", [run for run in runs if ARMS[run.experiment.arm].windows])
        self._compute("evaluate", runs)
        for run, error in self._failed.items():
            say(f"WARNING: {_describe(run.experiment)}, seed {run.seed} failed: {error}")
        config, videos = self.run_config, self._shared_pipeline.videos
        return Reproduction(
            dataset=videos.name,
            synthetic=videos.synthetic,
            features=_origin(config),
            seeds=tuple(self.seeds),
            loss=config.train.loss,
            tables=tuple(self._measured(table) for table in self.tables),
            settings={
                **config.model_dump(mode="json", exclude={"seed", "arms"}),
                "by_model": {model: dict(point) for model, point in self.by_model.items()},
            },
            provenance=provenance(),
        )

    # Steps -------------------------------------------------------------------------------

    def _compute(self, step: Step, runs: Iterable[_Run]) -> None:
        """Compute the missing results of a step, and record the runs that fail."""
        todo = [run for run in runs if run not in self._failed]
        stages = [self._stage(step, run) for run in todo]
        for number, error in self._campaign.compute(step, stages).items():
            self._failed[todo[number]] = error

    def _stage(self, step: Step, run: _Run) -> Stage[Any]:
        pipeline, plan = self._pipeline(run), ARMS[run.experiment.arm]
        stages: dict[Step, Callable[[], Stage[Any]]] = {
            "base": lambda: pipeline.base(plan.auxiliary),
            "refine": lambda: pipeline.refine(plan.auxiliary, plan.scored or "refined"),
            "screen": lambda: pipeline.screen(plan.auxiliary, plan.scored or "refined"),
            "retrain": lambda: pipeline.arm(run.experiment.arm),
            "evaluate": pipeline.evaluate,
        }
        return stages[step]()

    def _is_screened(self, run: _Run) -> bool:
        """Return True if tau is chosen by training Step 3 with several values."""
        is_screened = self._pipeline(run).config.refine.is_screened
        return is_screened and ARMS[run.experiment.arm].has_threshold

    # Rows --------------------------------------------------------------------------------

    def _measured(self, table: PaperTable) -> MeasuredTable:
        return MeasuredTable(paper=table, rows=tuple(map(self._row, table.rows)))

    def _row(self, row: TableRow) -> Measured:
        if row.source == WEAK_LABELS:
            return self._weak_labels(row)
        experiment = row.source
        assert isinstance(experiment, Experiment)
        reason = self._reason_not_computed(experiment)
        if reason:
            return Measured(row=row, by_seed={}, notes=(f"not computed: {reason}",))
        runs = [_Run(experiment.trained, seed) for seed in self.seeds]
        finished = [run for run in runs if run not in self._failed]
        failures = [
            f"seed {run.seed} failed: {self._failed[run]}" for run in runs if run in self._failed
        ]
        return Measured(
            row=row,
            by_seed={run.seed: self._metrics(run, experiment) for run in finished},
            varies=experiment.output != "truth",
            notes=(*failures, *self._notes(finished)),
        )

    def _metrics(self, run: _Run, experiment: Experiment) -> Mapping[str, float | None]:
        figures = self._pipeline(run).evaluate().metrics()
        name = {
            "prediction": arm_label(experiment.model, experiment.arm),
            "repeated": f"{arm_label(experiment.model, 'base')}-repeat",
            "truth": "GT-repeat",
        }[experiment.output]
        return figures[name]

    def _notes(self, runs: Sequence[_Run]) -> list[str]:
        """Describe settings of the model, the chosen tau of each seed, and suspicious results."""
        manifests = {
            run.seed: stage.manifest
            for run in runs
            if isinstance(stage := self._pipeline(run).arm(run.experiment.arm), Retrain)
            and stage.refined
        }
        taus = [manifest.threshold for manifest in manifests.values()]
        settings = self.by_model.get(runs[0].experiment.model, {}) if runs else {}
        notes = [f"{key} {value}" for key, value in settings.items()]
        if taus and isinstance(self._pipeline(runs[0]).config.refine.threshold, str):
            seeds = f"seed{'s' if len(taus) > 1 else ''} {', '.join(map(str, manifests))}"
            values = ", ".join(threshold_text(tau) for tau in taus if tau is not None)
            notes += [f"tau {values}, chosen on the validation split for {seeds}"] * bool(values)
        for seed, manifest in manifests.items():
            if manifest.segments:
                notes.append(f"seed {seed}: {segments_text(manifest.segments)}")
            warnings = window_warnings(manifest.windows) if manifest.windows else []
            notes += [f"seed {seed}: {warning}" for warning in warnings]
        for run in runs:
            name = arm_label(run.experiment.model, run.experiment.arm)
            background = self._pipeline(run).evaluate().manifest.background
            warnings = prediction_warnings({name: background[name]})
            notes += [f"seed {run.seed}: {warning}" for warning in warnings]
        return notes

    def _weak_labels(self, row: TableRow) -> Measured:
        """Evaluate the video-level labels, repeated over all segments of both modalities."""
        videos = self._shared_pipeline.videos
        if not self._has_modality_labels():
            reason = _NO_MODALITIES.format(videos.name)
            return Measured(row=row, by_seed={}, notes=(f"not computed: {reason}",))
        test = videos.split("test")
        heard_VTC, seen_VTC = videos.modality_labels(test)
        weak_V1C = videos.video_labels(test)[:, None, :-1]
        weak_VTC = weak_V1C.repeat(videos.timeline.num_segments, axis=1)
        figures = parsing_metrics(heard_VTC, seen_VTC, weak_VTC, weak_VTC)
        by_seed: BySeed = dict.fromkeys(self.seeds, figures)
        return Measured(row=row, by_seed=by_seed, varies=False)

    def _reason_not_computed(self, experiment: Experiment) -> str:
        """Explain why an experiment cannot run on this data set; empty if it can."""
        try:
            task = model_class(experiment.model).task
        except ConfigError:
            return f"there is no base model {experiment.model!r} here"
        if task == "parsing" and not self._has_modality_labels():
            return _NO_MODALITIES.format(self._shared_pipeline.videos.name)
        try:
            self._config(_Run(experiment, self.seeds[0]))
        except ConfigError as error:
            return str(error).splitlines()[-1].strip()
        return ""

    def _has_modality_labels(self) -> bool:
        """Return True if the data set has segment labels of each modality."""
        try:
            Parsing().refuse(self._shared_pipeline.videos)
        except DatasetError:
            return False
        return True

    # Experiments and pipelines -----------------------------------------------------------

    def _experiments(self) -> list[Experiment]:
        rows = (row for table in self.tables for row in table.rows)
        return [row.source for row in rows if isinstance(row.source, Experiment)]

    @cached_property
    def _shared_pipeline(self) -> Pipeline:
        """The pipeline of the data set and its features, which all runs share."""
        return Pipeline(self.run_config, self.tracker)

    def _config(self, run: _Run) -> RunConfig:
        experiment = run.experiment
        point: dict[str, Any] = {"seed": run.seed, "model.name": experiment.model}
        point["arms"] = [experiment.arm]
        if experiment.windows:
            point["refine.window"], point["refine.stride"] = experiment.windows
        if experiment.threshold is not None:
            point["refine.threshold"] = experiment.threshold
        point |= self.by_model.get(experiment.model, {})
        return with_values(self.run_config, point, _describe(experiment))

    def _pipeline(self, run: _Run) -> Pipeline:
        run = replace(run, experiment=run.experiment.trained)
        if run not in self._pipelines:
            config = self._config(run)
            self._pipelines[run] = Pipeline(config, untracked(), execution=self._execution)
        return self._pipelines[run]

    @cached_property
    def _execution(self) -> Execution:
        return Execution(
            in_process=self._campaign.resources.in_process,
            quiet=True,
            known=self._shared_pipeline.shared_artifacts(),
        )

    @cached_property
    def _campaign(self) -> Campaign:
        return Campaign.plan(trial_resources(self.run_config), self.max_concurrent)


def _origin(config: RunConfig) -> str:
    """Say where the features come from."""
    if config.data.features is not None:
        return "own features"
    has_features = feature_source(config.data.dataset) is not None
    return "of the data set" if has_features else config.extract.extractor


def _describe(experiment: Experiment) -> str:
    parts = [arm_label(experiment.model, experiment.arm)]
    if experiment.windows:
        parts.append(f"N {experiment.windows[0]}, s {experiment.windows[1]}")
    if experiment.threshold is not None:
        parts.append(f"tau {experiment.threshold:g}")
    return ", ".join(parts)
