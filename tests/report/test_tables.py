"""Tables of results as Markdown, CSV and terminal text."""

import csv
import io

import pytest

from distributed_avel import arms
from distributed_avel.metrics.parsing import PARSING_METRICS
from distributed_avel.metrics.segment import SEGMENT_METRICS
from distributed_avel.models import UNVERIFIED, model_names
from distributed_avel.report.page_data import Spread
from distributed_avel.report.tables import (
    Table,
    arm_notes,
    format_cell,
    heading,
    results_table,
    to_csv,
    to_markdown,
    to_terminal,
)

ARMS = {
    "AVE": {"non_ave_f1": 12.04, "accuracy": 70.06},
    "AVE+A+LR": {"accuracy": 70.09, "non_ave_f1": 55.5},
    "GT-repeat": {"accuracy": 82.21393, "non_ave_f1": 0.0},
}


def test_columns_are_in_the_order_of_the_paper():
    assert results_table(ARMS).columns == ("", "Accuracy", "Non-AVE F1")
    assert results_table(ARMS, ["non_ave_f1"]).columns == ("", "Non-AVE F1")
    assert results_table({"x": {"other_thing": 1.0, "accuracy": 2.0}}).columns == (
        "",
        "Accuracy",
        "other thing",
    )


def test_markdown_shows_one_decimal_and_the_best_model_in_bold():
    # 70.06 and 70.09 are equal after rounding, and baselines do not count as models
    assert to_markdown(results_table(ARMS)) == (
        "|  | Accuracy | Non-AVE F1 |\n"
        "| --- | ---: | ---: |\n"
        "| GT-repeat | 82.2 | 0.0 |\n"
        "| AVE | **70.1** | 12.0 |\n"
        "| AVE+A+LR | **70.1** | **55.5** |\n"
    )


def test_csv_keeps_all_digits():
    rows = list(csv.DictReader(io.StringIO(to_csv(results_table(ARMS)))))
    assert [float(row["Accuracy"]) for row in rows] == [82.21393, 70.06, 70.09]
    assert [row[""] for row in rows] == ["GT-repeat", "AVE", "AVE+A+LR"]  # naive ones first


def test_csv_has_a_separate_column_for_a_spread():
    table = results_table({"AVE": {"accuracy": Spread(70.25, 0.5, 3)}, "B": {"accuracy": 71.5}})
    assert to_csv(table) == ",Accuracy,Accuracy sd\nAVE,70.25,0.5\nB,71.5,\n"
    assert "70.2 ± 0.5" in to_markdown(table)


def test_an_undefined_figure_is_a_dash_and_never_the_best():
    table = results_table({"AVE": {"accuracy": 50.0}, "B": {"ave_f1": 10.0}})
    assert to_markdown(table).splitlines()[2:] == [
        "| AVE | **50.0** | – |",
        "| B | – | **10.0** |",
    ]


def test_the_terminal_table_has_every_figure_and_colour_on_request_only():
    text = to_terminal(results_table(ARMS))
    assert "\x1b" not in text
    for words in ("Results on the test split", "GT-repeat", "82.2", "55.5", "Non-AVE F1"):
        assert words in text
    assert "\x1b[1;32m55.5" in to_terminal(results_table(ARMS), color=True)


def test_names_that_look_like_markup_are_escaped():
    table = results_table({"a|b [red]": {"accuracy": 1.0}})
    assert "| a\\|b [red] |" in to_markdown(table)
    assert "a|b [red]" in to_terminal(table)


def test_every_metric_has_a_heading():
    for metric in (*SEGMENT_METRICS, *PARSING_METRICS):
        assert "_" not in heading(metric)
        assert heading(metric)[0].isupper()
    assert heading("event_type") == "Event Type@AV"
    assert heading("val/non_ave_f1") == "Non-AVE F1 (validation)"
    assert heading("train/total") == "Loss (training)"


def test_notes_are_given_for_known_arms_only():
    assert list(arm_notes(["GT-repeat", "AVE", "unknown"])) == ["GT-repeat", "AVE"]


@pytest.mark.parametrize("model", model_names())
def test_every_arm_of_every_model_has_a_note_that_names_its_step_1(model):
    labels = {arm: arms.arm_label(model, arm) for arm in arms.ARMS}
    notes = arm_notes([*labels.values(), f"{model.upper()}-repeat"])
    assert len(set(notes.values())) == len(arms.ARMS) + 1
    for arm, label in labels.items():
        plan = arms.ARMS[arm]
        step_1 = f"{model.upper()}+A" if plan.auxiliary else model.upper()
        assert (plan.scored is None) or f"{step_1} " in notes[label]
    words = "the base model, trained on video-level labels (Step 1)"
    assert notes[model.upper()].removesuffix(f"; {UNVERIFIED}") == words
    assert notes[f"{model.upper()}+A+LR"] == (
        f"retrained on the refined labels of {model.upper()}+A (Step 3)"
    )


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (None, "–"),
        (3, "3"),
        (0.05, "0.1"),
        ("AVE", "AVE"),
        (Spread(1.26, 0.34, 5), "1.3 ± 0.3"),
        (Spread(1.26, 0.34, 3, 2), "1.3 ± 0.3 [3 of 5 seeds]"),
        (Spread(1.26, None, 1, 4), "1.3 [1 of 5 seeds]"),
    ],
)
def test_cells_are_formatted_for_readers(cell, words):
    assert format_cell(cell) == words


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="has 1 cells, expected 2"):
        Table(title="t", columns=("", "a"), rows=(("x",),))


def test_every_format_of_a_table_names_g_and_tau():
    table = results_table(ARMS, conditions={"g": "soft_margin", "tau": "0.05, given"})

    for text in (to_terminal(table), to_markdown(table)):
        assert "g: soft_margin; tau: 0.05, given" in text
    header, *rows = to_csv(table).splitlines()
    assert header.endswith(",g,tau")
    assert all(row.endswith(',soft_margin,"0.05, given"') for row in rows)
    assert "g:" not in to_terminal(results_table(ARMS)) + to_markdown(results_table(ARMS))


def test_notes_name_deviations_of_arms_and_unverified_models():
    notes = arm_notes(["HAN+MA", "CMAN", "AVE"])

    assert "without the contrastive loss of Wu and Yang" in notes["HAN+MA"]
    assert "reimplemented from descriptions, unverified" in notes["CMAN"]
    assert "unverified" not in notes["AVE"]
