"""Sweep over tau, window, stride and other settings; the validation split decides.

Stages that trials share are computed first and once: Step 1 for each setting that it depends on,
then Step 2. The window pseudo-labels of the validation split pre-select the range of tau. The
trials train Step 3 and evaluate it on the validation split; the best points are repeated with more
seeds. The test split is read once, by the evaluation of the chosen configuration.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from distributed_avel.artifacts import Artifact
from distributed_avel.cluster.leases import LeaseActor, computed_stages
from distributed_avel.cluster.progress import ProgressActor, messages, progress, say
from distributed_avel.cluster.session import on_driver_node
from distributed_avel.cluster.tracking import Tracker, store_uri
from distributed_avel.cluster.trials import (
    FINISHED,
    Outcome,
    Search,
    run_trials,
)
from distributed_avel.config import TuneConfig
from distributed_avel.errors import ArtifactError, ConfigError, DatasetError
from distributed_avel.method.pseudo_labels import ThresholdCurve
from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.search.screen import screened_range, whole_range
from distributed_avel.search.selection import check_criterion
from distributed_avel.search.space import (
    Choice,
    Point,
    Space,
    chosen_windows,
    describe,
    parse_dimension,
    refuse_options_of_others,
    spread_thresholds,
    with_values,
)
from distributed_avel.stages.cache_keys import sweep_settings
from distributed_avel.stages.report import REPORT, RESULTS
from distributed_avel.stages.resources import trial_resources
from distributed_avel.startup import check_names, started
from distributed_avel.studies.campaign import Campaign
from distributed_avel.studies.sweep.results import BEST, PAGE, SEED, TRIALS, TrialStore
from distributed_avel.studies.sweep.trial import SweepTrial
from distributed_avel.tasks import task_class
from distributed_avel.train.initial_weights import read_source


def run_sweep(config: TuneConfig) -> None:
    """Run a sweep, print its result, and evaluate the chosen configuration.

    Raises:
        ConfigError: A setting of the sweep is invalid.
        AvelError: A check before the start fails, or no trial can be chosen.
    """
    check_names(config)
    config = _with_criterion(config)
    dimensions = tuple(parse_dimension(text, config.run) for text in config.sweep.vary)
    for dimension in dimensions:
        for value in dimension.values if isinstance(dimension, Choice) else ():
            varied = with_values(config.run, {dimension.key: value})
            check_names(varied)
            if task_class(varied.model.name) is not task_class(config.model.name):
                raise ConfigError(
                    f"sweep.vary: {varied.model.name} and {config.model.name} have different "
                    "metrics (localization and parsing), so no sweep can choose between them; "
                    "leave one out"
                )
    refuse_options_of_others(dimensions, config.run)
    windows = tuple(chosen_windows(config.sweep, config.data.num_segments))
    space = Space(windows=windows, dimensions=dimensions)
    if config.sweep.search == "grid":
        space.grid()  # refuses ranges before the start
    with started(config, f"sweep {config.data.dataset}") as tracker:
        Sweep(config, space, tracker).run()


def _with_criterion(config: TuneConfig) -> TuneConfig:
    """Return the configuration with the criterion of the task, unless it has its own."""
    task = task_class(config.model.name)
    check_criterion(config.sweep.criterion, (*task.metrics, *VIDEO_METRICS))
    criterion = config.sweep.criterion or task.criterion
    sweep = config.sweep.model_copy(update={"criterion": criterion})
    return config.model_copy(update={"sweep": sweep})


@dataclass
class Sweep:
    """A sweep.

    Args:
        config: Configuration of the sweep.
        space: Search space.
        tracker: MLflow run of the sweep.
    """

    config: TuneConfig
    space: Space
    tracker: Tracker

    def run(self) -> None:
        """Run all phases; each reuses the results of an interrupted sweep.

        Raises:
            AvelError: No validation video has features, or no trial can be chosen.
        """
        if not self._driver.usable("val"):
            raise DatasetError(
                f"{self._driver.videos.name}: no validation video has features, so a sweep "
                "cannot choose; add some to the validation split"
            )
        self._refuse_metrics_without_times()
        self._share_stages()
        self._screen()
        self._search()
        self._more_seeds()
        chosen = self._store.choose()
        self._store.write(chosen, self._driver.videos, self.space.windows)
        evaluated = Pipeline(self._store.chosen_config(chosen), self.tracker)
        publish(evaluated)
        computed = computed_stages(self._trial.leases)
        self._store.say(chosen, list(computed.values()))
        for name in (BEST, PAGE, TRIALS, RESULTS, REPORT):
            say(f"{name}: {evaluated.run_dir / name}")
        if self.config.tracking.enabled:
            say(f"MLflow: {store_uri(self.config.tracking)}")

    def _refuse_metrics_without_times(self) -> None:
        """Refuse a criterion that the validation split cannot give, before any training."""
        annotated_V = self._driver.task.annotated(self._driver.usable("val"))
        segment = self._driver.task.metrics if annotated_V.any() else ()
        metrics = (*segment, *(() if annotated_V.all() else VIDEO_METRICS))
        missing = [name for name in self.config.sweep.criterion if name not in metrics]
        if missing:
            raise DatasetError(
                f"sweep.criterion: {', '.join(missing)}: the validation split has "
                f"{int(annotated_V.sum())} of {len(annotated_V)} videos with times, which give "
                f"{', '.join(metrics)}; set sweep.criterion to some of them, or add times"
            )

    # Phases ------------------------------------------------------------------------------

    def _share_stages(self) -> None:
        """Compute Steps 1 and 2 of all windows and strides, each once."""
        pipelines = [self._trial.pipeline(point) for point in self._shared]
        for name, stages in (
            ("base", [pipeline.base(self._auxiliary) for pipeline in pipelines]),
            ("refine", [pipeline.refine(self._auxiliary) for pipeline in pipelines]),
        ):
            failures = self._campaign.compute(name, stages)
            if len(failures) == len(stages):
                raise ArtifactError(f"{name} failed with every setting: {failures[0]}")
            for error in dict.fromkeys(failures.values()):
                points = [self._shared[number] for number in failures if failures[number] == error]
                others = f" and {len(points) - 1} other settings" if len(points) > 1 else ""
                say(f"{name} with {describe(points[0])}{others} failed: {error}")

    def _screen(self) -> None:
        """Narrow the range of tau with the window pseudo-labels of the validation split."""
        everything = whole_range()
        low, high = screened_range(self._curves, self.config.sweep.screen_keep, everything)
        thresholds = self.config.sweep.thresholds or spread_thresholds(
            low, high, self.config.sweep.num_thresholds
        )
        say(
            f"screen: tau from {low:.4g} to {high:.4g} is worth trying, of "
            f"{everything[0]:.4g} to {everything[1]:.4g}"
        )
        self.space = replace(self.space, thresholds=thresholds, threshold_range=(low, high))

    def _search(self) -> None:
        """Run the trials of the search, with the seed of the run."""
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
        """Repeat Steps 1 to 3 of the best points with other seeds."""
        sweep, seed = self.config.sweep, self.config.seed
        best = self._store.ranked()[: sweep.num_best]
        points = [
            {**candidate.point, SEED: seed + number}
            for candidate in best
            for number in range(1, sweep.num_seeds)
        ]
        if points:
            self._run("seeds", Search(points=points))

    def _run(self, name: str, search: Search) -> None:
        """Run trials with progress messages, and add their outcomes to the store."""
        progress_actor, ended = self._trial.progress, self._ended(search)
        done = {self._store.add(outcome) for outcome in ended}
        with progress(name, len(search), "trials", already=len(done)) as report:

            def watch() -> None:
                for message in messages(progress_actor):
                    outcome = Outcome(point=message["point"], report=message["report"], error=None)
                    done.add(self._store.add(outcome))
                    report(len(done), self._store.best_so_far())

            outcomes = run_trials(
                search,
                self._trial,
                ended=ended,
                store=self._store.save,
                resources=self._campaign.resources,
                concurrency=self._campaign.concurrency,
                max_retries=self.config.sweep.max_retries,
                watch=watch,
            )
            for outcome in outcomes:
                done.add(self._store.add(outcome))
            report(len(done), self._store.best_so_far())
        for outcome in outcomes:
            if outcome.error:
                say(f"trial {describe(outcome.point)} failed: {outcome.error}")

    def _ended(self, search: Search) -> list[Outcome]:
        """Return outcomes of earlier runs of a search, if their Step 3 is intact."""
        return [
            outcome
            for outcome in self._store.saved()
            if (outcome.point in search.points if search.points else SEED not in outcome.point)
            and (not (outcome.report or {})[FINISHED] or self._is_done(outcome.point))
        ][: len(search)]

    def _is_done(self, point: Point) -> bool:
        """Return True if Step 3 of a point is finished and undamaged."""
        return self._trial.pipeline(point).retrain(self._auxiliary).is_done()

    # Pipelines and resources -------------------------------------------------------------

    @cached_property
    def _driver(self) -> Pipeline:
        """The pipeline of the data set and its features, which all trials share."""
        return Pipeline(self.config.run, self.tracker)

    @property
    def _auxiliary(self) -> bool:
        return self.config.sweep.auxiliary

    @cached_property
    def _campaign(self) -> Campaign:
        sweep = self.config.sweep
        resources = trial_resources(self.config, sweep.gpus_per_trial)
        return Campaign.plan(resources, sweep.max_concurrent)

    @cached_property
    def _trial(self) -> SweepTrial:
        return SweepTrial(
            config=self.config.run,
            auxiliary=self._auxiliary,
            criterion=self.config.sweep.criterion,
            in_process=self._campaign.resources.in_process,
            known=self._driver.shared_artifacts(),
            leases=LeaseActor.options(**on_driver_node()).remote(),
            progress=ProgressActor.options(**on_driver_node()).remote(),
        )

    @cached_property
    def _shared(self) -> list[Point]:
        """Points without tau whose Steps 1 and 2 are computed before the trials."""
        return self.space.shared(all_dimensions=self.config.sweep.search == "grid")

    @cached_property
    def _curves(self) -> list[ThresholdCurve]:
        curves = []
        for point in self._shared:
            stage = self._trial.pipeline(point).refine(self._auxiliary)
            if stage.is_done():
                curves += stage.threshold_curves().values()
        return curves

    @cached_property
    def _stage(self) -> Artifact:
        """Artifact with the sweep's own files; it has no marker, because a rerun is cheap."""
        weights = self.config.model.weights
        depends = {
            "revision": 3,
            "settings": sweep_settings(self.config),
            **({"weights": read_source(weights).sha256} if weights else {}),
            "data": self._driver.data.fingerprint,
            "extract": self._driver.features.fingerprint,
        }
        return Artifact(self._driver.run_dir, "sweep", depends)

    @cached_property
    def _store(self) -> TrialStore:
        run_dir = self._driver.run_dir
        return TrialStore(self.config, self.tracker, run_dir, self._stage.location)
