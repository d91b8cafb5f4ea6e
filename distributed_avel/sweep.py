"""A sweep: the best tau, window and stride, and what else is varied, found on validation alone.

The stages that trials share are computed first, each once: Step 1 for each setting that it
depends on, then Step 2. Window pseudo-labels of the validation split then say which tau are
worth a Step 3. The trials train Step 3 and look at the validation split; the best few are tried
with more seeds. The test split is read once, for the configuration that was chosen, by the
ordinary evaluation.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import ray
import yaml

from distributed_avel.artifacts import Stage
from distributed_avel.config import RunConfig, TuneConfig
from distributed_avel.errors import AvelError, DatasetError
from distributed_avel.pipeline import Pipeline, Place
from distributed_avel.refine.pseudo_labels import ThresholdCurve, threshold_grid
from distributed_avel.report.sweep import SweepReport, render_sweep, sweep_figures
from distributed_avel.run import check_names
from distributed_avel.runtime.leases import LeaseBoard, LeaseHolder
from distributed_avel.runtime.progress import ProgressBoard, progress, say
from distributed_avel.runtime.session import machines, ray_session, require
from distributed_avel.runtime.thresholds import read_threshold_curve
from distributed_avel.runtime.tracking import Tracker, store_uri, tracked, untracked
from distributed_avel.runtime.train import CURVES_FILE, last_validation
from distributed_avel.runtime.tune import (
    CRITERION,
    EPOCH,
    FINISHED,
    Outcome,
    ReportTrial,
    Search,
    TaskFailure,
    run_tasks,
    run_trials,
)
from distributed_avel.search.resources import needs_of, plan_concurrency
from distributed_avel.search.screen import screened_range
from distributed_avel.search.selection import (
    Candidate,
    StageCount,
    StageUse,
    Trial,
    check_criterion,
    choose,
    count_stages,
    criterion,
    rank,
)
from distributed_avel.search.space import (
    Choice,
    Point,
    Space,
    chosen_windows,
    describe,
    parse_dimension,
    shared_settings,
    spread_thresholds,
    with_values,
)

BEST = "best.yaml"
TRIALS = "sweep.json"
PAGE = "sweep.html"

_SEED = "seed"
_NEUTRAL = {"cluster", "tracking", "report", "run_dir"}
_NEUTRAL_SWEEP = {"max_concurrent", "max_retries", "gpus_per_trial", "num_best", "num_seeds"}


def run_sweep(config: TuneConfig) -> None:
    """The whole sweep, then what was chosen, what it cost, and where everything lies."""
    check_names(config)
    check_criterion(config.sweep.criterion)
    dimensions = tuple(parse_dimension(text, config.run) for text in config.sweep.vary)
    for dimension in dimensions:
        for value in dimension.values if isinstance(dimension, Choice) else ():
            check_names(with_values(config.run, {dimension.key: value}))
    windows = tuple(chosen_windows(config.sweep, config.data.num_segments))
    space = Space(
        windows=windows, thresholds=(0.5,), threshold_range=(0.1, 0.9), dimensions=dimensions
    )
    if config.sweep.search == "grid":
        space.grid()  # refuses ranges before anything starts
    with (
        ray_session(config.cluster),
        tracked(config, f"sweep {config.data.dataset}") as tracker,
    ):
        require(config)
        sweep = Sweep(config, space, tracker)
        sweep.run()


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """Trains Step 3 at a point and looks at the validation split; runs in another process.

    Stages that are there are found, and those that another trial computes are waited for.

    Args:
        here: Train in the process of the trial rather than in workers of its own.
        leases: The actor `LeaseBoard`.
        board: The actor `ProgressBoard`, for the driver.
    """

    config: RunConfig
    auxiliary: bool
    criterion: tuple[str, ...]
    here: bool
    leases: Any
    board: Any

    def pipeline(self, point: Mapping[str, Any], report: ReportTrial | None = None) -> Pipeline:
        """The pipeline of a point, with its seed if it has one."""
        config = with_values(self.config, point)

        def watch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
            found = {k.removeprefix("val/"): v for k, v in metrics.items() if k[:4] == "val/"}
            is_last = epoch + 1 == config.train.retrain_epochs
            if report and stage == "retrain" and found and not is_last:
                report(self._report(found, epoch + 1, finished=False))

        place = Place(here=self.here, quiet=True, watch=watch, alone_at=LeaseHolder(self.leases))
        return Pipeline(config, untracked(), place=place)

    def base(self, point: Point) -> str:
        """Step 1 of a point; returns its fingerprint."""
        return self.pipeline(point).base(self.auxiliary).fingerprint

    def refine(self, point: Point) -> str:
        """Step 2 of a point; returns its fingerprint."""
        return self.pipeline(point).refine(self.auxiliary).fingerprint

    def __call__(self, point: Point, report: ReportTrial) -> None:
        """The trial itself."""
        pipeline = self.pipeline(point, report)
        retrained = pipeline.retrain(self.auxiliary)
        stages = (pipeline.base(self.auxiliary), pipeline.refine(self.auxiliary), retrained)
        metrics = last_validation(retrained.location)
        uses = [[s.name, s.fingerprint, s.manifest()["seconds"]] for s in stages]
        epochs = pipeline.config.train.retrain_epochs
        final = self._report(metrics, epochs, finished=True) | {"stages": uses}
        self.board.put.remote({"point": point, "report": final})
        report(final)

    def _report(
        self, metrics: Mapping[str, float], epoch: int, *, finished: bool
    ) -> dict[str, Any]:
        value = criterion(metrics, self.criterion)
        return {CRITERION: value, EPOCH: epoch, FINISHED: finished, "metrics": dict(metrics)}


@dataclass
class Sweep:
    """One sweep, phase by phase."""

    config: TuneConfig
    space: Space
    tracker: Tracker
    trials: dict[str, Trial] = field(default_factory=dict)

    def run(self) -> None:
        """All phases; each reuses what an earlier run of it left."""
        if not self._driver.usable("val"):
            raise DatasetError(
                f"{self._driver.videos.name}: no validation video has features, so a sweep "
                "cannot choose; name some in the validation split"
            )
        self._share_stages()
        self._screen()
        self._search()
        self._more_seeds()
        chosen = self._choose()
        self._write(chosen)
        evaluated = Pipeline(self._chosen_config(chosen), self.tracker)
        evaluated.publish()
        self._say_what_happened(chosen, evaluated)

    # Phases ------------------------------------------------------------------------------

    def _share_stages(self) -> None:
        """Steps 1 and 2 of every pair of windows, each once, before anything needs them."""
        todo = self._shared
        self._run_stages("base", todo, self._trial.base, lambda p: p.base_stage(self._auxiliary))
        self._run_stages(
            "refine", todo, self._trial.refine, lambda p: p.refine_stage(self._auxiliary)
        )

    def _run_stages(
        self,
        name: str,
        points: Sequence[Point],
        compute: Callable[[Point], str],
        stage_of: Callable[[Pipeline], Stage],
    ) -> None:
        stages = {stage_of(self._trial.pipeline(point)).fingerprint: point for point in points}
        missing = [
            point
            for point in stages.values()
            if not stage_of(self._trial.pipeline(point)).is_done()
        ]
        already = len(stages) - len(missing)
        say(f"{name}: {len(points)} settings need {len(stages)} different results")
        with progress(name, len(stages), "stages", already=already) as report:
            tasks = [_Call(compute, point) for point in missing]
            results = run_tasks(tasks, needs=self._needs, concurrency=self._concurrency)
            for done, (number, result) in enumerate(results, start=already + 1):
                if isinstance(result, TaskFailure):
                    say(f"{name} with {describe(missing[number])} failed: {result.error}")
                report(done)

    def _screen(self) -> None:
        """Narrow tau to what the validation split finds worth a Step 3."""
        grid = threshold_grid()
        everything = (float(grid[0]), float(grid[-1]))
        low, high = screened_range(self._curves, self.config.sweep.screen_keep, everything)
        thresholds = self.config.sweep.thresholds or spread_thresholds(
            low, high, self.config.sweep.num_thresholds
        )
        say(
            f"screen: tau from {low:.4g} to {high:.4g} is worth trying, of "
            f"{everything[0]:.4g} to {everything[1]:.4g}"
        )
        self.space = Space(
            windows=self.space.windows,
            dimensions=self.space.dimensions,
            thresholds=thresholds,
            threshold_range=(low, high),
        )

    def _search(self) -> None:
        """One trial a point, with the seed of the run."""
        sweep, train = self.config.sweep, self.config.train
        if sweep.search == "optuna":
            search = Search(space=self.space, num_trials=sweep.num_trials, seed=self.config.seed)
        else:
            points = (
                self.space.grid()
                if sweep.search == "grid"
                else self.space.sample(sweep.num_trials, self.config.seed)
            )
            is_asha = sweep.search == "asha"
            search = Search(
                points=points,
                max_epochs=train.retrain_epochs if is_asha else None,
                grace_epochs=train.report_every,
            )
        self._run("search", search)

    def _more_seeds(self) -> None:
        """The best few points again, with other seeds: Steps 1 to 3 anew for each."""
        sweep, seed = self.config.sweep, self.config.seed
        best = rank(self.trials.values(), sweep.criterion)[: sweep.num_best]
        points = [
            {**candidate.point, _SEED: seed + number}
            for candidate in best
            for number in range(1, sweep.num_seeds)
        ]
        if points:
            self._run(f"seeds-{_short_name(points)}", Search(points=points))

    def _run(self, name: str, search: Search) -> None:
        """Run trials, with progress, and take note of how each ended."""
        board = self._trial.board
        with progress(name.partition("-")[0], len(search), "trials") as report:
            done: set[str] = set()

            def watch() -> None:
                for message in ray.get(board.take.remote()):
                    outcome = Outcome(point=message["point"], report=message["report"], error=None)
                    done.add(self._note(outcome))
                    report(len(done), self._best_so_far())

            outcomes = run_trials(
                name,
                search,
                self._trial,
                needs=self._needs,
                concurrency=self._concurrency,
                max_retries=self.config.sweep.max_retries,
                storage=self._folder,
                watch=watch,
            )
            for outcome in outcomes:
                done.add(self._note(outcome))
            report(len(done), self._best_so_far())
        for outcome in outcomes:
            if outcome.error:
                say(f"trial {describe(outcome.point)} failed: {outcome.error}")

    def _choose(self) -> Candidate:
        sweep = self.config.sweep
        candidates = choose(list(self.trials.values()), sweep.criterion, sweep.num_seeds)
        if not candidates:
            errors = {trial.error for trial in self.trials.values() if trial.error}
            raise AvelError("no trial of the sweep finished:\n  " + "\n  ".join(sorted(errors)))
        return candidates[0]

    # What follows from them --------------------------------------------------------------

    @cached_property
    def _driver(self) -> Pipeline:
        """The run that all trials start from: it makes data and features."""
        return Pipeline(self.config.run, self.tracker)

    @property
    def _auxiliary(self) -> bool:
        return self.config.sweep.auxiliary

    @cached_property
    def _needs(self) -> Any:
        return needs_of(self.config, self.config.sweep.gpus_per_trial)

    @cached_property
    def _concurrency(self) -> int | None:
        nodes, wanted = machines(), self.config.sweep.max_concurrent
        if nodes is None:
            return wanted
        concurrency = plan_concurrency(self._needs, nodes, wanted)
        say(f"plan: {concurrency} trial(s) at once, each with {self._needs.why}")
        return concurrency

    @cached_property
    def _trial(self) -> SweepTrial:
        return SweepTrial(
            config=self.config.run,
            auxiliary=self._auxiliary,
            criterion=self.config.sweep.criterion,
            here=self._needs.here,
            leases=LeaseBoard.remote(),
            board=ProgressBoard.remote(),
        )

    @cached_property
    def _shared(self) -> list[Point]:
        """The settings whose Steps 1 and 2 are computed before any trial."""
        if self.config.sweep.search == "grid":
            return shared_settings(self.space.grid())
        return shared_settings(
            Space(windows=self.space.windows, thresholds=(0.5,), threshold_range=(0.1, 0.9)).grid()
        )

    @cached_property
    def _curves(self) -> list[ThresholdCurve]:
        curves = []
        for point in self._shared:
            stage = self._trial.pipeline(point).refine_stage(self._auxiliary)
            curve = read_threshold_curve(stage.location) if stage.is_done() else None
            if curve is not None:
                curves.append(curve)
        return curves

    @cached_property
    def _stage(self) -> Stage:
        """Where the sweep keeps its own files; it has no marker, because a rerun is cheap."""
        sweep = self.config.sweep
        depends = {
            "revision": 1,
            "run": self.config.run.model_dump(mode="json", exclude=_NEUTRAL),
            "sweep": sweep.model_dump(mode="json", exclude=_NEUTRAL_SWEEP),
            "extract": self._driver.extract.fingerprint,
        }
        return Stage(self._driver.run_dir, "sweep", depends)

    @property
    def _folder(self) -> Any:
        return self._stage.location

    def _note(self, outcome: Outcome) -> str:
        """Keep how a trial ended, and log it once; returns what tells it from the others."""
        point = {key: value for key, value in outcome.point.items() if key != _SEED}
        seed = outcome.point.get(_SEED, self.config.seed)
        name = describe({**point, _SEED: seed})
        report = outcome.report
        is_finished = report is not None and report[FINISHED]
        trial = Trial(
            point=point,
            seed=seed,
            metrics=report["metrics"] if report is not None and is_finished else None,
            stages=tuple(StageUse(*use) for use in report["stages"])
            if report is not None and is_finished
            else (),
            error=outcome.error,
        )
        if self.trials.get(name) != trial:
            self.trials[name] = trial
            self._log(name, trial)
        return name

    def _log(self, name: str, trial: Trial) -> None:
        run, is_logged = self.tracker.trial(name, name)
        if is_logged:
            return
        run.params({**trial.point, _SEED: trial.seed})
        if trial.metrics is None:
            run.tags({"outcome": trial.error or "stopped early"})
        else:
            value = criterion(trial.metrics, self.config.sweep.criterion)
            run.metrics({**trial.metrics, CRITERION: value})
            retrained = self._driver.run_dir / "retrain" / trial.stages[-1].fingerprint
            run.curves((retrained / CURVES_FILE).read_table())
        run.ended(failed=trial.error is not None)

    def _best_so_far(self) -> str:
        best = rank(self.trials.values(), self.config.sweep.criterion)
        return f"best {best[0].mean:.2f} at {describe(best[0].point)}" if best else ""

    def _chosen_config(self, chosen: Candidate) -> RunConfig:
        arm = "A+LR" if self._auxiliary else "LR"
        arms = tuple(dict.fromkeys([*self.config.arms, arm]))
        if not self._auxiliary:
            arms = tuple(a for a in arms if a != "A+LR")
        return with_values(self.config.run, {**chosen.point, "arms": arms})

    def _write(self, chosen: Candidate) -> None:
        """The configuration that was chosen, all trials, and the page."""
        config = self._chosen_config(chosen)
        said = (
            f"# Chosen by a sweep over {len(self.trials)} trials on the validation split of "
            f"{self.config.data.dataset}.\n# python jobs/pipeline.py --config {BEST}\n"
        )
        text = said + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        report = self._page(chosen)
        for folder in (self._folder, self._driver.run_dir):
            (folder / BEST).write_bytes(text.encode())
            (folder / TRIALS).write_json(report.to_json())
            (folder / PAGE).write_bytes(render_sweep(report).encode())
        for name in (BEST, TRIALS, PAGE):
            self.tracker.parent.file(self._folder / name)
        for name, figure in sweep_figures(report).items():
            (self._folder / "figures" / f"{name}.svg").write_bytes(figure.encode())
            self.tracker.parent.file(self._folder / "figures" / f"{name}.svg", "figures")
        self.tracker.parent.metrics({f"best/{CRITERION}": chosen.mean})
        name = describe({**chosen.point, _SEED: self.config.seed})
        self.tracker.trial(name, name)[0].tags({"best": "true"})

    def _page(self, chosen: Candidate) -> SweepReport:
        sweep = self.config.sweep
        return SweepReport(
            dataset=self._driver.videos.name,
            synthetic=self._driver.videos.synthetic,
            windows=self.space.windows,
            trials=tuple(self.trials[name] for name in sorted(self.trials)),
            criterion=sweep.criterion,
            seed=self.config.seed,
            chosen=chosen,
            finalists=tuple(
                c for c in rank(self.trials.values(), sweep.criterion) if len(c.values) > 1
            ),
            counts=tuple(self._counts()),
            settings=self.config.model_dump(mode="json"),
        )

    def _counts(self) -> list[StageCount]:
        """What the trials of the search needed, without those for more seeds."""
        return count_stages(t for t in self.trials.values() if t.seed == self.config.seed)

    def _say_what_happened(self, chosen: Candidate, evaluated: Pipeline) -> None:
        computed: dict[str, str] = ray.get(self._trial.leases.computed.remote())
        now = list(computed.values())
        for count in self._counts():
            say(
                f"{count.name}: {count.used} trials needed {count.different}, computed "
                f"{now.count(count.name)} in this run (seeds included); {count.seconds:.0f} s "
                f"rather than {count.naive_seconds:.0f} s"
            )
        saved = sum(c.naive_seconds - c.seconds for c in self._counts())
        spent = sum(c.seconds for c in self._counts())
        say(f"sharing saved {saved:.0f} s of {saved + spent:.0f} s of work")
        spread = "" if chosen.sd is None else f" ± {chosen.sd:.2f}"
        names = " and ".join(self.config.sweep.criterion)
        say(
            f"chosen: {describe(chosen.point)}: {chosen.mean:.2f}{spread}, mean of {names} on the "
            f"validation split over {len(chosen.values)} seed(s)"
        )
        for name in (BEST, PAGE, TRIALS, "results.json", "report.html"):
            say(f"{name}: {evaluated.run_dir / name}")
        if self.config.tracking.enabled:
            say(f"MLflow: {store_uri(self.config.tracking)}")


@dataclass(frozen=True, slots=True)
class _Call:
    """A call for another process."""

    function: Callable[[Point], str]
    point: Point

    def __call__(self) -> str:
        return self.function(self.point)


def _short_name(points: Sequence[Point]) -> str:
    """Of a search for these points, so that another choice of them is another search."""
    return hashlib.sha256(repr(list(points)).encode()).hexdigest()[:12]
