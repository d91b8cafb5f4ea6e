"""The paper's tables on a small synthetic data set, a real Ray cluster and a real MLflow store."""

import csv
import json
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev

import pytest
from mlflow import MlflowClient

from distributed_avel.config import ReproduceConfig, validate
from distributed_avel.errors import ConfigError
from distributed_avel.metrics.parsing import PARSING_METRICS
from distributed_avel.metrics.segment import SEGMENT_METRICS
from distributed_avel.studies.tables import run_reproduce
from tests.ray.stores import store_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500), pytest.mark.usefixtures("ray_cluster")]


def settings(root: Path, **changes) -> ReproduceConfig:
    """Settings of a small run: 62 training videos, 1 epoch, fixed tau."""
    values = {
        "run_dir": str(root / "run"),
        "tables": [1, 3, 4, 7],
        "seeds": 2,
        "data": {
            "dataset": "synthetic",
            "synthetic": {"num_train": 56, "num_event_free": 6, "num_val": 28, "num_test": 28},
        },
        "model": {"hidden_size": 8},
        "train": {"base_epochs": 1, "retrain_epochs": 1, "cpus_per_worker": 1},
        "refine": {"threshold": 0.05},
        "tracking": {"uri": store_in(root)},
        **changes,
    }
    return validate(values, "test", ReproduceConfig)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster) -> Path:
    """The root folder of a run with Tables 1, 3, 4 and 7."""
    root = tmp_path_factory.mktemp("tables")
    run_reproduce(settings(root))
    return root


def tables_of(root: Path) -> dict[int, dict]:
    tables = json.loads((root / "run" / "tables" / "tables.json").read_text())["tables"]
    return {table["number"]: table for table in tables}


def rows_of(table: dict) -> dict[str, dict]:
    return {row["name"]: row for row in table["rows"]}


def done_markers(root: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (root / "run").glob("*/*/DONE")}


def test_shared_stages_of_tables_and_rows_are_computed_once(finished):
    stages = Counter(Path(path).parts[-3] for path in done_markers(finished))

    assert stages["data"] == stages["extract"] == 1
    assert stages["base"] == 2 * (1 + 4)  # alone, and with the auxiliary loss of 4 pairs of N, s
    assert stages["refine"] == 2 * (3 + 4)  # PL, LR_alone, LR, and A+LR with 4 pairs
    assert stages["retrain"] == 2 * (4 + 4 + 4)  # 4 without A; A+LR with 4 pairs and 4 more tau


def test_each_figure_is_the_mean_of_the_evaluated_seeds(finished):
    row = rows_of(tables_of(finished)[3])["AVE+A+LR"]
    evaluated = [
        json.loads(path.read_text()) for path in (finished / "run").glob("evaluate/*/metrics.json")
    ]

    assert sorted(row["by_seed"]) == ["0", "1"]
    for metric in SEGMENT_METRICS:
        values = [figures[metric] for figures in row["by_seed"].values()]
        shown = row["measured"][metric]
        if None in values:  # background was never predicted with that seed
            assert metric == "non_ave_precision"
            continue
        assert (shown["mean"], shown["sd"]) == pytest.approx((fmean(values), stdev(values)))
    for figures in row["by_seed"].values():
        assert figures in [found["AVE+A+LR"] for found in evaluated if "AVE+A+LR" in found]


def test_the_same_system_has_the_same_figures_in_every_table(finished):
    tables = tables_of(finished)
    same = [
        rows_of(tables[3])["AVE+A+LR"],
        rows_of(tables[4])["0.05"],
        rows_of(tables[4])["configured"],
        rows_of(tables[7])["4, 2 (4)"],
    ]

    assert all(row["by_seed"] == same[0]["by_seed"] for row in same)
    assert rows_of(tables[1])["AVE"]["by_seed"] == rows_of(tables[3])["AVE"]["by_seed"]


def test_gt_repeat_does_not_depend_on_the_seed(finished):
    measured = rows_of(tables_of(finished)[1])["GT-repeat"]["measured"]

    assert isinstance(measured["accuracy"], float)
    assert measured["non_ave_f1"] == 0.0


