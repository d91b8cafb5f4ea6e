"""The paper's tables: every system that they need, trained with every seed, then evaluated.

All systems are planned first. What several of them need, such as Step 1 of the base model, is
computed once: each step is one round of tasks, a task for each different result that is still
missing. Interrupted, the same command goes on. tau and everything else that is chosen is chosen
on the validation split, for each seed; the test split is read by the evaluation only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from distributed_avel.arms import ARMS, arm_label
from distributed_avel.artifacts import Location
from distributed_avel.cluster.progress import say
from distributed_avel.cluster.tracking import Tracker, store_uri, untracked
from distributed_avel.config import ReproduceConfig, RunConfig
from distributed_avel.datasets import feature_source
from distributed_avel.errors import ConfigError, DatasetError
from distributed_avel.metrics.parsing import parsing_metrics
from distributed_avel.models import model_class
from distributed_avel.pipeline import Pipeline
from distributed_avel.provenance import provenance
from distributed_avel.refine.pseudo_labels import threshold_text
from distributed_avel.report.alarms import prediction_warnings, segments_text, window_warnings
from distributed_avel.report.paper import TABLES, WEAK_LABELS, PaperTable, Row, System
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
from distributed_avel.studies.campaign import Campaign
from distributed_avel.tasks import Parsing

FOLDER = "tables"
JSON, PAGE = "tables.json", "tables.html"

Step = Literal["base", "refine", "screen", "retrain", "evaluate"]

_NO_MODALITIES = "nobody annotated what is heard and what is seen apart in {}"


def run_reproduce(config: ReproduceConfig) -> None:
    """Compute the tables, write them, and show them."""
    if config.model.options:
        raise ConfigError(
            "model.options: the tables train several base models; give an option to one of them, "
            "such as --by-model psp:model.options.threshold=0.1"
        )
    neutral = {"model.name": System().model, "arms": ["base"]}
    run = with_values(config.run, neutral, "configuration")
    check_names(run)
    by_model = parse_model_settings(config.by_model, run)
    with started(config, f"tables {config.data.dataset}") as tracker:
        tables = tuple(table for table in TABLES if table.number in config.tables)
        seeds = tuple(range(config.seed, config.seed + config.seeds))
        work = Reproducing(run, tables, seeds, tracker, by_model, config.max_concurrent)
        _publish(work.run(), Location.at(run.resolved_run_dir) / FOLDER, tracker)
        if config.tracking.enabled:
            say(f"MLflow: {store_uri(config.tracking)}")


def _publish(found: Reproduction, folder: Location, tracker: Tracker) -> None:
    """Write all files, put them into MLflow too, and show the tables."""
    (folder / JSON).write_json(found.to_json())
    files = {PAGE: render_reproduction(found)}
    for table in found.tables:
        markdown = table_markdown(found, table)
        files |= {f"{table.name}.md": markdown, f"{table.name}.csv": table_csv(found, table)}
        print(markdown)  # noqa: T201
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    for name in (JSON, *files):
        tracker.parent.file(folder / name, FOLDER)
        say(f"{name}: {folder / name}")


@dataclass(frozen=True)
class _Want:
    """A system with a seed."""

    system: System
    seed: int


@dataclass
class Reproducing:
    """The work behind the tables, step by step.

    Args:
        run_config: What all systems have in common.
        by_model: Settings of single base models, in place of the run's.
        max_concurrent: No more tasks than this at once, if given.
    """

    run_config: RunConfig
    tables: Sequence[PaperTable]
    seeds: Sequence[int]
    tracker: Tracker
    by_model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_concurrent: int | None = None
    _failed: dict[_Want, str] = field(default_factory=dict)
    _pipelines: dict[_Want, Pipeline] = field(default_factory=dict)

    def run(self) -> Reproduction:
        """All steps; each reuses what an earlier run left."""
        wants = [
            _Want(system, seed)
            for system in dict.fromkeys(s.trained for s in self._systems() if not self._why_not(s))
            for seed in self.seeds
        ]
        self._compute("base", [w for w in wants if ARMS[w.system.arm].windows != "dummy"])
        self._compute("refine", [w for w in wants if ARMS[w.system.arm].scored])
        self._compute("screen", [w for w in wants if self._is_screened(w)])
        self._compute("retrain", [w for w in wants if ARMS[w.system.arm].windows])
        self._compute("evaluate", wants)
        for want, error in self._failed.items():
            say(f"WARNING: {_describe(want.system)}, seed {want.seed} failed: {error}")
        config, videos = self.run_config, self._driver.videos
        brings = feature_source(config.data.dataset) is not None
        return Reproduction(
            dataset=videos.name,
            synthetic=videos.synthetic,
            features="of the data set" if brings else config.extract.extractor,
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

    def _compute(self, step: Step, experiments: Iterable[_Want]) -> None:
        """Compute the missing results of a step; note the experiments that failed."""
        todo = [want for want in experiments if want not in self._failed]
        stages = [self._stage(step, want) for want in todo]
        for number, error in self._campaign.compute(step, stages).items():
            self._failed[todo[number]] = error

    def _stage(self, step: Step, want: _Want) -> Stage[Any]:
        pipeline, plan = self._pipeline(want), ARMS[want.system.arm]
        stages: dict[Step, Callable[[], Stage[Any]]] = {
            "base": lambda: pipeline.base(plan.auxiliary),
            "refine": lambda: pipeline.refine(plan.auxiliary, plan.scored or "refined"),
            "screen": lambda: pipeline.screen(plan.auxiliary, plan.scored or "refined"),
            "retrain": lambda: pipeline.arm(want.system.arm),
            "evaluate": pipeline.evaluate,
        }
        return stages[step]()

    def _is_screened(self, want: _Want) -> bool:
        """Whether Step 3 is trained with several values of tau first, to choose one."""
        is_screened = self._pipeline(want).config.refine.is_screened
        return is_screened and ARMS[want.system.arm].has_threshold

    # Rows --------------------------------------------------------------------------------

    def _measured(self, table: PaperTable) -> MeasuredTable:
        return MeasuredTable(paper=table, rows=tuple(map(self._row, table.rows)))

    def _row(self, row: Row) -> Measured:
        if row.source == WEAK_LABELS:
            return self._weak_labels(row)
        system = row.source
        assert isinstance(system, System)
        why_not = self._why_not(system)
        if why_not:
            return Measured(row=row, by_seed={}, notes=(f"not computed: {why_not}",))
        wants = [_Want(system.trained, seed) for seed in self.seeds]
        found = {w.seed: self._metrics(w, system) for w in wants if w not in self._failed}
        errors = {w.seed: self._failed[w] for w in wants if w in self._failed}
        failed = tuple(f"seed {seed} failed: {error}" for seed, error in errors.items())
        notes = (*failed, *self._notes([w for w in wants if w not in self._failed]))
        return Measured(row=row, by_seed=found, varies=system.says != "truth", notes=notes)

    def _metrics(self, want: _Want, system: System) -> Mapping[str, float | None]:
        figures = self._pipeline(want).evaluate().metrics()
        name = {
            "prediction": arm_label(system.model, system.arm),
            "repeated": f"{arm_label(system.model, 'base')}-repeat",
            "truth": "GT-repeat",
        }[system.says]
        return figures[name]

    def _notes(self, wants: Sequence[_Want]) -> list[str]:
        """The tau of each seed where it was chosen, and what collapsed to background."""
        manifests = {
            want.seed: stage.manifest
            for want in wants
            if isinstance(stage := self._pipeline(want).arm(want.system.arm), Retrain)
            and stage.refined
        }
        taus = [manifest.threshold for manifest in manifests.values()]
        own = self.by_model.get(wants[0].system.model, {}) if wants else {}
        notes = [f"{key} {value}" for key, value in own.items()]
        if taus and isinstance(self._pipeline(wants[0]).config.refine.threshold, str):
            seeds = f"seed{'s' if len(taus) > 1 else ''} {', '.join(map(str, manifests))}"
            chosen = ", ".join(threshold_text(tau) for tau in taus if tau is not None)
            notes += [f"tau {chosen}, chosen on the validation split for {seeds}"] * bool(chosen)
        for seed, manifest in manifests.items():
            if manifest.segments:
                notes.append(f"seed {seed}: {segments_text(manifest.segments)}")
            warnings = window_warnings(manifest.windows) if manifest.windows else []
            notes += [f"seed {seed}: {warning}" for warning in warnings]
        for want in wants:
            name = arm_label(want.system.model, want.system.arm)
            background = self._pipeline(want).evaluate().manifest.background
            warnings = prediction_warnings({name: background[name]})
            notes += [f"seed {want.seed}: {warning}" for warning in warnings]
        return notes

    def _weak_labels(self, row: Row) -> Measured:
        """Table 6 without a model: the labels of each test video, in all its segments."""
        videos = self._driver.videos
        if not self._tells_modalities():
            why = _NO_MODALITIES.format(videos.name)
            return Measured(row=row, by_seed={}, notes=(f"not computed: {why}",))
        chosen = videos.split("test")
        heard_VTC, seen_VTC = videos.modality_labels(chosen)
        weak_V1C = videos.video_labels(chosen)[:, None, :-1]
        weak_VTC = weak_V1C.repeat(videos.timeline.num_segments, axis=1)
        figures = parsing_metrics(heard_VTC, seen_VTC, weak_VTC, weak_VTC)
        by_seed: BySeed = dict.fromkeys(self.seeds, figures)
        return Measured(row=row, by_seed=by_seed, varies=False)

    def _why_not(self, system: System) -> str:
        """Why a system cannot be trained on these data; empty if it can."""
        try:
            task = model_class(system.model).task
        except ConfigError:
            return f"there is no base model {system.model!r} here"
        if task == "parsing" and not self._tells_modalities():
            return _NO_MODALITIES.format(self._driver.videos.name)
        try:
            self._config(_Want(system, self.seeds[0]))
        except ConfigError as error:
            return str(error).splitlines()[-1].strip()
        return ""

    def _tells_modalities(self) -> bool:
        """Whether what is heard and what is seen was annotated apart."""
        try:
            Parsing().refuse(self._driver.videos)
        except DatasetError:
            return False
        return True

    # What follows from the settings ------------------------------------------------------

    def _systems(self) -> list[System]:
        rows = (row for table in self.tables for row in table.rows)
        return [row.source for row in rows if isinstance(row.source, System)]

    @cached_property
    def _driver(self) -> Pipeline:
        """Makes data and features, which all systems and seeds share."""
        return Pipeline(self.run_config, self.tracker)

    def _config(self, want: _Want) -> RunConfig:
        system = want.system
        point: dict[str, Any] = {"seed": want.seed, "model.name": system.model}
        point["arms"] = [system.arm]
        if system.windows:
            point["refine.window"], point["refine.stride"] = system.windows
        if system.threshold is not None:
            point["refine.threshold"] = system.threshold
        point |= self.by_model.get(system.model, {})
        return with_values(self.run_config, point, _describe(system))

    def _pipeline(self, want: _Want) -> Pipeline:
        want = replace(want, system=want.system.trained)
        if want not in self._pipelines:
            config = self._config(want)
            self._pipelines[want] = Pipeline(config, untracked(), execution=self._execution)
        return self._pipelines[want]

    @cached_property
    def _execution(self) -> Execution:
        return Execution(
            in_process=self._campaign.resources.in_process,
            quiet=True,
            known=self._driver.shared_artifacts(),
        )

    @cached_property
    def _campaign(self) -> Campaign:
        return Campaign.plan(trial_resources(self.run_config), self.max_concurrent)


def _describe(system: System) -> str:
    parts = [arm_label(system.model, system.arm)]
    if system.windows:
        parts.append(f"N {system.windows[0]}, s {system.windows[1]}")
    if system.threshold is not None:
        parts.append(f"tau {system.threshold:g}")
    return ", ".join(parts)
