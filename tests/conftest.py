"""What all tests share: repeatable examples, and few threads.

Tests run beside each other and beside Ray workers; a library that takes every core for itself
makes all of them slower.
"""

import os

for _library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "2")  # read when the library is loaded

import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(2)

# No deadline: the first call into torch is slow. Derandomized: a run can be repeated.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
