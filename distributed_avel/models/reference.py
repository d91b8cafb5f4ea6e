"""Load weights that the authors of a model published.

`PublishedModel.reference_names` maps our parameter names to theirs. Sizes are derived from the
shapes of the parameters, so weights of networks with other features or widths load, too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributed_avel.errors import WeightsError
from distributed_avel.models.base import BaseModel, PublishedModel, model_class


def load_reference(name: str, state_dict: Mapping[str, Any]) -> BaseModel:
    """Create a base model with the authors' weights, in float32 and eval mode.

    Args:
        name: Name of the base model.
        state_dict: Parameters by the authors' names, as torch tensors or numpy arrays. The prefix
            `module.` of a DataParallel checkpoint is removed.

    Raises:
        WeightsError: Parameters are missing, unexpected or have inconsistent shapes; or the model
            is reimplemented from a description, so that no published weights fit it.
    """
    cls = model_class(name)
    if not issubclass(cls, PublishedModel):
        raise WeightsError(
            f"{name} is reimplemented from a description, because its authors published no code: "
            f"no published weights fit it. Train it instead: avel run --model.name {name}"
        )
    weights = _without_module_prefix({key: _tensor(key, v) for key, v in state_dict.items()})
    smallest = _smallest(cls)
    theirs_by_ours = {own: _their_name(cls, own) for own in smallest}
    _check_names(name, cls, weights.keys(), set(theirs_by_ours.values()))

    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    num_axes = {theirs: smallest[own].ndim for own, theirs in theirs_by_ours.items()}
    _refuse(
        f"{name}: parameters with the wrong number of axes",
        (
            f"{key}: shape {shapes[key]}, expected {number} axes"
            for key, number in num_axes.items()
            if len(shapes[key]) != number
        ),
    )
    model = cls(**{**dict(cls.Config()), **cls.reference_sizes(shapes)})
    ours = model.state_dict()
    _refuse(
        f"{name}: parameters whose shapes do not match the others",
        (
            f"{theirs}: shape {shapes[theirs]}, expected {tuple(ours[own].shape)}"
            for own, theirs in theirs_by_ours.items()
            if shapes[theirs] != tuple(ours[own].shape)
        ),
    )
    model.load_state_dict({own: weights[theirs] for own, theirs in theirs_by_ours.items()})
    return model.float().eval()


def _tensor(key: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(value.copy())
    if not isinstance(value, Tensor):
        raise WeightsError(
            f"{key}: expected an array, got {type(value).__name__}; "
            "pass the state_dict, not the checkpoint that contains it"
        )
    return value.detach().to("cpu", torch.float32)


def _without_module_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(key.startswith("module.") for key in weights):
        return weights
    return {key.removeprefix("module."): weight for key, weight in weights.items()}


def _smallest(cls: type[BaseModel]) -> dict[str, Tensor]:
    """Return our parameters at minimal size on the meta device, for their names and axes."""
    with torch.device("meta"):
        sizes = {"num_classes": 2, "visual_dim": 2, "audio_dim": 2, "regions": 2, "hidden_size": 2}
        model = cls(**sizes, **dict(cls.Config()))
    return model.state_dict()


def _their_name(cls: type[PublishedModel], own: str) -> str:
    for ours, theirs in cls.reference_names.items():
        if own == ours or own.startswith(f"{ours}."):
            return theirs + own.removeprefix(ours)
    raise KeyError(f"{cls.__name__}.reference_names has no entry for {own}")


def _check_names(
    name: str, cls: type[PublishedModel], given: Iterable[str], needed: set[str]
) -> None:
    missing = sorted(needed.difference(given))
    unexpected = sorted(key for key in set(given) - needed if not _is_unused(cls, key))
    _refuse(
        f"{name}: not the authors' parameters",
        [f"missing: {key}" for key in missing] + [f"unexpected: {key}" for key in unexpected],
    )


def _is_unused(cls: type[PublishedModel], key: str) -> bool:
    return any(key == known or key.startswith(f"{known}.") for known in cls.reference_unused)


def _refuse(what: str, problems: Iterable[str]) -> None:
    """Raise an error that lists all problems, if there are any."""
    lines = [f"  {problem}" for problem in problems]
    if lines:
        raise WeightsError("\n".join([what, *lines]))
