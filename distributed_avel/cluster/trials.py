"""Trials on Ray Tune, and the tasks that come before them. What a trial does is the caller's.

The caller keeps the outcome of each trial that ended, and gives them back when the search is
started again after a kill: those trials are not run again, while those that were under way or
failed are. Tune's own record is made of pickles, which run code when they are read: it goes to
a folder that only this process can use, and nobody reads it.
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
"""What every report of a trial says: how good it is, after how many epochs, whether it is done."""

VALIDATION_METRICS, STAGE_USES = "metrics", "stages"
"""What reports say besides: all metrics, and, where the trial is done, what it was made of."""

UNDEFINED_CRITERION = -1.0
"""For schedulers, which need a number: worse than any percentage."""

_POINT = "point"
_REPORTED = (CRITERION, EPOCH, FINISHED, VALIDATION_METRICS, STAGE_USES)
_TASK_RETRIES = 3

ReportTrial = Callable[[dict[str, Any]], None]

TrialPoint = dict[str, Any]
"""Values of the settings that a search varies, by their keys."""


class SearchSpace(Protocol):
    """The points that Optuna searches; see `search.space.Space`."""

    def suggest(self, trial: Any) -> Any:
        """Ask an Optuna trial for a value of each dimension."""
        ...

    def suggested(self, values: Mapping[str, Any]) -> TrialPoint:
        """Return the point of the values that Optuna suggested."""
        ...

    def asked(self, point: TrialPoint) -> dict[str, Any]:
        """Return the values that `suggested` turns into a point."""
        ...


class TrialBody(Protocol):
    """What a trial does; pickled and called in another process."""

    def __call__(self, point: TrialPoint, report: ReportTrial) -> None:
        """Try a point, with `CRITERION`, `EPOCH` and `FINISHED` in every report."""
        ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which trials there are.

    Args:
        points: The trials of a search that knows them beforehand.
        space: Where Optuna looks for `num_trials` of them, if there are no points.
        max_epochs: ASHA stops the worse trials before so many epochs, if given.
        grace_epochs: But none before these.
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
    """How a trial ended.

    Args:
        report: Its last report; None if there was none.
        error: Why it failed, if it did.
    """

    point: TrialPoint
    report: Mapping[str, Any] | None
    error: str | None


def run_trials(
    search: Search,
    body: TrialBody,
    *,
    ended: Sequence[Outcome],
    keep: Callable[[Outcome], None],
    resources: TrialResources,
    concurrency: int | None,
    max_retries: int,
    watch: Callable[[], None],
) -> list[Outcome]:
    """Run the trials of a search that have not ended before.

    Args:
        ended: Trials of this search that ended without an error in earlier runs. Optuna learns
            from them; ASHA compares the others with each other alone.
        keep: Called with each trial that ends without an error, also where ASHA ends it early.
        concurrency: How many run at once; None leaves it to the cluster.
        watch: Called again and again while trials run.

    Returns:
        How all trials of the search ended.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one talks whatever it is told
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is handled by the job
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are those of the job
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
                callbacks=[_Keeper(keep, search.space)],
                verbose=0,
            ),
        )
        results = watched(tuner.fit, watch)
        return [*ended, *(_outcome(result, search.space) for result in results)]


def _trainable(config: dict[str, Any], *, body: TrialBody, space: SearchSpace | None) -> None:
    body(_point_of(config, space), tune.report)


def _point_of(config: dict[str, Any], space: SearchSpace | None) -> TrialPoint:
    return config[_POINT] if _POINT in config or space is None else space.suggested(config)


class _Keeper(tune.Callback):
    """Hands over each trial as soon as it ends, so that a kill does not lose it."""

    def __init__(self, keep: Callable[[Outcome], None], space: SearchSpace | None) -> None:
        self._keep, self._space = keep, space

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()  # Tune writes its callbacks down; this one is of this process

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand over a trial that ended without an error."""
        report = _report(trial.last_result)
        if report is not None:
            self._keep(
                Outcome(point=_point_of(trial.config, self._space), report=report, error=None)
            )


class _Distributions:
    """What a space asks an Optuna trial for, noted down."""

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
    """Optuna as it was after the trials that ended.

    The seed counts them, because the first suggestions of a seed are always the same.
    """
    asked = _Distributions()
    space.suggest(asked)
    return OptunaSearch(
        asked.by_name,
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
    """What a trial reported last, without what Tune adds; None if it reported nothing."""
    if not metrics or CRITERION not in metrics:
        return None
    return {name: metrics[name] for name in _REPORTED if name in metrics}


def _first_cause(error: BaseException) -> str:
    """The last line of a remote traceback: what went wrong, rather than where it passed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that raised, and why."""

    error: str


def run_tasks(
    tasks: Sequence[Callable[[], Any]],
    *,
    resources: TrialResources,
    concurrency: int | None,
) -> Iterator[tuple[int, Any]]:
    """Results of the tasks as they come, with their numbers; a `TaskFailure` where one raised.

    A task whose machine dies is run again elsewhere.
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
