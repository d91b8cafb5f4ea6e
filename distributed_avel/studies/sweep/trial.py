"""What a trial of a sweep does, in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed_avel.artifacts import Artifact
from distributed_avel.cluster.leases import LeaseHolder
from distributed_avel.cluster.tracking import untracked
from distributed_avel.cluster.trials import (
    CRITERION,
    EPOCH,
    FINISHED,
    STAGE_USES,
    UNDEFINED_CRITERION,
    VALIDATION_METRICS,
    ReportTrial,
)
from distributed_avel.config import RunConfig
from distributed_avel.pipeline import Pipeline
from distributed_avel.search.selection import criterion
from distributed_avel.search.space import Point, with_values
from distributed_avel.stages.stage import Execution
from distributed_avel.tasks import task_class


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """Trains Step 3 at a point and looks at the validation split; runs in another process.

    Stages that are there are found, and those that another trial computes are waited for.

    Args:
        in_process: Train in the process of the trial instead of in workers of its own.
        known: The stages `data` and `extract`, which all trials share.
        leases: The actor `LeaseActor`.
        progress: The actor `ProgressActor`, for the driver.
    """

    config: RunConfig
    auxiliary: bool
    criterion: tuple[str, ...]
    in_process: bool
    known: Mapping[str, Artifact]
    leases: Any
    progress: Any

    def pipeline(self, point: Mapping[str, Any], report: ReportTrial | None = None) -> Pipeline:
        """The pipeline of a point, with its seed if it has one."""
        config = with_values(self.config, point)

        def watch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
            found = {k.removeprefix("val/"): v for k, v in metrics.items() if k[:4] == "val/"}
            is_last = epoch + 1 == config.train.retrain_epochs
            if report and stage == "retrain" and found and not is_last:
                values = {name: found.get(name) for name in task_class(config.model.name).metrics}
                report(self._report(values, epoch + 1, finished=False))

        execution = Execution(
            in_process=self.in_process,
            quiet=True,
            watch=watch,
            lease=LeaseHolder(self.leases),
            known=self.known,
        )
        return Pipeline(config, untracked(), execution=execution)

    def __call__(self, point: Point, report: ReportTrial) -> None:
        """The trial itself."""
        pipeline = self.pipeline(point, report)
        retrained = pipeline.retrain(self.auxiliary).ensure()
        stages = (pipeline.base(self.auxiliary), pipeline.refine(self.auxiliary), retrained)
        metrics = retrained.validation_metrics()
        uses = [[s.name, s.fingerprint, s.artifact.seconds()] for s in stages]
        epochs = pipeline.config.train.retrain_epochs
        final = self._report(metrics, epochs, finished=True) | {STAGE_USES: uses}
        self.progress.put.remote({"point": point, "report": final})
        report(final)

    def _report(
        self, metrics: Mapping[str, float | None], epoch: int, *, finished: bool
    ) -> dict[str, Any]:
        value = criterion(metrics, self.criterion)
        value = UNDEFINED_CRITERION if value is None else value
        return {
            CRITERION: value,
            EPOCH: epoch,
            FINISHED: finished,
            VALIDATION_METRICS: dict(metrics),
        }
