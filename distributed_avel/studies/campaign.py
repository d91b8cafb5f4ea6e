"""Campaigns: compute stages of many pipelines, each different result once.

Several experiments may need the same result, such as Step 1 of a base model. A campaign finds the
different results among the stages, and computes each missing result in its own task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distributed_avel.cluster.progress import progress, say
from distributed_avel.cluster.resources import TrialResources, plan_concurrency
from distributed_avel.cluster.session import machines
from distributed_avel.cluster.trials import TaskFailure, run_tasks
from distributed_avel.errors import DatasetError
from distributed_avel.registry import import_plugins
from distributed_avel.stages.stage import Stage


@dataclass(frozen=True, slots=True)
class Campaign:
    """Computes stages of many pipelines.

    Args:
        resources: Resources of each task.
        concurrency: Maximum number of tasks at once; None leaves it to the cluster.
    """

    resources: TrialResources
    concurrency: int | None

    @classmethod
    def plan(cls, resources: TrialResources, limit: int | None = None) -> "Campaign":
        """Create a campaign with as many concurrent tasks as the cluster can run.

        Args:
            limit: Upper bound, if given.

        Raises:
            ResourceError: The cluster cannot run even one task.
        """
        nodes = machines()
        if nodes is None:  # it grows on demand
            return cls(resources, limit)
        concurrency = plan_concurrency(resources, nodes, limit)
        say(f"plan: {concurrency} experiment(s) at once, each with {resources.why}")
        return cls(resources, concurrency)

    def compute(self, name: str, stages: Sequence[Stage[Any]]) -> dict[int, str]:
        """Compute the missing results among the stages, each once.

        Args:
            name: For progress messages.
            stages: Their inputs must be finished, or cheap.

        Returns:
            Reasons of failures, by index in `stages`.
        """
        failures: dict[int, str] = {}
        by_result: dict[str, list[int]] = {}
        for number, stage in enumerate(stages):
            try:
                by_result.setdefault(stage.fingerprint, []).append(number)
            except DatasetError as error:  # no tau can be chosen
                failures[number] = str(error)
        if not by_result:
            return failures
        missing = [numbers for numbers in by_result.values() if not stages[numbers[0]].is_done()]
        already = len(by_result) - len(missing)
        count = sum(map(len, by_result.values()))
        say(f"{name}: {count} experiments need {len(by_result)} different results")
        tasks = [_Ensure(stages[numbers[0]]) for numbers in missing]
        with progress(name, len(by_result), "results", already=already) as report:
            results = run_tasks(tasks, resources=self.resources, concurrency=self.concurrency)
            for done, (task, result) in enumerate(results, start=already + 1):
                if isinstance(result, TaskFailure):
                    failures |= dict.fromkeys(missing[task], result.error)
                report(done)
        return failures


@dataclass(frozen=True, slots=True)
class _Ensure:
    """A task that computes a stage; pickled and called in another process."""

    stage: Stage[Any]

    def __call__(self) -> None:
        import_plugins(self.stage.config.plugins)  # unpickling a stage does not
        self.stage.ensure()
