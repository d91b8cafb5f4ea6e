"""Compute the number of concurrent trials from the resources of the cluster.

A trial either trains in its own process, which reserves the resources of a worker, or it starts
workers and reserves almost nothing itself. In both cases, only as many trials are started as the
cluster can serve at the same time, so that no trial waits for resources of another (deadlock).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from distributed_avel.config import RunConfig
from distributed_avel.errors import ResourceError

TRIAL_CPUS = 0.01
"""CPUs that a trial reserves for itself if its workers do the work."""

_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """Resources of one trial.

    Args:
        in_process: Whether the trial trains in its own process.
        cpus: CPUs of the process itself.
        gpus: GPUs of the process itself; with a fraction, trials share a GPU.
        worker_cpus: CPUs of all its workers together.
        worker_gpus: GPUs of all its workers together.
        why: The calculation, for messages.
    """

    in_process: bool
    cpus: float
    gpus: float
    worker_cpus: float = 0.0
    worker_gpus: float = 0.0
    why: str = ""


def needs_of(config: RunConfig, gpus_per_trial: float) -> Needs:
    """Compute the resources that a trial of this configuration needs.

    Args:
        config: Settings of the run.
        gpus_per_trial: `sweep.gpus_per_trial`.
    """
    train, refine = config.train, config.refine
    if train.num_workers == 1:
        return Needs(
            in_process=True,
            cpus=train.cpus_per_worker,
            gpus=gpus_per_trial or max(float(train.use_gpu), refine.gpus_per_actor),
            why=f"train.cpus_per_worker {train.cpus_per_worker}",
        )
    training = train.num_workers * train.cpus_per_worker
    scoring = refine.num_actors + 1
    return Needs(
        in_process=False,
        cpus=TRIAL_CPUS,
        gpus=0.0,
        worker_cpus=max(training, scoring),
        worker_gpus=max(
            train.num_workers * float(train.use_gpu), refine.num_actors * refine.gpus_per_actor
        ),
        why=(
            f"{TRIAL_CPUS} for the trial + the larger of train.num_workers {train.num_workers} x "
            f"train.cpus_per_worker {train.cpus_per_worker} = {training} and refine.num_actors "
            f"{refine.num_actors} + 1 for Ray Data = {scoring}"
        ),
    )


def plan_concurrency(
    needs: Needs, nodes: Sequence[Mapping[str, float]], wanted: int | None = None
) -> int:
    """Compute the number of concurrent trials.

    Args:
        needs: Resources of one trial.
        nodes: Resources of each machine, by "CPU" and "GPU".
        wanted: Maximum number, if any.

    Raises:
        ResourceError: The cluster cannot run a single trial; the message has the calculation.
    """
    if needs.in_process:
        possible = sum(_fits(node, needs.cpus, needs.gpus) for node in nodes)
    else:
        whole = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
        possible = _fits(whole, needs.cpus + needs.worker_cpus, needs.gpus + needs.worker_gpus)
    if not possible:
        cpus, gpus = needs.cpus + needs.worker_cpus, needs.gpus + needs.worker_gpus
        have = " + ".join(f"({n.get('CPU', 0):g} CPUs, {n.get('GPU', 0):g} GPUs)" for n in nodes)
        raise ResourceError(
            f"no trial can ever run: one needs {cpus:g} CPUs and {gpus:g} GPUs"
            f"{' on one machine' if needs.in_process else ''} ({needs.why}), but the cluster has "
            f"{have}"
        )
    return min(possible, wanted or possible)


def _fits(have: Mapping[str, float], cpus: float, gpus: float) -> int:
    counts = [floor(have.get("CPU", 0.0) / cpus + _EPSILON)]
    if 0 < gpus < 1:  # a fraction cannot be split over two GPUs
        counts.append(int(have.get("GPU", 0.0)) * floor(1 / gpus + _EPSILON))
    elif gpus:
        counts.append(floor(have.get("GPU", 0.0) / gpus + _EPSILON))
    return min(counts)
