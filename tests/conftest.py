"""What all tests share: repeatable examples, one thread each, and the order of the files.

Tests run beside each other and beside Ray workers; a library that takes every core for itself
makes all of them slower, and the arrays here are so small that threads only wait for each other.
"""

import os

for _library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")  # read when the library is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tests with two threads spin on a busy machine

# Of a stand-in for S3. The processes of Ray take the environment of the moment they start.
os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

torch.set_num_threads(1)

# No deadline: the first call into torch is slow. Derandomized: a run can be repeated.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files with Ray first: they take longest, and no process should end with them."""
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in with_ray)
