"""Random numbers depend on what they are for, and on nothing else."""

import numpy as np

from distributed_avel.randomness import derive, generator


def test_a_number_never_changes_by_itself():
    assert (
        derive(0, "base", "partner", 3, "a video") == 9733145780168659717
    )  # else no published run repeats


def test_other_arguments_give_other_numbers():
    arguments = [
        (seed, stage, *keys)
        for seed in range(10)
        for stage in ("base", "refine")
        for keys in [(), ("a",), ("a", "b"), ("ab",), (1,), (11,), (1, 1), ("a", 1)]
    ]

    assert len({derive(*a) for a in arguments}) == len(arguments)


def test_numbers_are_spread_evenly():
    numbers = [derive(0, "refine", "partner", str(i)) % 7 for i in range(7000)]

    assert np.abs(np.bincount(numbers) - 1000).max() < 150


def test_a_generator_starts_anew_each_time():
    first, second = (generator(1, "base", "order", 0).permutation(50) for _ in range(2))

    assert first.tolist() == second.tolist()
    assert first.tolist() != generator(1, "base", "order", 1).permutation(50).tolist()
