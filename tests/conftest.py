"""Shared test setup: reproducible hypothesis examples, one thread per library, order of files.

Several test processes and Ray workers run at the same time. A library that uses all cores slows
all of them down, and the arrays here are too small for threads to help.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

for _library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")  # read when the library is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # tests with two threads spin on a busy machine

# For the S3 test server. Ray processes copy the environment at the moment they start.
os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

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


@pytest.fixture
def visit(browser: "Browser", tmp_path: Path) -> Iterator[Callable[..., "Page"]]:
    """Open pages from a folder; every problem that the browser reports fails the test."""
    problems: list[str] = []
    contexts: list[BrowserContext] = []

    def open_page(
        files: str | dict[str, str],
        *,
        width_px: int = 1200,
        page_name: str = "report.html",
        **options: Any,
    ) -> "Page":
        if isinstance(files, str):
            files = {page_name: files}
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width_px, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto((tmp_path / page_name).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    missing_file = "Failed to load resource: net::ERR_FILE_NOT_FOUND"
    assert [problem for problem in problems if problem != missing_file] == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that use Ray first, because they take longest."""
    with_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in with_ray)
