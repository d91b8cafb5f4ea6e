"""Random numbers that depend on what they are for, never on who draws them.

Every draw derives from (seed, stage, keys such as epoch and video id), so that results do not
change with the number of workers, actors or blocks, or with the order of rows.
"""

import hashlib

import numpy as np


def derive(seed: int, stage: str, *keys: int | str) -> int:
    """A number in 0..2**64 - 1 that stands for exactly these arguments."""
    text = "\x1f".join([str(seed), stage, *map(str, keys)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(seed: int, stage: str, *keys: int | str) -> np.random.Generator:
    """A generator for exactly this purpose."""
    return np.random.default_rng(derive(seed, stage, *keys))
