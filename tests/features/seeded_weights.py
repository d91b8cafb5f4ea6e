"""Weight files for tests: seeded ones, as used for `vggish.npz`, and small ones."""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.models.reference_weights import reference


def vggish_state() -> dict[str, Tensor]:
    """Return the weights of the published VGGish for `tests/data/parity/vggish.npz`."""
    return {name: torch.from_numpy(value) for name, value in reference("vggish").weights.items()}


def save(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def parity_wave() -> np.ndarray:
    """Return the waveform of `vggish.npz`: ten seconds of a sweep and noise at 16 kHz."""
    rng = np.random.default_rng(zlib.crc32(b"public/vggish/input/waveform"))
    t = np.arange(160_000) / 16_000
    sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 150 * t**2))
    return (sweep + 0.05 * rng.standard_normal(160_000)).astype(np.float32)
