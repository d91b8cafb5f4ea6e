"""Published weights load, or the error says what is wrong with them."""

import pytest
import torch

from distributed_avel import models
from distributed_avel.errors import WeightsError
from distributed_avel.models.base import PublishedModel
from tests.models.examples import features, small_model
from tests.models.reference_weights import reference

WITH_CODE = [n for n in models.model_names() if issubclass(models.model_class(n), PublishedModel)]
FROM_TEXT = sorted(set(models.model_names()) - set(WITH_CODE))


def authors_state_dict(model: models.BaseModel) -> dict[str, torch.Tensor]:
    """Return the weights of one of our models under the authors' parameter names."""
    return {authors_name(model, own): weight for own, weight in model.state_dict().items()}


def authors_name(model: models.BaseModel, own: str) -> str:
    for ours, theirs in model.reference_names.items():
        if own == ours or own.startswith(ours + "."):
            return theirs + own[len(ours) :]
    raise AssertionError(f"{own} has no name of the authors")


@pytest.mark.parametrize("name", WITH_CODE)
@torch.no_grad()
def test_model_sizes_are_inferred_from_the_shapes(name):
    model = small_model(name)

    loaded = models.load_reference(name, authors_state_dict(model))

    assert torch.equal(loaded(*features(2)), model(*features(2)))


def test_a_data_parallel_checkpoint_loads():
    model = small_model("ave")
    wrapped = {f"module.{key}": weight for key, weight in authors_state_dict(model).items()}

    loaded = models.load_reference("ave", wrapped)

    assert torch.equal(loaded.head[0].weight, model.head[0].weight)


def test_the_model_is_ready_to_use_in_float32():
    weights = authors_state_dict(small_model("psp", torch.float64))

    loaded = models.load_reference("psp", {key: w.numpy() for key, w in weights.items()})

    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_the_model_does_not_share_memory_with_the_checkpoint():
    weights = authors_state_dict(small_model("ave"))
    loaded = models.load_reference("ave", weights)
    before = loaded.head[0].weight.clone()

    weights["L1.weight"].add_(1)

    assert torch.equal(loaded.head[0].weight, before)


def test_parameters_that_the_authors_do_not_use_may_be_missing():
    weights = reference("psp").weights
    used = {key: w for key, w in weights.items() if key not in ("temperature", "W1.weight")}

    assert len(used) == len(weights) - 2
    models.load_reference("psp", used)


def test_missing_and_unexpected_names_are_all_reported():
    weights = authors_state_dict(small_model("ave"))
    weights["L3.weight"] = weights.pop("L1.weight")
    weights.pop("affine_h.weight")

    with pytest.raises(WeightsError) as caught:
        models.load_reference("ave", weights)

    assert str(caught.value).splitlines()[1:] == [
        "  missing: L1.weight",
        "  missing: affine_h.weight",
        "  unexpected: L3.weight",
    ]


def test_shapes_that_contradict_each_other_are_reported():
    weights = authors_state_dict(small_model("ave"))
    weights["L1.bias"] = torch.zeros(63)

    with pytest.raises(WeightsError, match=r"L1\.bias: shape \(63,\), expected \(64,\)"):
        models.load_reference("ave", weights)


def test_a_parameter_with_too_few_axes_is_reported():
    weights = authors_state_dict(small_model("ave"))
    weights["affine_v.weight"] = torch.zeros(9)

    with pytest.raises(WeightsError, match=r"affine_v\.weight: shape \(9,\), expected 2 axes"):
        models.load_reference("ave", weights)


def test_a_nested_checkpoint_is_refused():
    with pytest.raises(WeightsError, match="state_dict: expected an array, got dict"):
        models.load_reference("ave", {"state_dict": {}, "epoch": 3})


@pytest.mark.parametrize("name", FROM_TEXT)
def test_a_reimplemented_model_has_no_published_weights_to_load(name):
    with pytest.raises(WeightsError, match=f"{name} is reimplemented.* Train it"):
        models.load_reference(name, small_model(name).state_dict())
