"""Tables of results as terminal text, Markdown, CSV, and cells of an HTML page.

A `Table` stores numbers, not text: CSV writes all digits, the other formats one decimal.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from distributed_avel.arms import ARMS, arm_description, arm_label
from distributed_avel.metrics import parsing, segment
from distributed_avel.metrics.bootstrap import LEVEL, Interval
from distributed_avel.models import UNVERIFIED, is_verified, model_names
from distributed_avel.report.page_data import ClassScores, Figures, Spread

Cell = str | int | float | Spread | None
"""None is a metric that the row does not have or that is undefined (0/0)."""

_HEADINGS = {
    "total": "Loss",
    "accuracy": "Accuracy",
    "weighted_f1": "Weighted F1",
    "non_ave_f1": "Non-AVE F1",
    "non_ave_recall": "Non-AVE R",
    "non_ave_precision": "Non-AVE P",
    "ave_f1": "AVE F1",
    "ave_recall": "AVE R",
    "ave_precision": "AVE P",
    "event_f1": "Event F1",
    "map_30": "mAP@0.3",
    "map_50": "mAP@0.5",
    "map_70": "mAP@0.7",
    "map_mean": "mAP@0.1:0.9",
    "video_map": "Video mAP",
    "video_f1": "Video F1",
} | {
    f"{level}_{kind}": f"{level.capitalize()} {name}"
    for level in parsing.LEVELS
    for kind, name in zip(parsing.TYPES, ("A", "V", "AV", "Type@AV", "Event@AV"), strict=True)
}

_SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names the rows.

    Args:
        title: Title.
        columns: Headings.
        rows: Cells; one per column.
        conditions: What all figures depend on, such as g and the rule for tau; every output format
            includes them.

    Raises:
        ValueError: A row does not have one cell per column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def conditions_text(self) -> str:
        """The conditions in one line."""
        return "; ".join(f"{name}: {value}" for name, value in self.conditions.items())

    def __post_init__(self) -> None:
        """Check the lengths of the rows."""
        for row in self.rows:
            if len(row) != len(self.columns):
                num_columns = len(self.columns)
                raise ValueError(
                    f"{self.title}: row {row[:1]} has {len(row)} cells, expected {num_columns}"
                )

    def best(self, column: int) -> frozenset[int]:
        """Return the rows with the highest value of a column, baselines (`is_naive`) excluded.

        Values are compared as displayed, with one decimal, so that equal-looking cells tie.
        """
        displayed = {
            row: round(mean, 1)
            for row, cells in enumerate(self.rows)
            if (mean := _mean(cells[column])) is not None and not is_naive(str(cells[0]))
        }
        return frozenset(row for row, mean in displayed.items() if mean == max(displayed.values()))


def results_table(
    arms: Mapping[str, Figures],
    metrics: Sequence[str] | None = None,
    *,
    title: str = "Results on the test split, in percent",
    conditions: Mapping[str, str] | None = None,
) -> Table:
    """Build the table of results: arms in rows, baselines first, and metrics in columns.

    Args:
        arms: Metrics in percent by arm, such as `results["arms"]` of `results.json`.
        metrics: Metrics to show, in this order; by default all, in the order of the papers.
        title: See `Table`.
        conditions: See `Table`.
    """
    available = {metric: None for figures in arms.values() for metric in figures}
    if metrics is None:
        known = [m for m in (*segment.SEGMENT_METRICS, *parsing.PARSING_METRICS) if m in available]
        metrics = [*known, *(m for m in available if m not in known)]
    return Table(
        title=title,
        columns=("", *(heading(metric) for metric in metrics)),
        rows=tuple((arm, *(arms[arm].get(m) for m in metrics)) for arm in naive_first(arms)),
        conditions=conditions or {},
    )


def intervals_table(intervals: Mapping[str, Mapping[str, Interval | None]]) -> Table:
    """Build the table of metrics with their intervals: arms in rows, baselines first."""
    metrics = list(dict.fromkeys(metric for row in intervals.values() for metric in row))
    return Table(
        title=f"{LEVEL:.0%} bootstrap intervals",
        columns=("", *(heading(metric) for metric in metrics)),
        rows=tuple(
            (arm, *(format_interval(intervals[arm].get(metric)) for metric in metrics))
            for arm in naive_first(intervals)
        ),
    )


def interval_numbers(intervals: Mapping[str, Mapping[str, Interval | None]]) -> Table:
    """Build the table of all ends of intervals, a row for each arm and metric."""
    return Table(
        title=f"{LEVEL:.0%} bootstrap intervals",
        columns=("arm", "metric", "value", "low", "high"),
        rows=tuple(
            (arm, metric, found.value, found.low, found.high)
            for arm in naive_first(intervals)
            for metric, found in intervals[arm].items()
            if found is not None
        ),
    )


def class_table(class_scores: Mapping[str, Sequence[ClassScores]]) -> Table:
    """Build the table of the scores of each class, with three columns for each arm."""
    by_class = zip(*class_scores.values(), strict=True)
    return Table(
        title="Scores of each class",
        columns=(
            "",
            "Segments",
            *(f"{arm} {name}" for arm in class_scores for name in ("P", "R", "F1")),
        ),
        rows=tuple(
            (
                row[0].name,
                row[0].support,
                *(cell for scores in row for cell in (scores.precision, scores.recall, scores.f1)),
            )
            for row in by_class
        ),
    )


def format_interval(found: Interval | None) -> str:
    """Format a metric with its interval, such as `72.9 (70.1 to 75.2)`."""
    return "–" if found is None else f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def heading(metric: str) -> str:
    """Return the display name of a metric, such as `accuracy` or `val/accuracy`."""
    split, slash, name = metric.partition("/")
    if slash:
        return f"{heading(name)} ({_SPLITS.get(split, split)})"
    return _HEADINGS.get(metric, metric.replace("_", " "))


def arm_notes(arms: Iterable[str], repeated_over: str = "all segments") -> dict[str, str]:
    """Describe each arm and baseline in one line.

    Args:
        arms: Names of arms and baselines; unknown ones are omitted.
        repeated_over: What the baselines repeat the video-level label over.
    """
    notes = {"GT-repeat": f"the ground-truth video-level label, repeated over {repeated_over}"}
    for model in model_names():
        base = arm_label(model, "base")
        notes[f"{base}-repeat"] = (
            f"the video-level prediction of {base}, repeated over {repeated_over}"
        )
        notes |= {arm_label(model, arm): arm_description(model, arm) for arm in ARMS}
        if not is_verified(model):
            notes[base] += f"; {UNVERIFIED}"
    return {arm: notes[arm] for arm in naive_first(arms) if arm in notes}


def naive_first(arms: Iterable[str]) -> list[str]:
    """Move the baselines to the front and keep the order otherwise."""
    return sorted(arms, key=lambda arm: not is_naive(arm))


def is_naive(arm: str) -> bool:
    """Return True if a row is a baseline that repeats a video-level label over all segments."""
    return arm.endswith("-repeat")


def format_cell(cell: Cell) -> str:
    """Format a cell: numbers with one decimal, with the standard deviation if available."""
    match cell:
        case None:
            return "–"
        case Spread(mean=mean, sd=sd, count=count, undefined=undefined):
            spread = "" if sd is None else f" ± {sd:.1f}"
            seeds = f" [{count} of {count + undefined} seeds]" if undefined else ""
            return f"{mean:.1f}{spread}{seeds}"
        case float():
            return f"{cell:.1f}"
        case _:
            return str(cell)


def to_markdown(table: Table) -> str:
    """Format as Markdown; the best value of each column is bold."""
    best = [frozenset(), *(table.best(c) for c in range(1, len(table.columns)))]
    lines = [
        [_markdown(name) for name in table.columns],
        ["---", *("---:" for _ in table.columns[1:])],
    ]
    for index, row in enumerate(table.rows):
        cells = [_markdown(format_cell(cell)) for cell in row]
        lines.append([f"**{c}**" if index in best[i] else c for i, c in enumerate(cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    return f"{text}\n{_markdown(table.conditions_text)}\n" if table.conditions else text


def to_csv(table: Table) -> str:
    """Format as CSV with all digits.

    A column with spreads is followed by a column of standard deviations. The conditions are the
    last columns, with the same value in each row.
    """
    spreads = [any(isinstance(row[c], Spread) for row in table.rows) for c in _range(table)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = []
    for name, spread in zip(table.columns, spreads, strict=True):
        header += [name, f"{name} sd"] if spread else [name]
    writer.writerow([*header, *table.conditions])
    for row in table.rows:
        cells = []
        for cell, spread in zip(row, spreads, strict=True):
            mean, sd = (cell.mean, cell.sd) if isinstance(cell, Spread) else (cell, None)
            cells += [mean, sd] if spread else [mean]
        writer.writerow([*cells, *table.conditions.values()])
    return text.getvalue()


def to_terminal(table: Table, *, width: int = 100, color: bool = False) -> str:
    """Format for a terminal with rich; the best value of each column is highlighted."""
    drawn = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for column, name in enumerate(table.columns):
        drawn.add_column(_literal(name), justify="right" if column else "left")
    best = [frozenset(), *(table.best(c) for c in range(1, len(table.columns)))]
    for index, row in enumerate(table.rows):
        cells = [_literal(format_cell(cell)) for cell in row]
        cells = [f"[bold green]{c}[/]" if index in best[i] else c for i, c in enumerate(cells)]
        drawn.add_row(*cells, style="dim" if is_naive(str(row[0])) else "")
    console = Console(
        file=io.StringIO(),
        # Segment metrics together with video metrics do not fit into 100 characters.
        width=width if len(table.columns) < 11 else max(width, 130),
        force_terminal=color,
        color_system="standard" if color else None,
    )
    with console.capture() as capture:
        console.print(drawn)
        if table.conditions:
            console.print(_literal(table.conditions_text))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip() + "\n"


def _range(table: Table) -> range:
    return range(len(table.columns))


def _mean(cell: Cell) -> float | None:
    return cell.mean if isinstance(cell, Spread) else cell if isinstance(cell, float) else None


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _literal(text: str) -> str:
    return text.replace("[", "\\[")
