"""Load the decoding libraries before the time limit of the first file starts."""

from importlib.util import find_spec

import numpy as np

from distributed_avel.media.audio import LogMel, resampled


def warm_up() -> None:
    """Import everything that decoding a file imports on first use, about a thousand modules.

    librosa imports its submodules lazily, which takes 3 s on an idle machine and more than 30 s on
    a busy one. Without the warm-up, the first file could exceed its time limit.
    """
    if find_spec("decord"):
        import decord  # noqa: F401

    LogMel()(resampled(np.zeros(22_050, dtype=np.float32), 22_050, 16_000)[None])
