"""Trials on Ray Tune, and the tasks that come before them. What a trial does is the caller's.

Tune keeps its own record below a folder of the sweep; started again after a kill, trials that
finished are not run again, and those that were under way or failed are. A trial that goes on
after a kill finds the stages that it had finished.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from distributed_avel.artifacts import Location
from distributed_avel.randomness import derive
from distributed_avel.runtime.progress import watched
from distributed_avel.search.resources import Needs
from distributed_avel.search.space import Point, Space

CRITERION, EPOCH, FINISHED = "criterion", "epoch", "finished"
"""What every report of a trial says: how good it is, after how many epochs, whether it is done."""

UNDEFINED_CRITERION = -1.0
"""For schedulers, which need a number: worse than any percentage."""

_POINT = "point"
_TASK_RETRIES = 3

ReportTrial = Callable[[dict[str, Any]], None]


class TrialBody(Protocol):
    """What a trial does; pickled and called in another process."""

    def __call__(self, point: Point, report: ReportTrial) -> None:
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

    points: Sequence[Point] = ()
    space: Space | None = None
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

    point: Point
    report: Mapping[str, Any] | None
    error: str | None


def run_trials(
    name: str,
    search: Search,
    body: TrialBody,
    *,
    needs: Needs,
    concurrency: int | None,
    max_retries: int,
    storage: Location,
    watch: Callable[[], None],
) -> list[Outcome]:
    """Run all trials that have not finished in an earlier run of the same name.

    Args:
        name: Of this search among those below `storage`.
        concurrency: How many run at once; None leaves it to the cluster.
        watch: Called again and again while trials run.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one talks whatever it is told
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is handled by the job
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")  # what a kill may make Tune forget
    trainable = tune.with_resources(
        tune.with_parameters(_trainable, body=body, space=search.space),
        {"cpu": needs.cpus, "gpu": needs.gpus},
    )
    filesystem = None if storage.is_local else storage.fs
    folder = f"{storage.path}/{name}"
    if tune.Tuner.can_restore(folder, storage_filesystem=filesystem):
        tuner = tune.Tuner.restore(
            folder,
            trainable,
            resume_unfinished=True,
            restart_errored=True,
            param_space=_param_space(search),
            storage_filesystem=filesystem,
        )
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_param_space(search),
            tune_config=_tune_config(search, concurrency),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage.path,
                storage_filesystem=filesystem,
                failure_config=tune.FailureConfig(max_failures=max_retries),
                verbose=0,
            ),
        )
    results = watched(tuner.fit, watch)
    return [_outcome(result, search.space) for result in results]


def _trainable(config: dict[str, Any], *, body: TrialBody, space: Space | None) -> None:
    body(_point_of(config, space), tune.report)


def _point_of(config: dict[str, Any], space: Space | None) -> Point:
    return config[_POINT] if _POINT in config or space is None else space.suggested(config)


def _param_space(search: Search) -> dict[str, Any]:
    return {_POINT: tune.grid_search(list(search.points))} if search.points else {}


def _tune_config(search: Search, concurrency: int | None) -> tune.TuneConfig:
    searcher = scheduler = None
    if search.space is not None and not search.points:
        seed = derive(search.seed, "sweep", "optuna") % 2**32
        searcher = OptunaSearch(search.space.suggest, metric=CRITERION, mode="max", seed=seed)
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
        num_samples=search.num_trials if searcher else 1,
        max_concurrent_trials=concurrency,
        reuse_actors=True,
        trial_name_creator=str,
        trial_dirname_creator=lambda trial: trial.trial_id,
    )


def _outcome(result: tune.Result, space: Space | None) -> Outcome:
    report = result.metrics if result.metrics and CRITERION in result.metrics else None
    error = None if result.error is None else _first_cause(result.error)
    assert result.config is not None
    return Outcome(point=_point_of(result.config, space), report=report, error=error)


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
    needs: Needs,
    concurrency: int | None,
) -> Iterator[tuple[int, Any]]:
    """Results of the tasks as they come, with their numbers; a `TaskFailure` where one raised.

    A task whose machine dies is run again elsewhere.
    """
    remote = ray.remote(_call).options(
        num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=_TASK_RETRIES
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
