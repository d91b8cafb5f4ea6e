"""Body of a trial of a sweep, which runs in its own process."""

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
from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.pipeline import Pipeline
from distributed_avel.search.selection import criterion
from distributed_avel.search.space import Point, with_values
from distributed_avel.stages.stage import Execution
from distributed_avel.tasks import task_class


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """Trains Step 3 of a point and evaluates it on the validation split.

    Cached stages are reused. If another trial holds the lease of a stage, this trial waits for it.

    Args:
        config: Configuration of the runs.
        auxiliary: Train the base model with the auxiliary loss.
        criterion: Metrics whose mean is the criterion.
        in_process: Train in the process of the trial instead of in separate workers.
        known: Artifacts of the data and the features, which all trials share.
        leases: The `LeaseActor`.
        progress: The `ProgressActor`, which passes reports to the driver.
    """

    config: RunConfig
    auxiliary: bool
    criterion: tuple[str, ...]
    in_process: bool
    known: Mapping[str, Artifact]
    leases: Any
    progress: Any

    def pipeline(self, point: Mapping[str, Any], report: ReportTrial | None = None) -> Pipeline:
        """Create the pipeline of a point, with its seed if it has one.

        Args:
            report: Called with validation metrics after each evaluated epoch of Step 3.
        """
        config = with_values(self.config, point)

        def watch(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
            validation = {k.removeprefix("val/"): v for k, v in metrics.items() if k[:4] == "val/"}
            is_last = epoch + 1 == config.train.retrain_epochs
            if report and stage == "retrain" and validation and not is_last:
                names = (*task_class(config.model.name).metrics, *VIDEO_METRICS)
                values = {name: validation.get(name) for name in names}
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
        """Run the trial."""
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
