"""Tables of measured figures next to the paper's: means, spreads, gaps and output formats."""

import csv
import io
import json

import pytest

from distributed_avel.report.page_data import Spread
from distributed_avel.report.paper import TABLES, PaperTable
from distributed_avel.report.reproduction import (
    Measured,
    MeasuredTable,
    Reproduction,
    render_reproduction,
    shown_table,
    table_csv,
    table_figures,
    table_markdown,
)

ABLATION = next(table for table in TABLES if table.number == 3)
SEEDS = {0: {"accuracy": 70.0, "non_ave_f1": 10.0}, 1: {"accuracy": 72.0, "non_ave_f1": 16.0}}


def metrics_of(accuracy: float) -> dict[str, float]:
    return {name: accuracy + number for number, name in enumerate(ABLATION.metrics)}


def measured(table: PaperTable, by_name: dict[str, dict], **notes: str) -> MeasuredTable:
    rows = [
        Measured(
            row=row,
            by_seed=by_name.get(row.name, {}),
            notes=(notes[row.name],) if row.name in notes else (),
        )
        for row in table.rows
    ]
    return MeasuredTable(paper=table, rows=tuple(rows))


def reproduction(
    table: MeasuredTable, dataset="ave_features", seeds=(0, 1), loss="soft_margin"
) -> Reproduction:
    train = {"base_epochs": 200, "retrain_epochs": 100, "batch_size": 64, "learning_rate": 1e-3}
    return Reproduction(
        dataset=dataset,
        synthetic=dataset == "synthetic",
        features="of the data set",
        seeds=seeds,
        loss=loss,
        tables=(table,),
        settings={
            "train": train,
            "refine": {"threshold": "validation", "labels": "hard", "window": 4, "stride": 2},
        },
        provenance={"commit": "0123abc"},
    )


@pytest.fixture
def table() -> MeasuredTable:
    """A table with AVE and AVE+A+LR over two seeds, and no measurements of other rows."""
    found = {"AVE": {0: metrics_of(50.0), 1: metrics_of(53.0)}, "AVE+A+LR": {0: metrics_of(60.0)}}
    return measured(ABLATION, found, **{"AVE+LR": "not computed: <b>why</b>"})


def test_mean_and_standard_deviation_of_a_worked_example():
    row = Measured(row=ABLATION.rows[0], by_seed={**SEEDS, 2: {"accuracy": 77.0}})

    # mean 73; deviations -3, -1, 4; (9 + 1 + 16) / 2 = 13
    assert row.figure("accuracy") == Spread(73.0, pytest.approx(13**0.5), 3)
    assert row.figure("non_ave_f1") == Spread(13.0, pytest.approx(18**0.5), 2)


def test_one_seed_has_no_standard_deviation():
    row = Measured(row=ABLATION.rows[0], by_seed={7: SEEDS[0]})

    assert row.figure("accuracy") == 70.0


def test_a_figure_that_does_not_depend_on_the_seed_has_no_standard_deviation():
    row = Measured(row=ABLATION.rows[0], by_seed={0: SEEDS[0], 1: SEEDS[0]}, varies=False)

    assert row.figure("accuracy") == 70.0


def test_an_arm_that_was_not_measured_is_empty_next_to_the_papers_figure(table):
    found = reproduction(table)
    rows = {str(row[0]): row for row in shown_table(found, table).rows}

    assert table.rows[3].figure("accuracy") is None
    assert rows["AVE+LR"][1:3] == ("–", "69.1")
    assert rows["AVE+LR"][5:7] == ("–", "30.7 (25.3/39.1)")
    assert "AVE+LR: not computed: <b>why</b>" in table.notes


def test_the_mean_is_over_seeds_with_a_defined_figure_and_their_number_is_noted():
    by_seed = {seed: {"non_ave_precision": value} for seed, value in enumerate((None, 40.0, 50.0))}
    some = Measured(row=ABLATION.rows[0], by_seed=by_seed)
    none = Measured(row=ABLATION.rows[0], by_seed={0: by_seed[0]})

    assert some.figure("non_ave_precision") == Spread(45.0, pytest.approx(50**0.5), 2, 1)
    assert none.figure("non_ave_precision") is None


def test_an_undefined_figure_is_a_dash_null_and_an_empty_cell():
    undefined = {**metrics_of(50.0), "non_ave_precision": None}
    table = measured(ABLATION, {"AVE": {0: undefined, 1: undefined}})
    found = reproduction(table)

    assert shown_table(found, table).rows[0][5] == "52.0 ± 0.0 (53.0/–)"
    row = json.loads(json.dumps(found.to_json(), allow_nan=False))["tables"][0]["rows"][0]
    assert row["measured"]["non_ave_precision"] is None
    assert row["by_seed"]["0"]["non_ave_precision"] is None
    cells = next(csv.DictReader(io.StringIO(table_csv(found, table))))
    assert cells["Non-AVE P"] == cells["Non-AVE P sd"] == ""
    assert len(table_figures(found, table)) == 2
    render_reproduction(found)


def test_figures_are_formatted_as_in_the_paper_and_next_to_its_figures(table):
    found = reproduction(table)
    shown = shown_table(found, table)

    assert shown.columns[:3] == ("System", "Accuracy", "paper")
    assert shown.columns[5] == "Non-AVE F1 (R/P)"
    assert shown.rows[0][:3] == ("AVE", "51.5 ± 2.1", "67.1")
    assert shown.rows[0][5:7] == ("53.5 ± 2.1 (54.5/55.5)", "2.1 (1.1/25.8)")
    assert shown.rows[-1][1:3] == ("60.0", "70.2")


