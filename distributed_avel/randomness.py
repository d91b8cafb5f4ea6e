"""Random numbers that depend only on their purpose.

Every draw derives from (seed, stage, keys such as epoch and video id), so that results do not
depend on the number of workers, actors or blocks, or on the order of rows.
"""

import hashlib

import numpy as np


def derive(seed: int, stage: str, *keys: int | str) -> int:
    """Hash the arguments to an integer in 0..2**64 - 1."""
    text = "\x1f".join([str(seed), stage, *map(str, keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(seed: int, stage: str, *keys: int | str) -> np.random.Generator:
    """Return a random generator seeded with `derive`."""
    return np.random.default_rng(derive(seed, stage, *keys))