def test_each_file_marks_synthetic_data_and_the_paper_as_not_comparable(finished):
    folder = finished / "run" / "tables"
    names = {f"table_{n}.{kind}" for n in (1, 3, 4, 7) for kind in ("md", "csv")}

    assert {path.name for path in folder.iterdir()} == names | {"tables.json", "tables.html"}
    for number in (1, 3, 4, 7):
        text = (folder / f"table_{number}.md").read_text()
        assert "data: synthetic (synthetic data)" in text
        assert "paper (on AVE, with g soft_margin, not comparable)" in text
        assert "tau: 0.05, given" in text
        assert "seeds: 0, 1" in text
        assert "g: cross_entropy (a variant" in text
        assert "commit: " in text
        with (folder / f"table_{number}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["synthetic"] for row in rows} == {"True"}
        assert "Accuracy paper (on AVE, with g soft_margin, not comparable)" in rows[0]
    page = (folder / "tables.html").read_text()
    assert "These data are synthetic." in page
    assert page.count("<svg") == 1 + 2 * 3  # accuracy, and non-AVE F1 where a table has it
    assert "<script" not in page


def test_mlflow_contains_the_tables(finished):
    client = MlflowClient(f"sqlite:///{finished}/mlflow.db")
    experiment = client.get_experiment_by_name("distributed_avel")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.mlflow.runName LIKE 'tables%'")

    files = {file.path for file in client.list_artifacts(runs[0].info.run_id, "tables")}
    assert {"tables/table_3.md", "tables/tables.html"} <= files


def test_a_repeated_run_computes_nothing(finished):
    before = done_markers(finished)

    run_reproduce(settings(finished))

    assert done_markers(finished) == before


def test_rows_that_cannot_be_computed_are_empty_with_a_reason(finished):
    run_reproduce(settings(finished, tables=[2, 6], seeds=1, tracking={"enabled": False}))

    tables = tables_of(finished)
    parsing = rows_of(tables[6])
    assert all(row["by_seed"] == {} for row in parsing.values())
    assert "synthetic has no separate annotations" in parsing["HAN+LR"]["notes"][0]
    notes = parsing["weak label repeated"]["notes"]
    assert any("no separate annotations" in note for note in notes)
    models = rows_of(tables[2])
    assert all(row["by_seed"] for row in models.values())
    assert models["AVFB"]["mark"] == "reimplemented from descriptions, unverified"
    assert isinstance(models["PSP"]["measured"]["accuracy"], float)  # one seed has no spread


def test_every_row_with_a_tau_names_its_rule(finished):
    refine = {"threshold": "screened", "num_candidates": 2, "screen_keep": 0.0}
    made = settings(finished, tables=[4], seeds=1, refine=refine, tracking={"enabled": False})
    run_reproduce(made)

    rows = rows_of(tables_of(finished)[4])
    assert rows["0.05"]["tau"] == "0.05, given"
    assert rows["configured"]["tau"].startswith("the best of several Steps 3 on validation")
    (screened,) = (finished / "run" / "screen").glob("*/manifest.json")
    chosen = json.loads(screened.read_text())["threshold"]
    note = f"tau {chosen:.4g}, chosen on the validation split for seed 0"
    assert note in rows["configured"]["notes"]


def test_table_6_is_computed_if_modalities_are_annotated(tmp_path):
    sizes = {"num_train": 40, "num_val": 20, "num_test": 20}
    run_reproduce(
        settings(
            tmp_path,
            tables=[6],
            seeds=1,
            data={"dataset": "synthetic_llp", "synthetic_llp": sizes},
            model={"hidden_size": 4},
            refine={"threshold": 0.3, "partners": "disjoint"},
            by_model=["han:train.batch_size=16"],
            tracking={"enabled": False},
        )
    )

    rows = rows_of(tables_of(tmp_path)[6])
    assert list(rows) == ["weak label repeated", "HAN", "HAN+LR", "HAN+A+LR", "HAN+MA"]
    for row in rows.values():
        assert set(row["measured"]) == set(PARSING_METRICS)
        assert all(0 <= value <= 100 for value in row["measured"].values())
    assert "train.batch_size 16" in rows["HAN"]["notes"]
    page = (tmp_path / "run" / "tables" / "table_6.md").read_text()
    assert "g: binary cross-entropy" in page
    batches = {
        json.loads(path.read_text())["depends"]["settings"]["train"]["batch_size"]
        for path in (tmp_path / "run" / "base").glob("*/manifest.json")
    }
    assert batches == {16}


def test_a_failed_training_leaves_its_row_empty_and_the_others_continue(tmp_path):
    train = {"base_epochs": 1, "retrain_epochs": 1, "cpus_per_worker": 1, "learning_rate": 1e30}
    run_reproduce(settings(tmp_path, tables=[1], seeds=1, train=train))

    row = rows_of(tables_of(tmp_path)[1])["AVE"]
    assert row["by_seed"] == {}
    assert "loss is" in row["notes"][0]


def test_an_unknown_table_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="tables"):
        settings(tmp_path, tables=[8])
