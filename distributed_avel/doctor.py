"""`avel doctor`: check packages, devices, storage, MLflow and Ray before a first run."""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch

from distributed_avel.cluster.session import machines, ray_session, require
from distributed_avel.config import RunConfig
from distributed_avel.datasets import dataset_names
from distributed_avel.errors import AvelError
from distributed_avel.features.base import extractor_names
from distributed_avel.models import model_names
from distributed_avel.provenance import package_versions
from distributed_avel.redaction import redact
from distributed_avel.stages.data import root_of
from distributed_avel.stages.resources import requirements
from distributed_avel.startup import check_before_start, check_names
from distributed_avel.storage import Location

Status = Literal["ok", "note", "PROBLEM"]


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check.

    Args:
        name: Subject of the check.
        status: `ok`; `note` if something optional is missing; `PROBLEM` if a run would fail.
        detail: Details, and the remedy of a problem.
    """

    name: str
    status: Status
    detail: str


def doctor(config: RunConfig) -> int:
    """Run all checks, print one line for each, and return 1 if there is a problem.

    Ray is not started if the check of its address, storage or MLflow fails, because connecting to
    a cluster that does not answer takes minutes.
    """
    num_problems = 0

    def show(check: Check) -> bool:
        nonlocal num_problems
        print(f"{check.status:<8} {check.name}: {redact(check.detail)}", flush=True)  # noqa: T201
        num_problems += check.status == "PROBLEM"
        return check.status != "PROBLEM"

    for check in (_packages(), _readers(), _devices()):
        show(check)
    show(_guarded("names", _names, config))
    if show(_guarded("storage, MLflow, Ray's address", _preflight, config)):
        show(_guarded("Ray", _ray, config))
    else:
        show(Check("Ray", "note", "not started; solve the problem above first"))
    print(f"{num_problems} problem(s)" if num_problems else "no problem found")  # noqa: T201
    return int(num_problems > 0)


def _packages() -> Check:
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return Check("packages", "ok", f"Python {platform.python_version()}, {versions}")


def _readers() -> Check:
    if find_spec("decord") is None:
        return Check("readers", "note", "PyAV only; without decord, some files decode more slowly")
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


def _names(config: RunConfig) -> str:
    check_names(config)
    root_of(config.data, Location.at(config.resolved_run_dir))  # refuses a missing data.root
    return (
        f"models {', '.join(model_names())}; extractors {', '.join(extractor_names())}; "
        f"data sets {', '.join(dataset_names())}"
    )


def _preflight(config: RunConfig) -> str:
    check_before_start(config)
    return f"{config.resolved_run_dir} is writable"


def _ray(config: RunConfig) -> str:
    print("starting Ray ...", file=sys.stderr)  # noqa: T201
    with ray_session(config.cluster):
        require(requirements(config))
        nodes = machines() or []
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{len(nodes)} machine(s) with {cpus:g} CPUs and {gpus:g} GPUs; the settings fit"
