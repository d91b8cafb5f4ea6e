"""Stage `screen`: choose tau by the validation metrics of Step 3, the paper's rule (Sec. 5.3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distributed_avel.config import RunConfig
from distributed_avel.datasets import Video
from distributed_avel.errors import DatasetError
from distributed_avel.method.pseudo_labels import ThresholdCurve
from distributed_avel.search.screen import screened_thresholds
from distributed_avel.search.selection import Trial, choose, criterion
from distributed_avel.search.space import THRESHOLD
from distributed_avel.stages.cache_keys import refine_section, training_settings
from distributed_avel.stages.calibrate import Calibrate
from distributed_avel.stages.refine import Refine
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.stages.thresholds import threshold_metrics
from distributed_avel.storage import Location
from distributed_avel.tasks import Task, criterion_of, lacks_times

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

ValidationMetrics = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class ThresholdCandidate:
    """A tau with the validation metrics of its Step 3, in percent; None if undefined (0/0)."""

    threshold: float
    criterion: float | None
    metrics: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class ScreenManifest:
    """The chosen tau.

    Args:
        threshold: tau.
        criterion: Names of the metrics whose mean decides.
        candidates: All values that were tried.
    """

    threshold: float
    criterion: tuple[str, ...]
    candidates: tuple[ThresholdCandidate, ...]


class Screen(Stage[ScreenManifest]):
    """Chooses the tau whose Step 3 is best on the validation split.

    Args:
        refined: Step 2; its window probabilities of validation videos pre-select candidates.
        retrain: Trains Step 3 with a tau and returns its validation metrics, in percent.
        calibrate: Stage `calibrate`, whose curves pre-select candidates if no validation video has
            times.
    """

    name = "screen"
    revision = 2
    command = "avel retrain"
    manifest_type = ScreenManifest

    def __init__(
        self,
        context: Context,
        refined: Refine,
        retrain: Callable[[float], ValidationMetrics],
        calibrate: Calibrate,
    ) -> None:
        super().__init__(context)
        self.refined, self._retrain, self._calibrate = refined, retrain, calibrate

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return Step 2, or the calibration of tau after it."""
        return (self._curves_from,)

    @cached_property
    def _curves_from(self) -> Refine | Calibrate:
        """The stage whose curves pre-select candidates."""
        if lacks_times(self.context.task, self._validation()):
            return self._calibrate
        return self.refined

    def _validation(self) -> list[Video]:
        return self.refined.base.features.ensure().usable("val")

    def depends(self) -> Mapping[str, Any]:
        """Return the settings of Step 3 and of the choice, and the source of the curves."""
        source = self._curves_from
        return {
            "settings": settings(self.config, self.context.task),
            source.name: source.fingerprint,
        }

    def compute(self, out: Location, run: "Run") -> ScreenManifest:
        """Train Step 3 with each candidate."""
        self._curves_from.manifest.value()  # raises with the reason if there are no curves
        curves = list(self._curves_from.threshold_curves().values())
        names = criterion_of(self.context.task, self._validation())
        chosen = best_by_step_3(curves, self.config, names, self._retrain)
        run.metrics(threshold_metrics(chosen.threshold))
        return chosen


def settings(config: RunConfig, task: Task) -> dict[str, Any]:
    """Return the settings of the choice of tau; those of Step 2 are in its fingerprint."""
    return {
        **training_settings(config, task, config.train.retrain_epochs),
        "refine": refine_section(config, {"threshold", "labels"}),
    }


def best_by_step_3(
    curves: Sequence[ThresholdCurve],
    config: RunConfig,
    names: Sequence[str],
    retrain: Callable[[float], ValidationMetrics],
) -> ScreenManifest:
    """Choose the tau whose Step 3 is best on the validation split.

    Args:
        curves: Curves of the window pseudo-labels on the validation split, which pre-select
            candidates.
        config: Configuration of the run.
        names: Validation metrics whose mean decides.
        retrain: Trains Step 3 with a tau and returns its validation metrics, in percent.

    Raises:
        DatasetError: The validation split cannot distinguish the candidates.
    """
    refine = config.refine
    trials = [
        Trial(point={THRESHOLD: tau}, seed=config.seed, metrics=dict(retrain(tau)))
        for tau in screened_thresholds(curves, refine.screen_keep, refine.num_candidates)
    ]
    best = choose(trials, names, num_seeds=1)
    if not best:
        raise DatasetError(
            f"the mean of {' and '.join(names)} is undefined on the validation split for every "
            "tau; annotate validation videos with and without events, or set refine.threshold to "
            "a number"
        )
    return ScreenManifest(
        threshold=best[0].point[THRESHOLD],
        criterion=tuple(names),
        candidates=tuple(
            ThresholdCandidate(
                threshold=trial.point[THRESHOLD],
                criterion=criterion(trial.metrics or {}, names),
                metrics=dict(trial.metrics or {}),
            )
            for trial in trials
        ),
    )
