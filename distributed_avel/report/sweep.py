"""A sweep as one self-contained page, and as plain data.

Every figure of the page is one of the validation split; the test split is the business of the
report of the run that was chosen.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from markupsafe import Markup

from distributed_avel.report.figures import standalone
from distributed_avel.report.sweep_figures import (
    Mark,
    cost,
    defined,
    heat_map,
    marks,
    parallel,
    trade_off,
)
from distributed_avel.report.tables import format_cell, heading
from distributed_avel.report.templates import flatten, render
from distributed_avel.search.selection import Candidate, StageCount, Trial, criterion
from distributed_avel.search.space import Windows, describe

_MOST_ROWS = 60


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """All that the page of a sweep shows.

    Args:
        synthetic: The data were generated; the page says so wherever it shows a figure.
        windows: Pairs of window and stride that were tried.
        metrics: All figures of a trial, in order.
        trade_off: Two of them, which are shown against each other.
        criterion: The mean of these metrics decided.
        seed: Of the search; the other seeds are those of the best few points.
        chosen: The best point over its seeds.
        finalists: Points with more than one seed, the best first.
        counts: Stages that the trials of the search shared.
        settings: The configuration of the sweep, which may be nested.
        conditions: What the figures depend on: g, and the rule for tau.
    """

    dataset: str
    synthetic: bool
    windows: tuple[Windows, ...]
    trials: tuple[Trial, ...]
    metrics: tuple[str, ...]
    trade_off: tuple[str, str]
    criterion: tuple[str, ...]
    seed: int
    chosen: Candidate
    finalists: tuple[Candidate, ...]
    counts: tuple[StageCount, ...]
    settings: Mapping[str, Any]
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> list[Trial]:
        """Trials of the search that have metrics, the best first."""
        found = [t for t in self.trials if t.metrics is not None and t.seed == self.seed]
        return sorted(found, key=lambda t: (-_number(self.value(t)), describe(t.point)))

    @property
    def failed(self) -> list[Trial]:
        """Trials that failed, with any seed."""
        return [trial for trial in self.trials if trial.error]

    @property
    def num_stopped(self) -> int:
        """Trials that were stopped early."""
        return sum(t.metrics is None and not t.error for t in self.trials)

    def value(self, trial: Trial) -> float | None:
        """The criterion of a finished trial; None where it is undefined."""
        assert trial.metrics is not None
        return criterion(trial.metrics, self.criterion)

    @property
    def marks(self) -> list[Mark]:
        """The finished trials of the search, as the figures take them."""
        return marks(self.finished, self.windows, self.chosen.point)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "dataset": self.dataset,
            "synthetic": self.synthetic,
            "split": "val",
            "conditions": dict(self.conditions),
            "criterion": list(self.criterion),
            "seed": self.seed,
            "chosen": {**asdict(self.chosen), "mean": self.chosen.mean, "sd": self.chosen.sd},
            "finalists": [{**asdict(c), "mean": c.mean, "sd": c.sd} for c in self.finalists],
            "stages": [asdict(count) for count in self.counts],
            "windows": [asdict(windows) for windows in self.windows],
            "trials": [asdict(trial) for trial in self.trials],
        }


def sweep_figures(report: SweepReport) -> dict[str, str]:
    """The figures as SVG files of their own, by name; none whose metrics no trial has."""
    return {name: standalone(figure) for name, figure in _figures(report).items()}


def render_sweep(report: SweepReport) -> str:
    """The whole page as text."""
    drawn = {name: Markup(figure) for name, figure in _figures(report).items()}
    return render(
        "sweep.html",
        report,
        heat_maps={name: figure for name, figure in drawn.items() if name in report.metrics},
        figures=drawn,
        describe=describe,
        heading=heading,
        format_cell=format_cell,
        metrics=report.metrics,
        rows=report.finished[:_MOST_ROWS],
        total_seconds=sum(count.seconds for count in report.counts),
        naive_seconds=sum(count.naive_seconds for count in report.counts),
        settings=list(flatten(report.settings)),
    )


def _number(value: float | None) -> float:
    """The criterion for an order in which an undefined one is the last."""
    return -math.inf if value is None else value


def _figures(report: SweepReport) -> dict[str, str]:
    shown = tuple(dict.fromkeys([*report.criterion, *report.trade_off]))
    others = tuple(metric for metric in report.metrics if metric not in shown)
    drawings: list[tuple[str, Callable[..., str], tuple[str, ...]]] = [
        ("parallel", lambda found, *metrics: parallel(found, metrics), shown),
        ("trade_off", trade_off, report.trade_off),
        *((f"cost_{metric}", cost, (metric,)) for metric in shown),
        *((metric, heat_map, (metric,)) for metric in (*shown, *others)),
    ]
    found = {name: defined(report.marks, *metrics) for name, _, metrics in drawings}
    return {name: draw(found[name], *metrics) for name, draw, metrics in drawings if found[name]}
