"""A Ray session: joined where there is a cluster, started on this machine where there is none.

A local session listens on loopback only and asks for a token that nobody else knows. A cluster
brings its own token, see `cluster.yaml`.
"""

import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray
from ray._private import ray_constants

from distributed_avel.config import ClusterConfig, RunConfig
from distributed_avel.errors import ResourceError

MIN_LOCAL_CPUS = 4
"""Nested work hangs on fewer: a trial or a trainer, its workers and Ray Data each claim some."""


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[None]:
    """Join or start Ray, and leave it again; nothing happens where Ray runs already.

    SIGTERM, which `ray job stop` sends, ends the session as Ctrl-C does.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it calls a restartable actor an error
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        _start_local(config)
    previous = signal.signal(signal.SIGTERM, _stop)  # after ray.init, which sets its own
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _start_local(config: ClusterConfig) -> None:
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray writes one to ~/.ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On Linux Ray listens on all interfaces, in case that other machines join. Told that there
    # are no clusters, as it is on other systems, it listens on loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ray.init(
        num_cpus=config.num_cpus or max(MIN_LOCAL_CPUS, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {signum}")


def require(config: RunConfig) -> None:
    """Refuse, before any work, what the cluster could never schedule.

    A cluster that grows on demand is asked for no more than one of its nodes may hold; Ray
    itself waits for the nodes.

    Raises:
        ResourceError: A stage needs more than there is; the message has the arithmetic.
    """
    have = ray.cluster_resources()
    train, extract, refine = config.train, config.extract, config.refine
    needs = {
        "extract": (
            extract.num_actors * extract.cpus_per_actor + 1,
            extract.num_actors * extract.gpus_per_actor,
            f"extract.num_actors {extract.num_actors} x extract.cpus_per_actor "
            f"{extract.cpus_per_actor} + 1 for Ray Data",
        ),
        "train": (
            train.num_workers * train.cpus_per_worker,
            train.num_workers * int(train.use_gpu),
            f"train.num_workers {train.num_workers} x train.cpus_per_worker "
            f"{train.cpus_per_worker}",
        ),
        "refine": (
            refine.num_actors + 1,
            refine.num_actors * refine.gpus_per_actor,
            f"refine.num_actors {refine.num_actors} + 1 for Ray Data",
        ),
    }
    if _grows_on_demand():
        return
    problems = [
        f"  {stage}: {cpus} CPUs and {gpus:g} GPUs ({why}), but there are "
        f"{have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs"
        for stage, (cpus, gpus, why) in needs.items()
        if cpus > have.get("CPU", 0) or gpus > have.get("GPU", 0)
    ]
    if problems:
        raise ResourceError("the cluster can never run this:\n" + "\n".join(problems))


def machines() -> list[dict[str, float]] | None:
    """CPUs and GPUs of each machine of the cluster; None where more come on demand."""
    if _grows_on_demand():
        return None
    return [
        {kind: node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")}
        for node in ray.nodes()
        if node["Alive"]
    ]


def _grows_on_demand() -> bool:
    """Whether an autoscaler may add nodes: only the cluster launcher writes this file."""
    return os.path.exists(os.path.expanduser("~/ray_bootstrap_config.yaml"))  # noqa: PTH110, PTH111
