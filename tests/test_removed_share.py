"""tau by prevalence: requested and achieved shares of removed labels."""

import numpy as np
import pytest

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.method.pseudo_labels import RemovedShare
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages import thresholds
from distributed_avel.stages.report import REPORT
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.thresholds import share_metrics

pytestmark = pytest.mark.timeout(200)

CASES = [("synthetic_easy", "ave", "LR", "refined"), ("synthetic_llp", "han", "MA", "exchanged")]


def pipeline(root, dataset="synthetic_easy", model="ave", arm="LR", **refine) -> Pipeline:
    section, event_free = (dataset, 0) if dataset == "synthetic_llp" else ("synthetic", 4)
    sizes = {"num_train": 20, "num_event_free": event_free, "num_val": 20, "num_test": 6}
    config = validate(
        {
            "run_dir": str(root),
            "arms": [arm],
            "data": {"dataset": dataset, section: sizes},
            "model": {"name": model, "hidden_size": 4},
            "train": {"base_epochs": 2, "retrain_epochs": 1},
            "refine": {"partners": "disjoint", **refine},
        },
        "test",
    )
    return Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))


def share_by_a_loop(run: Pipeline, scored, columns: range, tau: float) -> float:
    """Return the share of training window labels whose probability is below tau, by a loop."""
    training = run.usable("train")
    scores_VWK = run.refine(False, scored).scores(training)
    targets_VK = run.task.targets(run.videos, training)
    pairs = removed = 0
    for video, window in np.ndindex(scores_VWK.shape[:2]):
        for column in columns:
            if targets_VK[video, column]:
                pairs += 1
                removed += float(scores_VWK[video, window, column]) < tau
    return removed / pairs


@pytest.mark.parametrize(("dataset", "model", "arm", "scored"), CASES)
def test_step_2_records_the_removed_share_of_each_modality(tmp_path, dataset, model, arm, scored):
    run = pipeline(tmp_path, dataset, model, arm)

    manifest = run.refine(False, scored).ensure().manifest

    parts, shares = run.task.parts, manifest.removed_share
    curves = run.refine(False, scored).threshold_curves()
    num_columns = run.task.targets(run.videos, run.usable("train")).shape[1] // len(parts)
    assert list(shares) == list(parts)
    for number, part in enumerate(parts):
        start = number * num_columns
        columns = range(start, start + num_columns - run.task.background)
        tau = manifest.threshold[part] if len(parts) > 1 else manifest.threshold
        assert shares[part].achieved == pytest.approx(share_by_a_loop(run, scored, columns, tau))
        assert shares[part].requested == curves[part].absent_share


def test_a_tau_that_misses_the_requested_share_is_reported_in_one_line(
    tmp_path, capsys, monkeypatch
):
    """Example: all training windows have probabilities above the largest tau of the grid."""
    monkeypatch.setattr(thresholds, "threshold_grid", lambda: np.array([1e-6, 2e-6]))
    run = pipeline(tmp_path)

    run.retrain(False).ensure()

    share = run.refine(False).manifest.removed_share["event"]
    assert share.achieved == 0.0
    (line,) = [row for row in capsys.readouterr().err.splitlines() if "WARNING: event" in row]
    assert f"tau should remove {share.requested:.1%} of the labels" in line
    assert "removes 0.0%" in line
    assert "set refine.threshold" in line
    warning = line.partition("WARNING: ")[2]
    assert run.retrain(False).share_warnings() == [warning]
    assert warning in (run.report().ensure().location / REPORT).read_bytes().decode()
    for other in ({"threshold": 0.5}, {"threshold": "screened"}, {"labels": "soft"}):
        assert pipeline(tmp_path, **other).retrain(False).share_warnings() == []


def test_metric_names_contain_the_modality_if_there_are_several():
    share = RemovedShare(requested=0.25, achieved=0.2)

    assert share_metrics({"event": share}) == {
        "removed_share_requested": 0.25,
        "removed_share_achieved": 0.2,
    }
    assert set(share_metrics({"audio": share, "visual": share})) == {
        f"removed_share_{kind}_{part}"
        for kind in ("requested", "achieved")
        for part in ("audio", "visual")
    }
