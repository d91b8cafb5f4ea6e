"""Loading of the libraries that decode, before the first file is on the clock."""

from importlib.util import find_spec

import numpy as np

from distributed_avel.media.audio import LogMel, resampled


def warm_up() -> None:
    """Load what reading a file loads on first use: about a thousand modules.

    librosa imports its parts when they are called. That takes 3 s on a quiet machine and more
    than 30 s on a busy one; counted as the first file's time, it would make a good file fail.
    """
    if find_spec("decord"):
        import decord  # noqa: F401

    LogMel()(resampled(np.zeros(22_050, dtype=np.float32), 22_050, 16_000)[None])
