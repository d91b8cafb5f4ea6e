"""How many trials run at once, told from what the cluster has before any of them starts.

A trial either trains in its own process, which claims what a worker would, or it starts workers
of its own and claims next to nothing itself. Either way no more trials are started than can
have all that they need at the same moment, so none waits for what another one holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from distributed_avel.config import RunConfig
from distributed_avel.errors import ResourceError

TRIAL_CPUS = 0.01
"""What a trial itself claims where its workers do the work."""

_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What one trial claims.

    Args:
        in_process: Whether it trains in its own process.
        cpus: Of the process itself.
        gpus: Of the process itself; a fraction shares one.
        worker_cpus: Of its workers, all together.
        worker_gpus: Of its workers, all together.
        why: The arithmetic, for a message.
    """

    in_process: bool
    cpus: float
    gpus: float
    worker_cpus: float = 0.0
    worker_gpus: float = 0.0
    why: str = ""


def needs_of(config: RunConfig, gpus_per_trial: float) -> Needs:
    """What a trial of this configuration claims."""
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
    """How many trials run at once.

    Args:
        nodes: CPUs and GPUs of each machine, as "CPU" and "GPU".
        wanted: No more than this, if given.

    Raises:
        ResourceError: Not even one trial can run; the message has the arithmetic.
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
    if 0 < gpus < 1:  # a fraction is one of a single GPU
        counts.append(int(have.get("GPU", 0.0)) * floor(1 / gpus + _EPSILON))
    elif gpus:
        counts.append(floor(have.get("GPU", 0.0) / gpus + _EPSILON))
    return min(counts)
