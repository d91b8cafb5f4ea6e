"""Select the best point of a sweep by validation metrics, and count the cost of its stages."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from distributed_avel.errors import ConfigError
from distributed_avel.search.space import Point


@dataclass(frozen=True, slots=True)
class StageUse:
    """A stage result that a trial used: its fingerprint and the seconds that computing it took."""

    name: str
    fingerprint: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Result of one point with one seed.

    Args:
        point: Settings of the point.
        seed: Seed of the run.
        metrics: Metrics on the validation split, in percent (None for an undefined metric); None
            unless Step 3 is finished.
        stages: Stages of Steps 1 to 3 that it used; empty unless Step 3 is finished.
        error: Reason of the failure, if it failed. A trial without metrics and without an error
            was stopped early.
    """

    point: Point
    seed: int
    metrics: Mapping[str, float | None] | None = None
    stages: tuple[StageUse, ...] = ()
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A point and the criterion of each seed for which it is defined."""

    point: Point
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the criterion over the seeds."""
        return fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Standard deviation of the criterion over the seeds; None for a single seed."""
        return stdev(self.values) if len(self.values) > 1 else None


def check_criterion(names: Sequence[str], metrics: Sequence[str]) -> None:
    """Check that all names are metrics.

    Raises:
        ConfigError: A name is unknown; the message lists the metrics.
    """
    unknown = [name for name in names if name not in metrics]
    if unknown:
        raise ConfigError(
            f"sweep.criterion: {', '.join(unknown)}: no such metric; there are {', '.join(metrics)}"
        )


def criterion(metrics: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """Compute the mean of several metrics (larger is better); None if one is undefined."""
    values = [value for name in names if (value := metrics[name]) is not None]
    return fmean(values) if len(values) == len(names) else None


def rank(trials: Iterable[Trial], names: Sequence[str]) -> list[Candidate]:
    """Sort the points by the mean criterion over their seeds, the best first.

    Ties are sorted by settings, so that the order does not depend on when trials finish. Trials
    with an undefined criterion are excluded.
    """
    values: dict[str, tuple[Point, list[tuple[int, float]]]] = {}
    for trial in trials:
        value = None if trial.metrics is None else criterion(trial.metrics, names)
        if value is not None:
            _, by_seed = values.setdefault(_key(trial.point), (trial.point, []))
            by_seed.append((trial.seed, value))
    candidates = {
        key: Candidate(point=point, values=tuple(value for _, value in sorted(by_seed)))
        for key, (point, by_seed) in values.items()
    }
    ordered = sorted(candidates.items(), key=lambda item: (-item[1].mean, item[0]))
    return [candidate for _, candidate in ordered]


def choose(trials: Sequence[Trial], names: Sequence[str], num_seeds: int) -> list[Candidate]:
    """Rank the points that ran with the most seeds, so that one lucky seed cannot win.

    Args:
        trials: All trials.
        names: Metrics of the criterion.
        num_seeds: Number of seeds that the best points should have; some may have failed.
    """
    candidates = rank(trials, names)
    most = min(num_seeds, max((len(c.values) for c in candidates), default=0))
    return [candidate for candidate in candidates if len(candidate.values) >= most]


def pareto_front(values: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto-optimal pairs; larger is better in both values."""
    front: list[int] = []
    highest = float("-inf")
    for index in sorted(range(len(values)), key=lambda i: (-values[i][0], -values[i][1], i)):
        if values[index][1] > highest:
            front.append(index)
            highest = values[index][1]
    return front


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCount:
    """Use and cost of one stage in a sweep.

    Args:
        name: Name of the stage.
        used: Number of trials that used a result of the stage.
        different: Number of distinct results; all other uses were cache hits.
        seconds: Time of computing the distinct results.
        naive_seconds: Time of computing a result for each trial.
    """

    name: str
    used: int
    different: int
    seconds: float
    naive_seconds: float


def count_stages(trials: Iterable[Trial]) -> list[StageCount]:
    """Count the stages of the finished trials, in the order of the stages."""
    uses: dict[str, list[StageUse]] = {}
    for trial in trials:
        for use in trial.stages:
            uses.setdefault(use.name, []).append(use)
    counts = []
    for name, of_name in uses.items():
        different = {use.fingerprint: use.seconds for use in of_name}
        counts.append(
            StageCount(
                name=name,
                used=len(of_name),
                different=len(different),
                seconds=sum(different.values()),
                naive_seconds=sum(use.seconds for use in of_name),
            )
        )
    return counts


def _key(point: Mapping[str, Any]) -> str:
    return repr(sorted((key, repr(value)) for key, value in point.items()))
