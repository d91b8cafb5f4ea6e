"""Weights that the authors of a model published, loaded into ours.

Our parameters have other names than theirs; each model says which is which. Sizes follow from
the shapes, so that a network trained on other features, or with other widths, loads too.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distributed_avel.errors import WeightsError
from distributed_avel.models.base import BaseModel, PublishedModel, model_class


def load_reference(name: str, state_dict: Mapping[str, Any]) -> BaseModel:
    """The base model `name` in eval mode, with the authors' weights in float32.

    Args:
        state_dict: The authors' parameters by their names: torch tensors or numpy arrays.
            The prefix `module.` of a DataParallel checkpoint is removed.

    Raises:
        WeightsError: Parameters are missing, unexpected or have impossible shapes; or the model
            follows text, so that there are no weights of its authors that could fit it.
    """
    cls = model_class(name)
    if not issubclass(cls, PublishedModel):
        raise WeightsError(
            f"{name} was reimplemented from the text, as its authors published no code: no weights "
            "of theirs fit it. Train it instead: avel run --model.name " + name
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
    model = cls(**cls.reference_sizes(shapes))
    ours = model.state_dict()
    _refuse(
        f"{name}: parameters whose shapes do not fit the others",
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
            "pass the state_dict itself, not the checkpoint around it"
        )
    return value.detach().to("cpu", torch.float32)


def _without_module_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(key.startswith("module.") for key in weights):
        return weights
    return {key.removeprefix("module."): weight for key, weight in weights.items()}


def _smallest(cls: type[BaseModel]) -> dict[str, Tensor]:
    """Our parameters at small sizes, without memory: names and axes do not depend on sizes."""
    with torch.device("meta"):
        model = cls(num_classes=2, visual_dim=2, audio_dim=2, regions=2, hidden_size=2)
    return model.state_dict()


def _their_name(cls: type[PublishedModel], own: str) -> str:
    for ours, theirs in cls.reference_names.items():
        if own == ours or own.startswith(f"{ours}."):
            return theirs + own.removeprefix(ours)
    raise KeyError(f"{cls.__name__}.reference_names does not say where {own} comes from")


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
    """Raise if there are problems, with all of them."""
    lines = [f"  {problem}" for problem in problems]
    if lines:
        raise WeightsError("\n".join([what, *lines]))
