"""Run trials with Ray Tune, and the tasks that precede them. The caller provides the trial body.

The caller stores the outcome of each trial that ended. After an interruption it passes these
outcomes, so that only unfinished and failed trials run again. Tune's own state consists of pickles,
which execute code when they are loaded; it is written to a private temporary folder and never read.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from distributed_avel.cluster.progress import watched
from distributed_avel.cluster.resources import TrialResources
from distributed_avel.randomness import derive

CRITERION, EPOCH, FINISHED = "criterion", "epoch", "finished"
"""Keys of every report of a trial: the criterion, the number of epochs, whether it is finished."""

VALIDATION_METRICS, STAGE_USES = "metrics", "stages"
"""More keys: all metrics, and, in the report of a finished trial, the stages that it used."""

UNDEFINED_CRITERION = -1.0
"""Value for an undefined criterion, because schedulers need a number: below any percentage."""

_POINT = "point"
_REPORTED = (CRITERION, EPOCH, FINISHED, VALIDATION_METRICS, STAGE_USES)
_TASK_RETRIES = 3

ReportTrial = Callable[[dict[str, Any]], None]

TrialPoint = dict[str, Any]
"""Values of the settings that a search varies, by key."""


class SearchSpace(Protocol):
    """Search space of Optuna; `search.space.Space` implements it."""

    def suggest(self, trial: Any) -> Any:
        """Ask an Optuna trial for a value of each dimension."""
        ...

    def suggested(self, values: Mapping[str, Any]) -> TrialPoint:
        """Convert values that Optuna suggested to a point."""
        ...

    def asked(self, point: TrialPoint) -> dict[str, Any]:
        """Convert a point to Optuna's values; the inverse of `suggested`."""
        ...


class TrialBody(Protocol):
    """Body of a trial; pickled and called in another process."""

    def __call__(self, point: TrialPoint, report: ReportTrial) -> None:
        """Evaluate a point; every report has `CRITERION`, `EPOCH` and `FINISHED`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """The trials of a search.

    Args:
        points: Points of a search that knows them in advance.
        space: Search space in which Optuna chooses `num_trials` points, if `points` is empty.
        num_trials: Number of trials of Optuna.
        max_epochs: Number of epochs of a trial; if given, ASHA stops the worse trials earlier.
        grace_epochs: ASHA stops no trial before this number of epochs.
        seed: Seed of Optuna.
    """

    points: Sequence[TrialPoint] = ()
    space: SearchSpace | None = None
    num_trials: int = 0
    max_epochs: int | None = None
    grace_epochs: int = 1
    seed: int = 0

    def __len__(self) -> int:
        return len(self.points) or self.num_trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Outcome of a trial.

    Args:
        point: The point that it evaluated.
        report: Its last report; None if it made none.
        error: Reason of the failure, if it failed.
    """

    point: TrialPoint
    report: Mapping[str, Any] | None
    error: str | None


def run_trials(
    search: Search,
    body: TrialBody,
    *,
    ended: Sequence[Outcome],
    store: Callable[[Outcome], None],
    resources: TrialResources,
    concurrency: int | None,
    max_retries: int,
    watch: Callable[[], None],
) -> list[Outcome]:
    """Run the trials of a search that have not ended in an earlier run.

    Args:
        body: Body of a trial.
        ended: Outcomes, without errors, of earlier runs of this search. Optuna learns from them;
            ASHA does not compare new trials with them.
        store: Called with each outcome without an error, also if ASHA stopped the trial early.
        resources: Resources of one trial.
        concurrency: Maximum number of trials at once; None leaves it to the cluster.
        max_retries: How often a failed trial is retried.
        watch: Called repeatedly while trials run.

    Returns:
        Outcomes of all trials of the search.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output ignores verbose=0
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is handled by the job
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # keep the relative paths of the job
    points = [outcome.point for outcome in ended]
    todo = [point for point in search.points if point not in points]
    if not todo and len(ended) >= len(search):
        return list(ended)
    trainable = tune.with_resources(
        tune.with_parameters(_trainable, body=body, space=search.space),
        {"cpu": resources.cpus, "gpu": resources.gpus},
    )
    with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as private:
        tuner = tune.Tuner(
            trainable,
            param_space={_POINT: tune.grid_search(todo)} if todo else {},
            tune_config=_tune_config(search, concurrency, ended),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=private,
                failure_config=tune.FailureConfig(max_failures=max_retries),
                callbacks=[_StoreOutcomes(store, search.space)],
                verbose=0,
            ),
        )
        results = watched(tuner.fit, watch)
        return [*ended, *(_outcome(result, search.space) for result in results)]


def _trainable(config: dict[str, Any], *, body: TrialBody, space: SearchSpace | None) -> None:
    body(_point_of(config, space), tune.report)


def _point_of(config: dict[str, Any], space: SearchSpace | None) -> TrialPoint:
    return config[_POINT] if _POINT in config or space is None else space.suggested(config)


class _StoreOutcomes(tune.Callback):
    """Stores the outcome of each trial as soon as it ends, so that a kill does not lose it."""

    def __init__(self, store: Callable[[Outcome], None], space: SearchSpace | None) -> None:
        self._store, self._space = store, space

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()  # Tune pickles its callbacks; this one only works in this process

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Store the outcome of a trial that ended without an error."""
        report = _report(trial.last_result)
        if report is not None:
            self._store(
                Outcome(point=_point_of(trial.config, self._space), report=report, error=None)
            )


