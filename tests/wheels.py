"""Building the package the way that pip does, without a network."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile


def build_wheel(source: Path, into: Path) -> set[str]:
    """Names of the files in the wheel that pip makes of a copy of the project, offline."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(into)]
    subprocess.run([*command, *options, str(source)], check=True)
    (wheel,) = into.glob("*.whl")
    return set(ZipFile(wheel).namelist())
