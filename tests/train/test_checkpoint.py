"""Weights and training state survive a round trip, and loading them runs no code."""

import pickle
from pathlib import Path

import pytest
import torch

from distributed_avel import models
from distributed_avel.errors import ArtifactError
from distributed_avel.train.checkpoint import (
    load_weights,
    state_from_bytes,
    state_to_bytes,
    weights_to_bytes,
)
from distributed_avel.train.loop import train_epoch
from distributed_avel.train.predict import segment_codes
from tests.models.examples import SIZES, features, small_model
from tests.train.examples import objective
from tests.train.test_loop import batches_of, optimizer_of, parameters

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", models.model_names())
def test_weights_survive_a_round_trip(name):
    trained, fresh = small_model(name, seed=1), small_model(name, seed=2)

    load_weights(fresh, weights_to_bytes(trained), "model.safetensors")

    assert all(map(torch.equal, trained.state_dict().values(), fresh.state_dict().values()))


def test_weights_of_another_model_are_refused_with_the_file_name():
    wider = models.create_model("ave", **{**SIZES, "hidden_size": 16})

    with pytest.raises(ArtifactError, match=r"base/model\.safetensors: not weights of this"):
        load_weights(wider, weights_to_bytes(small_model("ave")), "base/model.safetensors")


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x08" + bytes(20)])
def test_invalid_weights_are_refused_with_the_file_name(content):
    with pytest.raises(ArtifactError, match=r"model\.safetensors: not weights of this"):
        load_weights(small_model("ave"), content, "model.safetensors")


def test_a_restored_training_continues_exactly():
    batches = [batches_of(7, epoch=epoch) for epoch in range(4)]

    def train(step, optimizer, epochs) -> None:
        for epoch in epochs:
            train_epoch(step, batches[epoch], optimizer, CPU)

    whole, stopped, resumed = objective(torch.float64), objective(torch.float64), None
    train(whole, optimizer_of(whole), range(4))
    optimizer = optimizer_of(stopped)
    train(stopped, optimizer, range(2))
    curves = [{"epoch": 1, "metric": "train/mil", "value": 0.7}]
    saved = state_to_bytes(
        {"model": stopped.state_dict(), "optimizer": optimizer.state_dict(), "curves": curves}
    )

    resumed = objective(torch.float64, seed=9)
    state = state_from_bytes(saved, "state.pt")
    resumed.load_state_dict(state["model"])
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, optimizer, range(2, 4))

    assert torch.equal(parameters(resumed), parameters(whole))
    assert state["curves"] == curves


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_training_state_with_code_is_refused_without_running_it(tmp_path):
    traces = tmp_path / "traces"
    content = state_to_bytes({"model": {}, "extra": Malicious(traces)})

    with pytest.raises(ArtifactError, match=r"state\.pt: not a training state"):
        state_from_bytes(content, "state.pt")

    assert not traces.exists()
    pickle.loads(pickle.dumps(Malicious(traces)))  # shows that the planted object would run code
    assert traces.exists()


@pytest.mark.parametrize("place", [0, 40, -1])
def test_damaged_training_state_is_refused(place):
    content = bytearray(state_to_bytes({"model": {"weight": torch.ones(3)}}))
    content[place] ^= 1

    with pytest.raises(ArtifactError, match=r"state\.pt: the checkpoint is damaged"):
        state_from_bytes(bytes(content), "state.pt")
    with pytest.raises(ArtifactError, match="damaged"):
        state_from_bytes(b"", "state.pt")


# Inference


@pytest.mark.parametrize("name", models.model_names())
def test_codes_do_not_depend_on_the_batch_size(name):
    model = small_model(name, torch.float64).train()
    audio, visual = (x.numpy() for x in features(7, dtype=torch.float64))

    codes = [segment_codes(model, audio, visual, device=CPU, batch_size=n) for n in (1, 3, 7, 64)]

    for other in codes[1:]:
        torch.testing.assert_close(other, codes[0], rtol=0, atol=1e-12)
    assert not model.training
    assert not codes[0].requires_grad