class _Distributions:
    """Records the distributions that a search space asks an Optuna trial for."""

    def __init__(self) -> None:
        self.by_name: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.by_name[name] = CategoricalDistribution(choices)
        return choices[0]

    def suggest_float(self, name: str, low: float, high: float) -> float:
        self.by_name[name] = FloatDistribution(low, high)
        return low


def _tune_config(
    search: Search, concurrency: int | None, ended: Sequence[Outcome]
) -> tune.TuneConfig:
    searcher = scheduler = None
    if search.space is not None and not search.points:
        searcher = _optuna(search.space, search.seed, ended)
    if search.max_epochs is not None:
        scheduler = ASHAScheduler(
            time_attr=EPOCH,
            metric=CRITERION,
            mode="max",
            max_t=search.max_epochs,
            grace_period=search.grace_epochs,
            reduction_factor=3,
        )
    return tune.TuneConfig(
        search_alg=searcher,
        scheduler=scheduler,
        metric=None if scheduler else CRITERION,
        mode=None if scheduler else "max",
        num_samples=len(search) - len(ended) if searcher else 1,
        max_concurrent_trials=concurrency,
        reuse_actors=True,
        trial_name_creator=str,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )


def _optuna(space: SearchSpace, seed: int, ended: Sequence[Outcome]) -> OptunaSearch:
    """Restore Optuna's state from the trials that ended.

    The seed depends on their number, because a seed always gives the same first suggestions.
    """
    distributions = _Distributions()
    space.suggest(distributions)
    return OptunaSearch(
        distributions.by_name,
        metric=CRITERION,
        mode="max",
        seed=derive(seed, "sweep", "optuna", len(ended)) % 2**32,
        points_to_evaluate=[space.asked(outcome.point) for outcome in ended] or None,
        evaluated_rewards=[(outcome.report or {})[CRITERION] for outcome in ended] or None,
    )


def _outcome(result: tune.Result, space: SearchSpace | None) -> Outcome:
    report = _report(result.metrics)
    error = None if result.error is None else _first_cause(result.error)
    assert result.config is not None
    return Outcome(point=_point_of(result.config, space), report=report, error=error)


def _report(metrics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the last report of a trial, without Tune's own keys; None if it made none."""
    if not metrics or CRITERION not in metrics:
        return None
    return {name: metrics[name] for name in _REPORTED if name in metrics}


def _first_cause(error: BaseException) -> str:
    """Return the last line of a remote traceback, which names the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Result of a task that raised an error."""

    error: str


def run_tasks(
    tasks: Sequence[Callable[[], Any]],
    *,
    resources: TrialResources,
    concurrency: int | None,
) -> Iterator[tuple[int, Any]]:
    """Run tasks, and yield the index and the result of each as it finishes.

    Tasks are retried on another machine if theirs dies.

    Yields:
        Index of the task, and its result, or a `TaskFailure` if it raised.
    """
    remote = ray.remote(_call).options(
        num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=_TASK_RETRIES
    )
    waiting = list(enumerate(tasks))[::-1]
    running: dict[ray.ObjectRef, int] = {}
    while waiting or running:
        while waiting and (concurrency is None or len(running) < concurrency):
            number, task = waiting.pop()
            running[remote.remote(task)] = number
        (done, *_), _ = ray.wait(list(running))
        number = running.pop(done)
        try:
            yield number, ray.get(done)
        except RayError as error:
            yield number, TaskFailure(_first_cause(error))


def _call(task: Callable[[], Any]) -> Any:
    return task()
