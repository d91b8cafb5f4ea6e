"""Resource arithmetic: what stages and trials need, and what the machines of a cluster have.

A trial either trains in its own process, which claims what a worker would, or it starts workers
and claims next to nothing itself. No more trials are started than can have all their resources at
the same time, so no trial waits for resources that another one holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

from distributed_avel.errors import ResourceError

Node = Mapping[str, float]
"""CPUs and GPUs of one machine, as "CPU" and "GPU"."""

_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """Resources that a stage needs at the same time: `count` equal processes, each on one node.

    Args:
        why: The settings behind the figures, for a message.
        reserved_cpus: CPUs that must stay free for Ray Data.
    """

    stage: str
    count: int
    cpus: float
    gpus: float
    why: str
    reserved_cpus: int = 0

    def problem(self, nodes: Sequence[Node]) -> str | None:
        """Explain why these nodes cannot run the stage; None if they can."""
        cpus, gpus = self.count * self.cpus + self.reserved_cpus, self.count * self.gpus
        total_cpus, total_gpus = (sum(node[kind] for node in nodes) for kind in ("CPU", "GPU"))
        if cpus > total_cpus or gpus > total_gpus:
            return (
                f"  {self.stage}: {cpus:g} CPUs and {gpus:g} GPUs ({self.why}), but there are "
                f"{total_cpus:g} CPUs and {total_gpus:g} GPUs"
            )
        capacity = sum(map(self._capacity, nodes))
        if capacity < self.count:
            return (
                f"  {self.stage}: {self.count} times {self.cpus:g} CPUs and {self.gpus:g} GPUs, "
                f"each on one node ({self.why}), but there is room for {capacity}"
            )
        return None

    def _capacity(self, node: Node) -> int:
        """Number of the processes that fit on a node."""
        capacities = [node["CPU"] // self.cpus]
        if self.gpus:
            capacities.append(node["GPU"] // self.gpus)
        return int(min(capacities))


def unmet(requirements: Sequence[Requirement], nodes: Sequence[Node]) -> list[str]:
    """Describe the requirements that these nodes can never meet, one line each."""
    return [problem for needed in requirements if (problem := needed.problem(nodes))]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResources:
    """Resources of one trial.

    Args:
        in_process: Whether the trial trains in its own process.
        cpus: CPUs of the process itself.
        gpus: GPUs of the process itself; a fraction shares one.
        worker_cpus: CPUs of all its workers together.
        worker_gpus: GPUs of all its workers together.
        why: The settings behind the figures, for a message.
    """

    in_process: bool
    cpus: float
    gpus: float
    worker_cpus: float = 0.0
    worker_gpus: float = 0.0
    why: str = ""


def plan_concurrency(trial: TrialResources, nodes: Sequence[Node], limit: int | None = None) -> int:
    """Return how many trials run at once.

    Args:
        limit: Upper bound, if given.

    Raises:
        ResourceError: Not even one trial can run; the message has the arithmetic.
    """
    if trial.in_process:
        possible = sum(_capacity(node, trial.cpus, trial.gpus) for node in nodes)
    else:
        total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
        possible = _capacity(total, trial.cpus + trial.worker_cpus, trial.gpus + trial.worker_gpus)
    if not possible:
        cpus, gpus = trial.cpus + trial.worker_cpus, trial.gpus + trial.worker_gpus
        have = " + ".join(f"({n.get('CPU', 0):g} CPUs, {n.get('GPU', 0):g} GPUs)" for n in nodes)
        raise ResourceError(
            f"no trial can ever run: one needs {cpus:g} CPUs and {gpus:g} GPUs"
            f"{' on one machine' if trial.in_process else ''} ({trial.why}), but the cluster has "
            f"{have}"
        )
    return min(possible, limit or possible)


def _capacity(node: Node, cpus: float, gpus: float) -> int:
    counts = [floor(node.get("CPU", 0.0) / cpus + _EPSILON)]
    if 0 < gpus < 1:  # a fraction is one of a single GPU
        counts.append(int(node.get("GPU", 0.0)) * floor(1 / gpus + _EPSILON))
    elif gpus:
        counts.append(floor(node.get("GPU", 0.0) / gpus + _EPSILON))
    return min(counts)
