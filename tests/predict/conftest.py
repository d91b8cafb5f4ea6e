"""Model folders with random weights, which predict real media files."""

from pathlib import Path

import pytest

from tests.predict.folders import write_folder
from tests.predict.runs import small_run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A localization model of the demo's shape; read-only."""
    return write_folder(tmp_path_factory.mktemp("localization") / "model")


@pytest.fixture(scope="session")
def parsing_folder(tmp_path_factory) -> Path:
    """A parsing model; read-only."""
    return write_folder(tmp_path_factory.mktemp("parsing") / "model", model="han")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory) -> Path:
    """A finished run with the arms `base` and `LR`; read-only."""
    return small_run(tmp_path_factory.mktemp("run"))
