"""`model.weights`: Step 1 starts from a file of ours or of the authors, or only evaluates it."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import load_config
from distributed_avel.errors import ConfigError, WeightsError
from distributed_avel.models import create_model
from distributed_avel.pipeline import Pipeline
from distributed_avel.publish import publish
from distributed_avel.stages.stage import Execution
from tests.models.test_load_reference import authors_state_dict

NUM_CLASSES = 28
SIZES = {"num_classes": NUM_CLASSES, "audio_dim": 32, "visual_dim": 64, "regions": 9}


def pipeline(folder: Path, weights: Path | None, epochs: int = 0, arms=("base",), **model):
    config = load_config(
        run_dir=str(folder / "run"),
        arms=list(arms),
        data={
            "dataset": "synthetic",
            "synthetic": {"num_train": 24, "num_event_free": 4, "num_val": 12, "num_test": 12},
        },
        model={"hidden_size": 4, "weights": weights and str(weights), **model},
        train={"base_epochs": epochs, "retrain_epochs": 1},
        refine={"threshold": 0.3},
    )
    return Pipeline(config, untracked(), execution=Execution(in_process=True, quiet=True))


def trained(run: Pipeline) -> dict[str, torch.Tensor]:
    stage = run.base(auxiliary=False).ensure()
    return safetensors.torch.load((stage.location / "model.safetensors").read_bytes())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Pipeline:
    """A run whose Step 1 has three epochs."""
    return pipeline(tmp_path_factory.mktemp("first"), None, 3)


@pytest.fixture(scope="module")
def ours(run, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    safetensors.torch.save_file(trained(run), file)
    return file


def model_of(name: str, **sizes):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return create_model(name, **{**SIZES, "hidden_size": 4, **sizes})


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_zero_epochs_evaluate_weights_of_a_run(run, ours, tmp_path):
    evaluated = pipeline(tmp_path, ours)

    publish(evaluated)

    assert same(trained(evaluated), trained(run))
    publish(run)
    metrics = [each.evaluate().metrics()["AVE"] for each in (run, evaluated)]
    assert metrics[0] == metrics[1]
    stage = evaluated.base(auxiliary=False)
    assert stage.validation_metrics()["accuracy"] is not None
    assert (stage.location / "initial.safetensors").read_bytes() == (
        stage.location / "model.safetensors"
    ).read_bytes()
    condition = evaluated.report().results()["conditions"]["Step 1"]
    assert condition == f"given weights, sha256 {stage.source.sha256[:12]}, not trained"


def test_a_model_folder_of_a_run_is_a_source_of_weights(run, tmp_path):
    publish(run)
    folder = Path(run.run_dir.path) / "model"

    assert same(trained(pipeline(tmp_path, folder)), trained(run))


def test_training_continues_from_given_weights(ours, tmp_path):
    warm, cold = pipeline(tmp_path, ours, 1), pipeline(tmp_path, None, 1)

    weights = trained(warm)

    given = safetensors.torch.load_file(ours)
    assert not same(weights, given)
    distance = [
        sum((w[key] - given[key]).abs().sum() for key in given) for w in (weights, trained(cold))
    ]
    assert distance[0] < distance[1]
    assert warm.report().ensure().results()["conditions"]["Step 1"].endswith("trained further")


@pytest.mark.parametrize("name", ["ave", "psp"])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}])
def test_weights_by_the_names_of_the_authors_are_evaluated(tmp_path, name, wrap):
    model = model_of(name)
    file = tmp_path / "theirs.pth"
    torch.save(wrap({f"module.{k}": w for k, w in authors_state_dict(model).items()}), file)

    assert same(trained(pipeline(tmp_path, file, name=name)), model.state_dict())


def test_refinement_starts_from_evaluated_weights(ours, tmp_path):
    run = pipeline(tmp_path, ours, arms=("base", "LR"))

    publish(run)

    assert run.refine(auxiliary=False).base.fingerprint == run.base(auxiliary=False).fingerprint


def test_the_key_follows_the_content_of_the_file_and_not_its_place(ours, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(ours.read_bytes())

    def key(file: Path | None, epochs: int = 1) -> str:
        run = pipeline(tmp_path, file, epochs)
        run.features.ensure()
        return run.base(auxiliary=False).fingerprint

    assert key(ours) == key(copy) != key(None)
    changed = safetensors.torch.load_file(copy)
    changed["head.0.bias"][0] += 1
    safetensors.torch.save_file(changed, copy)
    assert key(copy) != key(ours)


def refusal(folder: Path, file: Path, **model) -> str:
    run = pipeline(folder, file, **model)
    with pytest.raises(WeightsError) as refused:
        run.base(auxiliary=False).ensure()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_of_another_model_is_refused_with_what_differs(ours, tmp_path):
    message = refusal(tmp_path, ours, hidden_size=8)
    assert "model.weights: " in message
    assert "audio_lstm.weight_ih_l0 has shape (16, 32), expected (32, 32)" in message
    assert "use the features and classes, model.hidden_size" in message
    message = refusal(tmp_path, ours, name="psp")
    assert "neither our parameters nor those of the authors: missing: " in message
    assert "not the parameters of cman: " in refusal(tmp_path, ours, name="cman")


def test_sizes_of_the_authors_are_named_with_the_settings_to_change(tmp_path):
    file = tmp_path / "theirs.pth"
    torch.save(authors_state_dict(model_of("ave", hidden_size=6, head_size=16)), file)
    message = refusal(tmp_path, file)
    assert "set --model.hidden-size 6, it is 4" in message
    assert "set --model.options.head-size 16, it is 64" in message
    torch.save(authors_state_dict(model_of("ave", audio_dim=12, num_classes=3)), file)
    message = refusal(tmp_path, file)
    assert "it has 12 audio features: use those of the authors, here are 32" in message
    assert "it has 3 event classes: use the classes of the authors, here are 28" in message
    assert "attention-size" not in message


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x80\x04N.", b"PK\x03\x04"])
def test_a_file_that_is_no_state_dict_is_refused_and_not_executed(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)

    assert "w.pt is not a file of weights (" in refusal(tmp_path, tmp_path / "w.pt")
    torch.save([1], tmp_path / "w.pt")
    assert "contains a list, expected the parameters" in refusal(tmp_path, tmp_path / "w.pt")
    assert "no such file" in refusal(tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("arms", "weights", "says"),
    [
        (("base",), None, "base_epochs is 0, and there is no model.weights to evaluate"),
        (("base", "A"), Path("x"), "the auxiliary loss of arm A would have no effect"),
    ],
)
def test_zero_epochs_need_weights_and_no_auxiliary_loss(tmp_path, arms, weights, says):
    with pytest.raises(ConfigError, match=says):
        pipeline(tmp_path, weights, arms=arms)
