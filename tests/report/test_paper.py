"""The paper's figures, compared with a second transcription and checked for consistency."""

import pytest

from distributed_avel.arms import ARMS
from distributed_avel.method.windows import window_mask
from distributed_avel.metrics import parsing, segment
from distributed_avel.models import UNVERIFIED, model_class
from distributed_avel.models.base import PublishedModel
from distributed_avel.report.paper import TABLES, Experiment

BY_NUMBER = {table.number: table for table in TABLES}


def figures(number: int, name: str) -> dict[str, float]:
    return dict(next(row for row in BY_NUMBER[number].rows if row.name == name).paper)


def test_figures_equal_the_paper():
    refined = figures(3, "AVE+A+LR")
    assert [refined[m] for m in ("accuracy", "weighted_f1", "non_ave_f1")] == [70.2, 68.6, 32.3]
    assert figures(1, "GT-repeat") == {"accuracy": 82.2, "non_ave_f1": 0.0}
    assert figures(2, "AVT") == {"accuracy": 70.2}
    dummy = figures(3, "AVE+LR_dummy")
    assert (dummy["non_ave_recall"], dummy["non_ave_precision"]) == (0.3, 6.9)
    assert figures(4, "0.07") == {"accuracy": 68.7}
    assert figures(5, "PSP+A+LR")["ave_f1"] == 79.0
    assert (figures(6, "HAN+LR")["segment_v"], figures(6, "HAN+LR")["event_event"]) == (57.9, 49.2)
    assert figures(7, "2, 2 (5)")["non_ave_f1"] == 40.1


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"table {table.number}")
def test_f1_is_consistent_with_recall_and_precision(table):
    for row in table.rows:
        for kind in ("non_ave", "ave"):
            names = [f"{kind}_{figure}" for figure in ("f1", "recall", "precision")]
            if all(name in row.paper for name in names):
                f1, recall, precision = (row.paper[name] for name in names)
                # both are rounded to one decimal, which matters most if recall is near 0
                bounds = [
                    2 * (recall + d) * (precision + d) / (recall + precision + 2 * d)
                    for d in (-0.05, 0.05)
                ]
                assert bounds[0] - 0.06 <= f1 <= bounds[1] + 0.06, (row.name, kind)


def test_type_at_av_is_the_mean_of_its_three_metrics():
    for row in BY_NUMBER[6].rows:
        for level in parsing.LEVELS:
            parts = [row.paper.get(f"{level}_{kind}") for kind in ("a", "v", "av")]
            if None not in parts:
                assert row.paper[f"{level}_type"] == pytest.approx(sum(parts) / 3, abs=0.11)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"table {table.number}")
def test_every_row_has_metrics_of_its_table_and_a_source(table):
    assert len({row.name for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert (
            set(row.paper)
            <= set(table.metrics)
            <= {*segment.SEGMENT_METRICS, *parsing.PARSING_METRICS}
        )
        assert row.source == "weak labels" or row.source.arm in ARMS


def test_rows_of_reimplemented_models_are_marked():
    """Otherwise a difference from the paper would seem to come from another implementation."""
    for table in TABLES:
        for row in table.rows:
            if isinstance(row.source, Experiment):
                follows_text = not issubclass(model_class(row.source.model), PublishedModel)
                assert (row.mark == UNVERIFIED) == follows_text, row.name
                assert (UNVERIFIED in row.note) == follows_text, row.name


def test_the_number_of_windows_in_a_name_matches_window_and_stride():
    for row in BY_NUMBER[7].rows:
        assert isinstance(row.source, Experiment)
        assert row.source.windows is not None
        window, stride = row.source.windows
        assert row.name == f"{window}, {stride} ({len(window_mask(10, window, stride))})"
