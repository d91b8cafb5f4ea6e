"""Weights from a file, with which Step 1 starts (`model.weights`).

The file has the parameters of a base model by our names, such as `model.safetensors` of a run, or
by the names of the authors' code. Reading it executes nothing.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from distributed_avel.errors import ArtifactError, StorageError, WeightsError
from distributed_avel.features.weights import read_state_dict
from distributed_avel.models import BaseModel, load_reference
from distributed_avel.models.base import PublishedModel
from distributed_avel.storage import Location
from distributed_avel.train.checkpoint import weights_to_bytes
from distributed_avel.train.model_recipe import ModelRecipe

_KEY = "model.weights"
_IN_A_FOLDER = "model.safetensors"
_MAX_LISTED = 8


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """A file of weights: its name, its content, and the sha256 of the content."""

    name: str
    content: bytes
    sha256: str


def read_source(place: str) -> WeightsSource:
    """Read a file of weights, or `model.safetensors` of a model folder.

    Raises:
        WeightsError: There is no such file.
        StorageError: It cannot be read.
    """
    location = Location.at(place)
    try:
        if (location / _IN_A_FOLDER).exists():
            location = location / _IN_A_FOLDER
        content = location.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise WeightsError(
            f"{_KEY}: {location}: no such file; give a file of weights or a model folder"
        ) from None
    except (OSError, ArtifactError) as error:
        raise StorageError(f"{_KEY}: {location} cannot be read ({error})") from None
    return WeightsSource(str(location), content, hashlib.sha256(content).hexdigest())


def initial_weights(source: WeightsSource, recipe: ModelRecipe) -> bytes:
    """Convert a file of weights to the weights of a model, as `checkpoint.load_weights` reads them.

    Args:
        source: Parameters by our names or by those of the authors.
        recipe: The model.

    Raises:
        WeightsError: The file does not fit the model; the message names the settings or the
            parameters that differ.
    """
    weights = read_state_dict(source.content, f"{_KEY}: {source.name}")
    with torch.random.fork_rng():
        model = recipe().float()
    ours = model.state_dict()
    if weights.keys() == ours.keys():
        _refuse_shapes(source, weights, ours)
        model.load_state_dict(weights)
    elif isinstance(model, PublishedModel):
        model = _reference(source, weights, recipe, ours)
    else:
        raise WeightsError(
            f"{_KEY}: {source.name}: not the parameters of {recipe.config.name}: "
            f"{_listed(weights.keys() ^ ours.keys())}; give weights of this model"
        )
    return weights_to_bytes(model)


def _refuse_shapes(
    source: WeightsSource, weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> None:
    wrong = [
        f"{key} has shape {tuple(weights[key].shape)}, expected {tuple(weight.shape)}"
        for key, weight in ours.items()
        if weights[key].shape != weight.shape
    ]
    if wrong:
        raise WeightsError(
            f"{_KEY}: {source.name}: {'; '.join(wrong[:3])} ({len(wrong)} parameters differ); use "
            "the features and classes, model.hidden_size and model.options of its training"
        )


def _reference(
    source: WeightsSource,
    weights: Mapping[str, Tensor],
    recipe: ModelRecipe,
    ours: Mapping[str, Tensor],
) -> BaseModel:
    """Load weights by the authors' names, and refuse other sizes than those of the run."""
    try:
        loaded = load_reference(recipe.config.name, weights)
    except WeightsError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        more = f"; and {len(lines) - 1 - _MAX_LISTED} more" if len(lines) > _MAX_LISTED + 1 else ""
        raise WeightsError(
            f"{_KEY}: {source.name}: neither our parameters nor those of the authors: "
            f"{'; '.join(lines[1 : _MAX_LISTED + 1])}{more}; give weights of this model"
        ) from None
    theirs = loaded.state_dict()
    if any(theirs[key].shape != weight.shape for key, weight in ours.items()):
        assert issubclass(recipe.model, PublishedModel)
        sizes = recipe.model.reference_sizes({key: tuple(w.shape) for key, w in weights.items()})
        raise WeightsError(f"{_KEY}: {source.name}: {'; '.join(_other_sizes(sizes, recipe))}")
    return loaded


def _other_sizes(sizes: Mapping[str, Any], recipe: ModelRecipe) -> list[str]:
    """Say which sizes of the file differ from those of the run, with the settings to change."""
    data = {
        "num_classes": (recipe.num_classes, "event classes: use the classes of the authors"),
        "audio_dim": (recipe.audio_shape[-1], "audio features: use those of the authors"),
        "visual_dim": (recipe.visual_shape[-1], "visual features: use those of the authors"),
        "regions": (recipe.visual_shape[-2], "regions: use the features of the authors"),
    }
    options = {"hidden_size": recipe.config.hidden_size, **dict(recipe.options)}
    lines = []
    for name, size in sizes.items():
        if name in data:
            present, what = data[name]
            if size != present:
                lines.append(f"it has {size} {what}, here are {present}")
        elif _changes_shapes(recipe, name, size):
            option = name if name == "hidden_size" else f"options.{name}"
            setting = f"--model.{option.replace('_', '-')}"
            lines.append(f"set {setting} {size}, it is {options.get(name)}")
    return lines


def _changes_shapes(recipe: ModelRecipe, name: str, size: Any) -> bool:
    """Return True if parameter shapes change with `size` as the hidden size or an option."""
    config = recipe.config
    if name == "hidden_size":
        changed = config.model_copy(update={name: size})
    else:
        changed = config.model_copy(update={"options": {**config.options, name: size}})
    with torch.device("meta"):
        before, after = (of().state_dict() for of in (recipe, replace(recipe, config=changed)))
    return any(before[key].shape != after[key].shape for key in before)


def _listed(names: Any) -> str:
    more = ", …" if len(names) > _MAX_LISTED else ""
    return ", ".join(sorted(names)[:_MAX_LISTED]) + more
