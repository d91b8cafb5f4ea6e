"""tau by the paper's rule: screen candidates on validation windows, then take the best Step 3."""

from statistics import fmean

import numpy as np
import pyarrow.compute as pc
import pytest

from distributed_avel.arms import ARMS
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.errors import DatasetError
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.screen import best_by_step_3
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import CURVES_FILE, WEIGHTS, kept_validation
from distributed_avel.storage import Location

pytestmark = pytest.mark.timeout(200)


def pipeline(root, dataset="synthetic_easy", model="ave", arms=("A+LR",), num_val=20, **refine):
    section, event_free = (dataset, 0) if dataset == "synthetic_llp" else ("synthetic", 6)
    sizes = {"num_train": 40, "num_event_free": event_free, "num_val": num_val, "num_test": 8}
    config = validate(
        {
            "run_dir": str(root),
            "arms": list(arms),
            "data": {"dataset": dataset, section: sizes},
            "model": {"name": model, "hidden_size": 4},
            "train": {"base_epochs": 12, "retrain_epochs": 4},
            "refine": {"threshold": "screened", "num_candidates": 3, "screen_keep": 0.2, **refine},
        },
        "test",
    )
    return Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Pipeline:
    run = pipeline(tmp_path_factory.mktemp("screened"))
    run.evaluate().ensure()
    return run


def worth_a_step_3(run: Pipeline, keep: float) -> list[float]:
    """Return each tau whose Youden's index is at least `keep` times the best, by a loop."""
    curve = run.refine(True).threshold_curves()["event"]
    youden = [
        sensitivity + specificity - 1
        for sensitivity, specificity in zip(curve.sensitivity_G, curve.specificity_G, strict=True)
    ]
    return [
        float(tau)
        for tau, value in zip(curve.thresholds_G, youden, strict=True)
        if value >= keep * max(youden)
    ]


def last_validation(run: Pipeline, tau: float) -> float:
    """Return the criterion of the last epoch of Step 3 at a tau, from its learning curve."""
    fixed = pipeline(run.config.run_dir, threshold=tau)
    rows = (fixed.retrain(True).location / CURVES_FILE).read_table().to_pylist()
    last = {row["metric"]: row["value"] for row in rows if row["epoch"] == 3}
    return fmean([last["val/accuracy"], last["val/non_ave_f1"]])


def test_the_candidate_with_the_best_step_3_on_validation_is_chosen_and_recorded(run):
    manifest = run.screen(True).manifest

    candidates = [candidate.threshold for candidate in manifest.candidates]
    worth = worth_a_step_3(run, run.config.refine.screen_keep)
    assert len(candidates) == 3
    assert candidates[0] == pytest.approx(worth[0], abs=1e-6)
    assert candidates[-1] == pytest.approx(worth[-1], abs=1e-6)
    values = [last_validation(run, tau) for tau in candidates]
    assert [candidate.criterion for candidate in manifest.candidates] == values
    assert manifest.threshold == candidates[int(np.argmax(values))]
    assert manifest.criterion == ("accuracy", "non_ave_f1")


def test_the_arm_reuses_the_step_3_of_the_chosen_tau(run):
    tau = run.screen(True).manifest.threshold
    root = run.run_dir
    trained = {path.name for path in (root / "retrain").children()}

    arm = run.arm("A+LR").ensure()

    assert arm.manifest.threshold == tau
    fixed = pipeline(run.config.run_dir, threshold=tau)
    assert fixed.arm("A+LR").location == arm.location
    again = pipeline(run.config.run_dir)
    assert again.screen(True).ensure().location == run.screen(True).location
    assert {path.name for path in (root / "retrain").children()} == trained
    assert len(trained) == 3


def test_other_candidate_settings_change_the_key_of_the_screening_only(run):
    other = pipeline(run.config.run_dir, num_candidates=2)

    assert other.screen(True).fingerprint != run.screen(True).fingerprint
    assert other.refine(True).fingerprint == run.refine(True).fingerprint


def test_arms_without_tau_run_no_screening(run):
    for arm in ("PL", "LR_dummy"):
        assert ARMS[arm].has_threshold is False
        assert (run.arm(arm).ensure().location / WEIGHTS).exists()
    assert len((run.run_dir / "screen").children()) == 1


def test_parsing_has_one_tau_for_both_modalities(tmp_path):
    run = pipeline(tmp_path, "synthetic_llp", "han", ("MA",), partners="disjoint")

    chosen = run.arm("MA").ensure().manifest.threshold

    assert chosen == run.screen(False, "exchanged").manifest.threshold


def test_an_undefined_criterion_for_every_tau_is_an_error(run, tmp_path):
    """Example: a validation split without background, and no predicted background."""
    table = (run.arm("A+LR").location / CURVES_FILE).read_table()
    defined = table.filter(pc.field("metric") != "val/non_ave_f1")
    (Location.at(tmp_path) / CURVES_FILE).write_table(defined)

    curves = list(run.refine(True).threshold_curves().values())

    def retrain(tau: float) -> dict[str, float | None]:
        return kept_validation(Location.at(tmp_path), run.task, "last")

    with pytest.raises(DatasetError, match="accuracy and non_ave_f1 is undefined on the valid"):
        best_by_step_3(curves, run.config, run.task.criterion, retrain)
