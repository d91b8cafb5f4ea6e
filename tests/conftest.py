"""Shared test setup: reproducible hypothesis examples, one thread per library, order of files.

Several test processes and Ray workers run at the same time. A library that uses all cores slows
all of them down, and the arrays here are too small for threads to help.
"""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

for _library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")  # read when the library is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tests with two threads spin on a busy machine

# For the S3 test server. Ray processes copy the environment at the moment they start.
os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)

# No deadline: the first call into torch is slow. Derandomized: a run can be repeated.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Chromium, to click in pages."""
    program = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if program is None:
        pytest.skip("no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that use Ray first, because they take longest."""
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in with_ray)
