"""Seeded weights and inputs for the parity files in `tests/data/parity`.

Each file lists the authors' parameters with their shapes, and the outputs of the authors' code for
the weights and inputs that are drawn here.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PARITY = Path(__file__).parents[1] / "data" / "parity"


@dataclass(frozen=True)
class Reference:
    """Weights, inputs and outputs of a published model."""

    salt: str
    weights: dict[str, NDArray[np.float32]]
    outputs: dict[str, NDArray[np.float32]]

    def input(self, key: str, shape: tuple[int, ...], *, signed: bool = False) -> NDArray:
        values = _generator(f"{self.salt}/input/{key}").standard_normal(shape)
        return (values if signed else np.maximum(values, 0)).astype(np.float32)


def reference(name: str) -> Reference:
    """Read `tests/data/parity/<name>.npz`, and draw its weights."""
    with np.load(PARITY / f"{name}.npz") as stored:
        outputs = {key: stored[key] for key in stored.files}
    salt = f"public/{name}"
    weights = {}
    for line in outputs.pop("params"):
        parameter, shape = str(line).split()
        sizes = tuple(int(size) for size in shape.split("x"))
        weights[parameter] = _weight(salt, parameter, sizes)
    return Reference(salt, weights, outputs)


def _weight(salt: str, parameter: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values = _generator(f"{salt}/{parameter}").standard_normal(shape)
    values = values / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else values * 0.05
    if "norm" in parameter and parameter.endswith("weight"):
        values = values + 1
    return values.astype(np.float32)


def _generator(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))
