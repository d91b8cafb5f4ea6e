"""Model folders with random weights, which read real media files."""

from pathlib import Path

import pytest

from tests.predict.folders import write_folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A localization model of the demo's shape; only to be read."""
    return write_folder(tmp_path_factory.mktemp("localization") / "model")


@pytest.fixture(scope="session")
def parsing_folder(tmp_path_factory) -> Path:
    """A parsing model; only to be read."""
    return write_folder(tmp_path_factory.mktemp("parsing") / "model", model="han")
