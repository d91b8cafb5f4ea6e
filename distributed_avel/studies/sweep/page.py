"""Report of a sweep, as a self-contained HTML page and as JSON.

All metrics on the page are on the validation split. Only the report of the chosen run shows the
test split.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from markupsafe import Markup

from distributed_avel.report.figures import standalone
from distributed_avel.report.tables import format_cell, heading
from distributed_avel.report.templates import flatten, render
from distributed_avel.search.selection import Candidate, StageCount, Trial, criterion
from distributed_avel.search.space import Windows, describe
from distributed_avel.studies.sweep.figures import (
    Mark,
    cost,
    defined,
    heat_map,
    marks,
    parallel,
    trade_off,
)

_MOST_ROWS = 60


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The data of the page of a sweep.

    Args:
        dataset: Name of the data set.
        synthetic: Whether the data were generated; the page then labels every figure synthetic.
        windows: Combinations of window and stride that were tried.
        trials: All trials.
        metrics: Metrics of a trial, in the order of the page.
        trade_off: Two metrics to plot against each other.
        criterion: Metrics whose mean ranks the points.
        seed: Seed of the search; other seeds repeat the best points.
        chosen: The best point over its seeds.
        finalists: Points with several seeds, the best first.
        counts: How often trials of the search used and computed each stage.
        settings: Configuration of the sweep; may be nested.
        conditions: What the metrics depend on: g and the rule for tau.
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
        """Finished trials of the search, the best first."""
        finished = [t for t in self.trials if t.metrics is not None and t.seed == self.seed]
        return sorted(finished, key=lambda t: (-_sort_key(self.value(t)), describe(t.point)))

    @property
    def failed(self) -> list[Trial]:
        """Failed trials, of any seed."""
        return [trial for trial in self.trials if trial.error]

    @property
    def num_stopped(self) -> int:
        """Number of trials that were stopped early."""
        return sum(t.metrics is None and not t.error for t in self.trials)

    def value(self, trial: Trial) -> float | None:
        """Return the criterion of a finished trial, or None if it is undefined."""
        assert trial.metrics is not None
        return criterion(trial.metrics, self.criterion)

    @property
    def marks(self) -> list[Mark]:
        """Finished trials of the search, as input of the figures."""
        return marks(self.finished, self.windows, self.chosen.point)

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as JSON-compatible values."""
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
    """Return the figures as SVG files, by name; those without a trial to show are omitted."""
    return {name: standalone(figure) for name, figure in _figures(report).items()}


def render_sweep(report: SweepReport) -> str:
    """Return the page as HTML."""
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


def _sort_key(value: float | None) -> float:
    """Map an undefined criterion to minus infinity, so that it sorts last."""
    return -math.inf if value is None else value


def _figures(report: SweepReport) -> dict[str, str]:
    main_metrics = tuple(dict.fromkeys([*report.criterion, *report.trade_off]))
    others = tuple(metric for metric in report.metrics if metric not in main_metrics)
    drawings: list[tuple[str, Callable[..., str], tuple[str, ...]]] = [
        ("parallel", lambda selected, *metrics: parallel(selected, metrics), main_metrics),
        ("trade_off", trade_off, report.trade_off),
        *((f"cost_{metric}", cost, (metric,)) for metric in main_metrics),
        *((metric, heat_map, (metric,)) for metric in (*main_metrics, *others)),
    ]
    by_figure = {name: defined(report.marks, *metrics) for name, _, metrics in drawings}
    return {
        name: draw(by_figure[name], *metrics) for name, draw, metrics in drawings if by_figure[name]
    }