def test_on_other_data_the_papers_figures_are_separate_and_marked_not_comparable(table):
    found = reproduction(table, "synthetic")
    shown = shown_table(found, table)

    assert shown.columns.count("paper (on AVE, not comparable)") == 1
    assert "paper" not in shown.columns
    assert shown.rows[-1][-1] == "70.2 / 68.6 / 32.3 (25.5/43.9) / 76.4 (79.9/73.2)"
    assert "not comparable" in table_csv(found, table).splitlines()[0]


def test_markdown_names_the_data_and_the_setup_of_the_paper(table):
    text = table_markdown(reproduction(table, "synthetic"), table)

    for words in (
        "synthetic (synthetic data)",
        "seeds: 0, 1",
        "g: soft_margin",
        "commit: 0123abc",
        "the paper: AVE with VGG-19",
    ):
        assert words in text
    assert "no standard deviation" in table_markdown(reproduction(table, seeds=(3,)), table)


def test_with_another_g_a_table_is_a_variant_with_the_papers_figures_separate(table):
    found = reproduction(table, loss="cross_entropy")

    assert "g: cross_entropy (a variant; the paper's is soft_margin)" in found.context(table.paper)
    paper = "paper (with g soft_margin, not comparable)"
    assert shown_table(found, table).columns.count(paper) == 1
    assert found.to_json()["tables"][0]["paper_is_comparable"] is False
    both = reproduction(table, "synthetic", loss="cross_entropy")
    assert both.paper_heading(table.paper) == "paper (on AVE, with g soft_margin, not comparable)"


def test_every_format_of_a_table_names_g_and_the_rule_for_tau(table):
    found = reproduction(table)
    rule = "chosen to remove the share of window labels that is wrong on validation"
    by_row = {
        "AVE": "", "AVE+PL": "", "AVE+LR_dummy": "", "AVE+A": "",
        "AVE+LR": rule, "AVE+A+LR": rule, "AVE+LR_alone": rule,
    }  # fmt: skip

    assert "- g: soft_margin\n" in table_markdown(found, table)
    assert f"- tau: {rule}" in table_markdown(found, table)
    assert f"tau: {rule.replace(chr(39), '&#39;')}" in render_reproduction(found)
    rows = list(csv.DictReader(io.StringIO(table_csv(found, table))))
    assert {row["System"]: row["tau"] for row in rows} == by_row
    assert {row["g"] for row in rows} == {"soft_margin"}
    shown = found.to_json()["tables"][0]
    assert shown["g"] == "soft_margin"
    assert {row["name"]: row["tau"] for row in shown["rows"]} == by_row


def test_unverified_models_are_grouped_and_marked_in_every_format():
    models = next(table for table in TABLES if table.number == 2)
    table = measured(models, {row.name: {0: metrics_of(50.0)} for row in models.rows})
    found, mark = reproduction(table, seeds=(0,)), "reimplemented from descriptions, unverified"

    names = [row[0] for row in shown_table(found, table).rows]
    assert names == [
        "AVE", "AVSDN", "CMRA", "PSP", "AVE+A+LR",
        f"{mark}:", "CMAN †", "AVFB †", "AVIN †", "AVT †",
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(table_csv(found, table))))
    shown = found.to_json()["tables"][0]["rows"]
    marked = {"CMAN", "AVFB", "AVIN", "AVT"}
    assert {r["System"].removesuffix(" †") for r in rows if r["mark"] == mark} == marked
    assert {row["name"] for row in shown if row["mark"] == mark} == marked
    assert f'<th scope="row">{mark}:</th>' in render_reproduction(found)
    assert all("CMAN †" in figure for figure in table_figures(found, table))


def test_csv_has_all_digits_the_spread_and_the_papers_figure_of_every_metric(table):
    rows = list(csv.DictReader(io.StringIO(table_csv(reproduction(table), table))))
    first, last = rows[0], rows[-1]

    assert (float(first["Accuracy"]), first["Accuracy paper"]) == (51.5, "67.1")
    assert float(first["Accuracy sd"]) == pytest.approx(3 / 2**0.5)
    assert (last["Accuracy sd"], last["Non-AVE R paper"]) == ("", "25.5")
    assert rows[3]["Accuracy"] == ""
    assert "not computed" in rows[3]["notes"]
    assert {(r["synthetic"], r["seeds"], r["g"], r["commit"]) for r in rows} == {
        ("False", "0 1", "soft_margin", "0123abc")
    }


def test_json_contains_the_figures_of_each_seed(table):
    rows = reproduction(table).to_json()["tables"][0]["rows"]

    assert rows[0]["by_seed"]["1"]["accuracy"] == 53.0
    assert rows[0]["measured"]["accuracy"]["mean"] == 51.5
    assert rows[3]["measured"]["accuracy"] is None
    assert rows[-1]["paper"]["accuracy"] == 70.2


def test_the_page_escapes_text_and_loads_no_resources(table):
    page = render_reproduction(reproduction(table))

    assert "&lt;b&gt;why" in page
    assert "<b>why" not in page
    assert "default-src 'none'" in page
    assert "[synthetic data]" not in page
    assert render_reproduction(reproduction(table, "synthetic")).count("[synthetic data]") == 2


def test_the_papers_figures_are_drawn_only_if_they_are_comparable(table):
    measured_here = table_figures(reproduction(table), table)
    elsewhere = table_figures(reproduction(table, "synthetic"), table)

    assert len(measured_here) == len(elsewhere) == 2
    assert measured_here[0].count('class="dot s0"') == 2  # AVE and AVE+A+LR were measured
    assert all('class="dot s0"' not in figure for figure in elsewhere)
    assert table_figures(reproduction(table), measured(ABLATION, {})) == []
