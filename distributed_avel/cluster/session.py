"""Ray session: join a cluster, or start Ray on this machine.

A local session listens on loopback only and requires a random token. A cluster has its own token,
see `cluster.yaml`.
"""

import logging
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import yaml
from ray._private import ray_constants
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distributed_avel.cluster.resources import Requirement, unmet
from distributed_avel.config import ClusterConfig
from distributed_avel.errors import AvelError, ClusterError, ResourceError

MIN_LOCAL_CPUS = 4
"""Nested work hangs with fewer: a trial or trainer, its workers and Ray Data all claim CPUs."""

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Configuration of an autoscaling cluster. The cluster launcher writes it, on the head only."""

_RAY_WORKING_DIRS = "working_dir_files"
"""Folder into which Ray unpacks the working directories of jobs."""

_MAX_REASON_CHARS = 300


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[None]:
    """Join or start Ray, and shut it down at the end; does nothing if Ray is initialized already.

    SIGTERM, which `ray job stop` sends, ends the session like Ctrl-C. Ray kills the job 3 s later,
    which can be before the session has ended, so the message is written immediately.

    Raises:
        ClusterError: Ray cannot be started or joined.
        AvelError: A remote task raised it; the traceback of Ray is dropped.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # hide GPUs not claimed
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve each other
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it logs actor restarts as errors
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address:
        _init(f"{address}: cannot be joined", address=address)
    else:
        _start_local(config)
    previous = signal.signal(signal.SIGTERM, _stop)  # after ray.init, which sets its own
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, AvelError):
            raise error.cause from None
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _init(problem: str, **arguments: Any) -> None:
    """Call `ray.init`; turn every failure into a user-facing error.

    Args:
        problem: Beginning of the error message.

    Raises:
        ClusterError: Ray cannot be started or joined.
    """
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    except Exception as error:  # noqa: BLE001  Ray raises plain `Exception` too
        ray.shutdown()
        raise ClusterError(
            f"{problem} ({' '.join(str(error).split())[:_MAX_REASON_CHARS]}); Ray's logs say more, "
            "and on a busy machine trying again may help"
        ) from None


def _start_local(config: ClusterConfig) -> None:
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray writes one to ~/.ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On Linux, Ray listens on all interfaces, because other machines may join. With clusters
    # disabled, as on other systems, it listens on loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    _init(
        "Ray cannot be started on this machine",
        address="local",  # never join another user's cluster on this machine
        num_cpus=config.num_cpus or max(MIN_LOCAL_CPUS, os.cpu_count() or 1),
        include_dashboard=False,
    )


def _stop(signum: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        # not print: the signal may interrupt one
        os.write(2, b"SIGTERM: stopping; the same command continues from here\n")
    raise KeyboardInterrupt(f"signal {signum}")


def is_in_ray_working_dir(path: str | Path) -> bool:
    """Return True in the working directory of a Ray job, which Ray removes after the job."""
    return _RAY_WORKING_DIRS in Path(path).resolve().parts


def require(requirements: Sequence[Requirement]) -> None:
    """Refuse requirements that the cluster can never meet.

    An autoscaling cluster is checked at its maximum size; Ray itself waits for the nodes.

    Raises:
        ResourceError: A stage needs more than the cluster has; the message has the arithmetic.
    """
    autoscaled = _largest_cluster()
    nodes = autoscaled or machines()
    if nodes is None:
        return
    if problems := unmet(requirements, nodes):
        size = "even when it has grown to " if autoscaled else ""
        raise ResourceError(
            f"the cluster can never run this, {size}{_describe(nodes)}:\n" + "\n".join(problems)
        )


def on_driver_node() -> dict[str, Any]:
    """Return options that schedule an actor on the driver's node, so it outlives the others."""
    node_id = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def machines() -> list[dict[str, float]] | None:
    """Return the CPUs and GPUs of each machine of the cluster; None if the cluster autoscales."""
    if _BOOTSTRAP.expanduser().exists():
        return None
    return [_of_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _largest_cluster() -> list[dict[str, float]] | None:
    """Return all machines of an autoscaling cluster at its maximum size.

    Returns:
        None if the cluster does not autoscale, or does not list the resources of a node type.
    """
    if not _BOOTSTRAP.expanduser().exists():
        return None
    cluster = yaml.safe_load(_BOOTSTRAP.expanduser().read_text(encoding="utf-8"))
    limit = cluster.get("max_workers", 0)
    nodes = []
    for name, kind in cluster["available_node_types"].items():
        if not kind.get("resources"):
            return None
        is_head = name == cluster["head_node_type"]
        count = 1 if is_head else min(limit, kind.get("max_workers", limit))
        nodes += [_of_node(kind["resources"])] * count
    return nodes


def _of_node(resources: Mapping[str, float]) -> dict[str, float]:
    return {kind: float(resources.get(kind, 0)) for kind in ("CPU", "GPU")}


def _describe(nodes: Sequence[Mapping[str, float]]) -> str:
    """Format nodes, such as `1 x (8 CPUs, 0 GPUs) and 4 x (8 CPUs, 1 GPUs)`."""
    counts = Counter((node["CPU"], node["GPU"]) for node in nodes)
    return " and ".join(f"{n} x ({c:g} CPUs, {g:g} GPUs)" for (c, g), n in counts.items())
