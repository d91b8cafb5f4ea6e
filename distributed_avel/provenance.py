"""Provenance of a result: code, packages and machine."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "ray", "numpy", "pyarrow", "decord", "av", "librosa", "mlflow")
"""Packages whose versions a manifest records."""


def provenance() -> dict[str, Any]:
    """Commit, package versions, hardware and time, for a manifest."""
    return {
        "commit": commit(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def package_versions() -> dict[str, str]:
    """Version of each of `PACKAGES`, or "not installed" (decord has no wheel on arm64)."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def commit() -> str:
    """The git commit of this package, "-dirty" if files differ, or "unknown" outside git."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
