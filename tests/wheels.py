"""Build the package as pip does, without network access."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def build_wheel(source: Path, into: Path) -> set[str]:
    """Build a wheel from a copy of the project, offline, and return the names of its files."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(into)]
    subprocess.run([*command, *options, str(source)], check=True)
    (wheel,) = into.glob("*.whl")
    return set(ZipFile(wheel).namelist())
