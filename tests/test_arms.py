"""Every arm of the paper's ablation, trained for two epochs on synthetic features."""

import json

import pytest

from distributed_avel.arms import ARMS, Arm
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import validate
from distributed_avel.errors import ConfigError
from distributed_avel.models import model_class, model_names
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.stages.report import RESULTS
from distributed_avel.stages.stage import Execution
from distributed_avel.stages.training import WEIGHTS

pytestmark = pytest.mark.timeout(200)


def pipeline(root, model: str = "ave", arms: list[str] | None = None, **refine) -> Pipeline:
    parses = model_class(model).task == "parsing"
    dataset, event_free = ("synthetic_llp", 0) if parses else ("synthetic", 4)
    sizes = {"num_train": 40, "num_event_free": event_free, "num_val": 20, "num_test": 20}
    config = validate(
        {
            "run_dir": str(root),
            "arms": arms or [a for a in ARMS if parses or not ARMS[a].needs_modalities],
            "data": {"dataset": dataset, dataset: sizes},
            "model": {"name": model, "hidden_size": 4},
            "train": {"base_epochs": 2, "retrain_epochs": 2},
            "refine": {"threshold": 0.3, **refine},
        },
        "test",
    )
    return Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))


@pytest.mark.parametrize("model", model_names())
def test_every_arm_is_a_separate_training_and_shares_earlier_stages(tmp_path, model):
    run = pipeline(tmp_path, model)

    arms = run.arms()
    publish(run)

    assert len({stage.location.uri for stage in arms.values()}) == len(run.config.arms)
    assert len(list(tmp_path.glob("base/*/DONE"))) == 2  # with and without the auxiliary loss
    scored = [ARMS[arm] for arm in run.config.arms if ARMS[arm].scored]
    assert len(list(tmp_path.glob("refine/*/DONE"))) == len(scored)
    results = json.loads((tmp_path / RESULTS).read_text())["arms"]
    name = model.upper()
    assert set(results) == {"GT-repeat", f"{name}-repeat", *arms}
    weights = {(stage.location / WEIGHTS).read_bytes() for stage in arms.values()}
    assert len(weights) >= 3  # two epochs leave little to refine, but these always differ
    for values in results.values():
        assert tuple(values) == run.task.metrics
        assert all(value is None or 0 <= value <= 100 for value in values.values())
        assert values[run.task.best_epoch] is not None


def test_soft_labels_and_several_partners_change_the_result(tmp_path):
    hard = pipeline(tmp_path)
    soft = pipeline(tmp_path, labels="soft")
    several = pipeline(tmp_path, num_partners=3)

    stages = [run.retrain(auxiliary=False).ensure() for run in (hard, soft, several)]

    assert len({stage.fingerprint for stage in stages}) == 3
    assert soft.refine(auxiliary=False).fingerprint == hard.refine(auxiliary=False).fingerprint
    scored = several.refine(auxiliary=False).location / "scores"
    partners = [
        row["partners"] for part in scored.children() for row in part.read_table().to_pylist()
    ]
    assert {len(drawn) for drawn in partners} == {3}
    assert stages[1].manifest.threshold is None


def test_a_new_arm_is_one_entry(tmp_path, monkeypatch):
    """Example: PL after a Step 1 with the auxiliary loss, which is in no paper."""
    arm = Arm(auxiliary=True, windows="segments", description="retrained on segments of {base}")
    monkeypatch.setitem(ARMS, "A+PL", arm)
    run = pipeline(tmp_path, arms=["PL", "A+PL"])

    publish(run)

    results = json.loads((tmp_path / RESULTS).read_text())["arms"]
    assert set(results) == {"GT-repeat", "AVE+PL", "AVE+A+PL"}
    weights = {(stage.location / WEIGHTS).read_bytes() for stage in run.arms().values()}
    assert len(weights) == 2
    assert "retrained on segments of AVE+A" in (tmp_path / "report.html").read_text()


def test_an_unknown_arm_is_refused_with_the_list_of_arms():
    with pytest.raises(ConfigError, match=r"arms: .*no arm 'A\+LLR'; there are: base, PL"):
        validate({"arms": ["base", "A+LLR"]}, "test")
