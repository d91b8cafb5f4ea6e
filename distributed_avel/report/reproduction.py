"""Tables of our results next to the paper's, as Markdown, CSV, JSON and an HTML page.

Our results are means and standard deviations over seeds. Every table names its data, g and tau. A
row that could not be measured stays empty and gives the reason; the paper's figure never replaces
ours. If the data set is not the paper's, the column heading says so, so that the information
survives when a table is copied.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from markupsafe import Markup

from distributed_avel.arms import ARMS
from distributed_avel.method.pseudo_labels import threshold_rule
from distributed_avel.metrics import parsing
from distributed_avel.metrics.segment import Metrics
from distributed_avel.report import svg
from distributed_avel.report.figures import WIDTH
from distributed_avel.report.page_data import Figure, Spread
from distributed_avel.report.paper import (
    COMPARABLE,
    PAPER_LOSS,
    SETTINGS,
    Experiment,
    PaperTable,
    TableRow,
)
from distributed_avel.report.tables import Table, format_cell, heading, to_markdown
from distributed_avel.report.templates import flatten, render
from distributed_avel.tasks.parsing import PARSING_LOSS

_DRAWN = ("accuracy", "non_ave_f1", "segment_av", "event_av")

BySeed = Mapping[int, Metrics]
"""Metrics of one row in percent, by seed; None if a metric is undefined (0/0)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Measured results of one row of a paper's table.

    Args:
        row: The row of the paper.
        by_seed: Metrics of each seed; empty if the row was not measured.
        varies: Whether the results depend on the seed.
        notes: Why the row was not measured, or remarks, such as the tau that was chosen.
    """

    row: TableRow
    by_seed: BySeed
    varies: bool = True
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the row, with a dagger if its model is not verified."""
        return f"{self.row.name} †" if self.row.mark else self.row.name

    def figure(self, metric: str) -> Figure | None:
        """Return the mean of a metric over the seeds, as a `Spread` if there are several.

        Seeds for which the metric is undefined are excluded from the mean and counted in
        `Spread.undefined`. The standard deviation is that of a sample (n - 1).

        Returns:
            None if the row was not measured or the metric is undefined for every seed.
        """
        values = self.values(metric)
        undefined = sum(metric in figures for figures in self.by_seed.values()) - len(values)
        if not values:
            return None
        if not self.varies or len(values) + undefined == 1:
            return values[0]
        sd = stdev(values) if len(values) > 1 else None
        return Spread(fmean(values), sd, len(values), undefined)

    def values(self, metric: str) -> list[float]:
        """Return the metric of each seed for which it is defined."""
        figures = [metrics.get(metric) for metrics in self.by_seed.values()]
        return [figure for figure in figures if figure is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredTable:
    """A table of the paper with the measured results of each row."""

    paper: PaperTable
    rows: tuple[Measured, ...]

    @property
    def name(self) -> str:
        """Name of its files, without the extension."""
        return f"table_{self.paper.number}"

    @property
    def notes(self) -> list[str]:
        """Notes on the rows, each with the name of the row."""
        return [
            f"{measured.row.name}: {note}"
            for measured in self.rows
            for note in (measured.row.note, *measured.notes)
            if note
        ]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """All tables, and the data and settings of their results.

    Args:
        dataset: Name of the data set.
        synthetic: Whether the data were generated; every table says so.
        features: Source of the features.
        seeds: Seeds of the runs.
        loss: g of localization models.
        tables: Tables.
        settings: Configuration; may be nested.
        provenance: Commit, versions and hardware.
    """

    dataset: str
    synthetic: bool
    features: str
    seeds: tuple[int, ...]
    loss: str
    tables: tuple[MeasuredTable, ...]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def is_comparable(self, table: PaperTable) -> bool:
        """Return True if the paper's figures are on the same videos and with the same g."""
        return self.dataset in COMPARABLE[table.data] and self.has_papers_loss(table)

    def has_papers_loss(self, table: PaperTable) -> bool:
        """Return True if the models of a table were trained with the paper's g."""
        return self.loss_of(table) in (PAPER_LOSS, PARSING_LOSS)

    def paper_heading(self, table: PaperTable) -> str:
        """Return the heading of the paper's figures; it says whether they are comparable."""
        differences = [] if self.dataset in COMPARABLE[table.data] else [f"on {table.data}"]
        differences += [] if self.has_papers_loss(table) else [f"with g {PAPER_LOSS}"]
        return f"paper ({', '.join(differences)}, not comparable)" if differences else "paper"

    @property
    def data(self) -> str:
        """Name of the data set, labelled if it is synthetic."""
        return f"{self.dataset} (synthetic data)" if self.synthetic else self.dataset

    def loss_of(self, table: PaperTable) -> str:
        """Return g of the models of a table; parsing models have their own."""
        return PARSING_LOSS if table.metrics == parsing.PARSING_METRICS else self.loss

    def context(self, table: PaperTable) -> list[str]:
        """Describe data, seeds and settings of a table and those of the paper, one per line."""
        train, refine = self.settings["train"], self.settings["refine"]
        tau = threshold_rule(refine["threshold"], refine["labels"])
        variant = (
            "" if self.has_papers_loss(table) else f" (a variant; the paper's is {PAPER_LOSS})"
        )
        return [
            f"data: {self.data}, features: {self.features}",
            _seeds(self.seeds),
            f"g: {self.loss_of(table)}{variant}",
            f"tau: {tau}, unless a row says otherwise",
            f"epochs: {train['base_epochs']} in Step 1 and {train['retrain_epochs']} in Step 3; "
            f"batches of {train['batch_size']}, Adam {train['learning_rate']:g}, N "
            f"{refine['window']}, s {refine['stride']} unless the table says otherwise",
            f"commit: {self.provenance['commit']}",
            SETTINGS[table.data],
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all tables as JSON-compatible values, with the metrics of each seed."""
        return {
            "dataset": self.dataset,
            "synthetic": self.synthetic,
            "seeds": list(self.seeds),
            "loss": self.loss,
            "tables": [self._table_json(table) for table in self.tables],
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
        }

    def threshold_rule_of(self, row: TableRow) -> str:
        """Return the rule for tau of a row, or "" if its arm has no threshold."""
        if not isinstance(row.source, Experiment) or not ARMS[row.source.arm].has_threshold:
            return ""
        refine = self.settings["refine"]
        if row.source.threshold is not None:
            return threshold_rule(row.source.threshold, refine["labels"])
        return threshold_rule(refine["threshold"], refine["labels"])

    def _table_json(self, table: MeasuredTable) -> dict[str, Any]:
        metrics = table.paper.metrics
        return {
            "number": table.paper.number,
            "title": table.paper.title,
            "context": self.context(table.paper),
            "g": self.loss_of(table.paper),
            "paper_is_comparable": self.is_comparable(table.paper),
            "rows": [
                {
                    "name": measured.row.name,
                    "measured": {metric: _json(measured.figure(metric)) for metric in metrics},
                    "by_seed": {str(s): dict(m) for s, m in measured.by_seed.items()},
                    "tau": self.threshold_rule_of(measured.row),
                    "mark": measured.row.mark,
                    "paper": dict(measured.row.paper),
                    "notes": [note for note in (measured.row.note, *measured.notes) if note],
                }
                for measured in table.rows
            ],
        }


def shown_table(reproduction: Reproduction, table: MeasuredTable) -> Table:
    """Format a table for display, with recall and precision in brackets after their F1.

    If the paper's figures are comparable, each is next to ours; otherwise they share the last
    column.
    """
    groups = list(_groups(table.paper.metrics))
    is_comparable = reproduction.is_comparable(table.paper)
    paper = reproduction.paper_heading(table.paper)
    columns = [table.paper.first_column]
    for group in groups:
        columns += [heading(group[0]) + (" (R/P)" if len(group) > 1 else "")]
        columns += [paper] if is_comparable else []
    rows = []
    for measured in table.rows:
        if measured.row.mark and not any(row[0] == f"{measured.row.mark}:" for row in rows):
            width = len(columns) + (0 if is_comparable else 1)
            rows.append([f"{measured.row.mark}:", *[""] * (width - 1)])
        cells = [measured.name]
        for group in groups:
            cells.append(_cell([measured.figure(metric) for metric in group]))
            cells += [_paper_cell(measured.row, group)] if is_comparable else []
        rows.append(cells if is_comparable else [*cells, _paper_cells(measured.row, groups)])
    title = f"Table {table.paper.number}: {table.paper.title}"
    columns += [] if is_comparable else [paper]
    return Table(title=title, columns=tuple(columns), rows=tuple(map(tuple, rows)))


def table_markdown(reproduction: Reproduction, table: MeasuredTable) -> str:
    """Format a table as a Markdown document, with its data, settings and notes."""
    formatted = shown_table(reproduction, table)
    lines = [f"# {formatted.title}", ""]
    lines += [f"- {line}" for line in reproduction.context(table.paper)]
    lines += ["", to_markdown(formatted)]
    lines += [f"- {note}" for note in table.notes]
    return "\n".join(lines).rstrip() + "\n"


def table_csv(reproduction: Reproduction, table: MeasuredTable) -> str:
    """Format a table as CSV with all digits.

    Each metric has its mean, standard deviation and the paper's figure; the last columns repeat
    the data and the settings in every row.
    """
    paper, commit = reproduction.paper_heading(table.paper), reproduction.provenance["commit"]
    header = [table.paper.first_column]
    for metric in table.paper.metrics:
        header += [heading(metric), f"{heading(metric)} sd", f"{heading(metric)} {paper}"]
    header += ["mark", "data set", "synthetic", "seeds", "g", "tau", "commit"]
    header += ["paper's settings", "notes"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for measured in table.rows:
        cells: list[Any] = [measured.name]
        for metric in table.paper.metrics:
            figure = measured.figure(metric)
            mean, sd = (figure.mean, figure.sd) if isinstance(figure, Spread) else (figure, None)
            cells += [mean, sd, measured.row.paper.get(metric)]
        cells += [measured.row.mark, reproduction.dataset, reproduction.synthetic]
        cells += [" ".join(map(str, reproduction.seeds)), reproduction.loss_of(table.paper)]
        cells.append(reproduction.threshold_rule_of(measured.row))
        notes = "; ".join(note for note in (measured.row.note, *measured.notes) if note)
        writer.writerow([*cells, commit, SETTINGS[table.paper.data], notes])
    return text.getvalue()


def render_reproduction(reproduction: Reproduction) -> str:
    """Render all tables as one self-contained HTML page."""
    return render(
        "reproduction.html",
        reproduction,
        tables=[
            (
                table,
                shown_table(reproduction, table),
                list(map(Markup, table_figures(reproduction, table))),
            )
            for table in reproduction.tables
        ],
        sections=[
            *((table.name, f"Table {table.paper.number}") for table in reproduction.tables),
            ("settings", "Settings"),
        ],
        settings=[*flatten(reproduction.settings), *flatten(reproduction.provenance)],
    )


def table_figures(reproduction: Reproduction, table: MeasuredTable) -> list[str]:
    """Draw the main metrics of a table: mean, standard deviation and seeds of each row.

    The paper's figures are drawn if they are comparable.
    """
    drawn = [metric for metric in _DRAWN if metric in table.paper.metrics]
    with_paper = reproduction.is_comparable(table.paper)
    rows = {m: [row for row in table.rows if row.values(m)] for m in drawn}
    return [_dots(rows[metric], metric, with_paper) for metric in drawn if rows[metric]]


def _dots(rows: Sequence[Measured], metric: str, with_paper: bool) -> str:
    left = 16 + svg.CHARACTER_WIDTH * max(len(measured.name) for measured in rows)
    values = [value for measured in rows for value in measured.values(metric)]
    if with_paper:
        values += [m.row.paper[metric] for m in rows if metric in m.row.paper]
    for measured in rows:
        if isinstance(figure := measured.figure(metric), Spread):
            values += [figure.mean - (figure.sd or 0.0), figure.mean + (figure.sd or 0.0)]
    ticks = svg.nice_ticks(min(values), max(values))
    ticks = ticks if len(ticks) > 1 else [ticks[0] - 1, ticks[0] + 1]
    step, top = 22, 8
    axes = svg.Axes(
        left=left,
        top=top,
        width=WIDTH - left - 14,
        height=step * len(rows),
        x_ticks=ticks,
        y_ticks=(0, 1),
    )
    bottom = top + axes.height
    parts = []
    for tick in ticks:
        x = axes.x(tick)
        parts.append(svg.element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(svg.text(x, bottom + 14, f"{tick:g}", anchor="middle", class_="tick"))
    for number, measured in enumerate(rows):
        y, figure = top + step * (number + 0.5), measured.figure(metric)
        parts.append(svg.text(left - 8, y + 4, measured.name, anchor="end", class_="name"))
        mean = figure.mean if isinstance(figure, Spread) else figure
        if mean is None:
            continue
        if isinstance(figure, Spread):
            sd = figure.sd or 0.0
            ends = {"x1": axes.x(mean - sd), "x2": axes.x(mean + sd)}
            parts.append(svg.element("line", **ends, y1=y, y2=y, class_="line s2"))
            for seed, figures in measured.by_seed.items():
                if (value := figures.get(metric)) is None:
                    continue
                tooltip = svg.title(f"{measured.row.name}, seed {seed}: {value:.2f}")
                circle = {"cx": axes.x(value), "cy": y, "r": 2}
                parts.append(svg.element("circle", tooltip, **circle, class_="dot s7"))
        tooltip = svg.title(f"{measured.row.name}: {format_cell(figure)}")
        parts.append(svg.element("circle", tooltip, cx=axes.x(mean), cy=y, r=4, class_="dot s2"))
        if with_paper and metric in measured.row.paper:
            published = measured.row.paper[metric]
            tooltip = svg.title(f"{measured.row.name}, the paper: {published:.1f}")
            circle = {"cx": axes.x(published), "cy": y, "r": 4}
            parts.append(svg.element("circle", tooltip, **circle, class_="dot s0"))
    middle = left + axes.width / 2
    name = f"{heading(metric)}, percent"
    parts.append(svg.text(middle, bottom + 32, name, anchor="middle"))
    return svg.figure(WIDTH, bottom + 38, *parts, label=name)


def _groups(metrics: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Group the metrics by column: an F1 with its recall and precision, or a single metric."""
    for metric in metrics:
        name = metric.removesuffix("_f1")
        if metric.endswith(("_recall", "_precision")):
            continue
        ratios = (f"{name}_recall", f"{name}_precision")
        yield (metric, *ratios) if all(ratio in metrics for ratio in ratios) else (metric,)


def _cell(figures: Sequence[Figure | None]) -> str:
    first, *rest = figures
    text = format_cell(first)
    means = [figure.mean if isinstance(figure, Spread) else figure for figure in rest]
    if not means or (first is None and set(means) == {None}):
        return text
    return f"{text} ({'/'.join(map(format_cell, means))})"


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed: {seeds[0]}; no standard deviation"
    return f"seeds: {', '.join(map(str, seeds))}; mean ± standard deviation over seeds"


def _paper_cell(row: TableRow, group: Sequence[str]) -> str:
    return _cell([row.paper.get(metric) for metric in group])


def _paper_cells(row: TableRow, groups: Sequence[Sequence[str]]) -> str:
    """Format all figures of a row, such as 70.2 / 68.6 / 32.3 (25.5/43.9)."""
    return " / ".join(_paper_cell(row, group) for group in groups) if row.paper else "–"


def _json(figure: Figure | None) -> Any:
    return asdict(figure) if isinstance(figure, Spread) else figure
