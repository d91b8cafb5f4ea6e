"""`avel doctor`: check packages, devices, storage, MLflow and Ray before a first run."""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Literal

import torch

from distributed_avel.config import RunConfig
from distributed_avel.datasets import dataset_names
from distributed_avel.errors import AvelError
from distributed_avel.features.base import extractor_names
from distributed_avel.models import model_names
from distributed_avel.provenance import PACKAGES
from distributed_avel.redaction import redact
from distributed_avel.registry import import_plugins
from distributed_avel.runtime.preflight import check_before_start
from distributed_avel.runtime.session import machines, ray_session, require

Status = Literal["ok", "note", "PROBLEM"]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Args:
        name: What was checked.
        status: `ok`; `note` where something optional is missing; `PROBLEM` where a run would fail.
        detail: What was found, and the remedy of a problem.
    """

    name: str
    status: Status
    detail: str


def doctor(config: RunConfig) -> int:
    """Run all checks and print one line for each; return 1 if there is a problem, else 0."""
    checks = [_python(), _readers(), _devices()]
    for name, check in (
        ("plug-ins", _plugins),
        ("storage, MLflow, Ray's address", _preflight),
        ("Ray", _ray),
    ):
        checks.append(_guarded(name, check, config))
    for check in checks:
        print(f"{check.status:<8} {check.name}: {redact(check.detail)}")  # noqa: T201
    problems = sum(check.status == "PROBLEM" for check in checks)
    print(f"{problems} problem(s)" if problems else "no problem found")  # noqa: T201
    return int(problems > 0)


def _python() -> Check:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return Check("packages", "ok", f"Python {platform.python_version()}, {versions}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _readers() -> Check:
    if find_spec("decord") is None:
        return Check(
            "readers", "note", "PyAV only; decord has no wheel here, so some files decode slower"
        )
    return Check("readers", "ok", "decord and PyAV")


def _devices() -> Check:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if not names:
        return Check("GPUs", "note", "none; train.use_gpu and extract.gpus_per_actor need one")
    return Check("GPUs", "ok", ", ".join(names))


def _guarded(name: str, check: Callable[[RunConfig], str], config: RunConfig) -> Check:
    try:
        return Check(name, "ok", check(config))
    except (AvelError, OSError) as error:
        return Check(name, "PROBLEM", str(error))


def _plugins(config: RunConfig) -> str:
    import_plugins(config.plugins)
    return (
        f"models {', '.join(model_names())}; extractors {', '.join(extractor_names())}; "
        f"data sets {', '.join(dataset_names())}"
    )


def _preflight(config: RunConfig) -> str:
    check_before_start(config)
    return f"{config.resolved_run_dir} can be written"


def _ray(config: RunConfig) -> str:
    print("starting Ray ...", file=sys.stderr)  # noqa: T201
    with ray_session(config.cluster):
        require(config)
        nodes = machines() or []
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{len(nodes)} machine(s) with {cpus:g} CPUs and {gpus:g} GPUs; the settings fit"
