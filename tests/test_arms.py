"""Every arm of the paper's ablation, trained for a moment on synthetic features."""

import json

import pytest

from distributed_avel.arms import ARMS
from distributed_avel.config import validate
from distributed_avel.pipeline import RESULTS, Pipeline, Place
from distributed_avel.runtime.tracking import untracked

pytestmark = pytest.mark.timeout(200)


def pipeline(root, **refine) -> Pipeline:
    sizes = {"num_train": 60, "num_event_free": 6, "num_val": 30, "num_test": 30}
    config = validate(
        {
            "run_dir": str(root),
            "arms": list(ARMS),
            "data": {"dataset": "synthetic", "synthetic": sizes},
            "model": {"hidden_size": 8},
            "train": {"base_epochs": 2, "retrain_epochs": 2},
            "refine": {"threshold": 0.3, **refine},
        },
        "test",
    )
    return Pipeline(config, untracked(), place=Place(here=True, quiet=True))


def test_every_arm_is_its_own_training_and_shares_the_stages_before_it(tmp_path):
    run = pipeline(tmp_path)

    arms = run.arms()
    run.publish()

    assert len({stage.location.uri for stage in arms.values()}) == len(ARMS)
    assert len(list(tmp_path.glob("base/*/DONE"))) == 2  # with and without the auxiliary loss
    assert len(list(tmp_path.glob("refine/*/DONE"))) == 3  # PL, LR, A+LR
    results = json.loads((tmp_path / RESULTS).read_text())["arms"]
    assert set(results) == {
        *("GT-repeat", "AVE-repeat", "AVE", "AVE+PL", "AVE+LR_dummy", "AVE+LR", "AVE+A"),
        "AVE+A+LR",
    }
    assert len({tuple(values.values()) for values in results.values()}) > 4


def test_soft_labels_and_several_partners_are_other_results(tmp_path):
    hard = pipeline(tmp_path)
    soft = pipeline(tmp_path, labels="soft")
    several = pipeline(tmp_path, num_partners=3)

    stages = [run.retrain(auxiliary=False) for run in (hard, soft, several)]

    assert len({stage.fingerprint for stage in stages}) == 3
    assert soft.refine(auxiliary=False).fingerprint == hard.refine(auxiliary=False).fingerprint
    scored = several.refine(auxiliary=False).location / "scores"
    partners = [
        row["partners"] for part in scored.children() for row in part.read_table().to_pylist()
    ]
    assert {len(drawn) for drawn in partners} == {3}
    assert stages[1].manifest()["threshold"] is None
