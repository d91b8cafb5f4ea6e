"""Which point is the best one, by validation metrics alone, and what all of it cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from distributed_avel.errors import ConfigError
from distributed_avel.search.space import Point


@dataclass(frozen=True, slots=True)
class StageUse:
    """A stage that a trial needed: which result it was, and the seconds that it took to make."""

    name: str
    fingerprint: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One point with one seed, and what came of it.

    Args:
        metrics: On the validation split, in percent; None unless Step 3 was finished. A metric
            may be undefined, None, too.
        stages: What it needed of Steps 1 to 3; empty unless Step 3 was finished.
        error: Why it failed, if it did. A trial without either was stopped early.
    """

    point: Point
    seed: int
    metrics: Mapping[str, float | None] | None = None
    stages: tuple[StageUse, ...] = ()
    error: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it has metrics."""
        return self.metrics is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A point and the criterion over its seeds, as far as it is defined."""

    point: Point
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean of the criterion."""
        return fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Standard deviation of the criterion, if there are several seeds."""
        return stdev(self.values) if len(self.values) > 1 else None


def check_criterion(names: Sequence[str], metrics: Sequence[str]) -> None:
    """Refuse a name that is not one of the metrics.

    Raises:
        ConfigError: It lists the ones there are.
    """
    unknown = [name for name in names if name not in metrics]
    if unknown:
        raise ConfigError(
            f"sweep.criterion: {', '.join(unknown)}: no such metric; there are {', '.join(metrics)}"
        )


def criterion(metrics: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """The mean of the metrics of these names: larger is better; None if one is undefined."""
    values = [value for name in names if (value := metrics[name]) is not None]
    return fmean(values) if len(values) == len(names) else None


def rank(trials: Iterable[Trial], names: Sequence[str]) -> list[Candidate]:
    """The points by the mean criterion over their seeds, the best first.

    Of equals, the one whose settings come first: the order does not depend on which trial
    finished when. A trial whose criterion is undefined does not compete.
    """
    values: dict[str, tuple[Point, list[tuple[int, float]]]] = {}
    for trial in trials:
        value = None if trial.metrics is None else criterion(trial.metrics, names)
        if value is not None:
            found = values.setdefault(_key(trial.point), (trial.point, []))
            found[1].append((trial.seed, value))
    candidates = {
        key: Candidate(point=point, values=tuple(value for _, value in sorted(by_seed)))
        for key, (point, by_seed) in values.items()
    }
    ordered = sorted(candidates.items(), key=lambda item: (-item[1].mean, item[0]))
    return [candidate for _, candidate in ordered]


def choose(trials: Sequence[Trial], names: Sequence[str], num_seeds: int) -> list[Candidate]:
    """The best few, ranked over all their seeds; one seed does not win against several.

    Only points with as many seeds as the most tried ones compete.

    Args:
        num_seeds: Seeds of the most tried points, less those that failed.
    """
    candidates = rank(trials, names)
    most = min(num_seeds, max((len(c.values) for c in candidates), default=0))
    return [candidate for candidate in candidates if len(candidate.values) >= most]


def pareto_front(values: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the pairs that no other pair beats in one figure without losing in the other."""
    front: list[int] = []
    highest = float("-inf")
    for index in sorted(range(len(values)), key=lambda i: (-values[i][0], -values[i][1], i)):
        if values[index][1] > highest:
            front.append(index)
            highest = values[index][1]
    return front


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCount:
    """One kind of stage in a sweep.

    Args:
        used: How often a trial needed one.
        different: How many there are; every other use found its result.
        seconds: What those took to make.
        naive_seconds: What they would have taken if every trial had made its own.
    """

    name: str
    used: int
    different: int
    seconds: float
    naive_seconds: float


def count_stages(trials: Iterable[Trial]) -> list[StageCount]:
    """What the finished trials needed, and what sharing it saved, in the order of the stages."""
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
