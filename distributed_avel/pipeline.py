"""A pipeline: the stages that one configuration needs, as a graph.

Asking for a stage computes nothing. `Stage.ensure` computes it, after its inputs, or reuses its
result, whichever run made it. A rerun therefore continues where the last one was interrupted, and
a changed setting recomputes only the stages that depend on it.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from distributed_avel.arms import ARMS, Scored, WindowLabels, arm_label, refined_arm
from distributed_avel.artifacts import Artifact
from distributed_avel.config import RunConfig
from distributed_avel.datasets import Split, Video, VideoSet, feature_source
from distributed_avel.stages.base import BaseTraining
from distributed_avel.stages.calibrate import Calibrate
from distributed_avel.stages.data import Data
from distributed_avel.stages.evaluate import Evaluate
from distributed_avel.stages.extract import Extract
from distributed_avel.stages.features import FeatureStage
from distributed_avel.stages.import_features import ImportFeatures
from distributed_avel.stages.own_features import ImportOwnFeatures
from distributed_avel.stages.refine import Refine
from distributed_avel.stages.report import ReportPage
from distributed_avel.stages.retrain import Retrain
from distributed_avel.stages.screen import Screen
from distributed_avel.stages.stage import Context, Execution
from distributed_avel.stages.training import TrainingStage
from distributed_avel.storage import Location
from distributed_avel.tasks import Task

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Tracker

T = TypeVar("T")

STAGES = tuple(
    stage.name
    for stage in (
        Data,
        FeatureStage,
        BaseTraining,
        Refine,
        Calibrate,
        Screen,
        Retrain,
        Evaluate,
        ReportPage,
    )
)
"""Names of the stages, in order."""


class Pipeline:
    """The stages of one configuration.

    Args:
        may_run: Names of the stages that may be computed; any other must be cached.
        execution: How stages are computed.
    """

    def __init__(
        self,
        config: RunConfig,
        tracker: "Tracker",
        may_run: Sequence[str] = STAGES,
        execution: Execution | None = None,
    ) -> None:
        self.config, self.tracker = config, tracker
        self.context = Context(
            config=config, tracker=tracker, may_run=may_run, execution=execution or Execution()
        )
        self._stages: dict[Any, Any] = {}

    @cached_property
    def data(self) -> Data:
        """The videos and their labels."""
        return Data(self.context)

    @cached_property
    def features(self) -> FeatureStage:
        """The features of all videos: a user's own, extracted, or those of the data set."""
        if self.config.data.features is not None:
            return ImportOwnFeatures(self.context, self.data)
        source = feature_source(self.config.data.dataset)
        if source is None:
            return Extract(self.context, self.data)
        return ImportFeatures(self.context, self.data, source)

    def base(self, auxiliary: bool) -> BaseTraining:
        """Step 1, with or without the auxiliary loss."""
        return self._once(
            ("base", auxiliary),
            lambda: BaseTraining(self.context, self.features, auxiliary=auxiliary),
        )

    def refine(self, auxiliary: bool, scored: Scored = "refined") -> Refine:
        """Step 2: window probabilities of the training and validation videos, and tau."""
        return self._once(
            ("refine", auxiliary, scored),
            lambda: Refine(self.context, self.base(auxiliary), scored),
        )

    def calibrate(self, auxiliary: bool, scored: Scored = "refined") -> Calibrate:
        """tau without times, chosen on spliced training videos."""
        return self._once(
            ("calibrate", auxiliary, scored),
            lambda: Calibrate(self.context, self.refine(auxiliary, scored)),
        )

    def screen(self, auxiliary: bool, scored: Scored = "refined") -> Screen:
        """tau by the paper's rule: the best Step 3 on validation, of several (Sec. 5.3)."""

        def retrain(threshold: float) -> Mapping[str, float | None]:
            stage = Retrain(
                self.context,
                self.features,
                scored,
                refined=self.refine(auxiliary, scored),
                threshold=threshold,
            )
            return stage.ensure().validation_metrics()

        return self._once(
            ("screen", auxiliary, scored),
            lambda: Screen(
                self.context,
                self.refine(auxiliary, scored),
                retrain,
                calibrate=self.calibrate(auxiliary, scored),
            ),
        )

    def retrain(self, auxiliary: bool, windows: WindowLabels = "refined") -> Retrain:
        """Step 3: a model trained from scratch on the labels of videos, windows or segments."""
        if windows == "dummy":
            return self._once(
                ("retrain", windows), lambda: Retrain(self.context, self.features, windows)
            )
        return self._once(
            ("retrain", auxiliary, windows),
            lambda: Retrain(
                self.context,
                self.features,
                windows,
                refined=self.refine(auxiliary, windows),
                screen=lambda: self.screen(auxiliary, windows),
                calibrate=self.calibrate(auxiliary, windows),
            ),
        )

    def arm(self, arm: str) -> TrainingStage[Any]:
        """The stage that trains the model of an arm."""
        plan = ARMS[arm]
        if plan.windows is None:
            return self.base(plan.auxiliary)
        return self.retrain(plan.auxiliary, plan.windows)

    def arms(self) -> dict[str, TrainingStage[Any]]:
        """The stages that train the arms, by the names of the paper's tables."""
        return {arm_label(self.config.model.name, arm): self.arm(arm) for arm in self.config.arms}

    def evaluate(self) -> Evaluate:
        """All arms on the test split."""
        return self._once("evaluate", lambda: Evaluate(self.context, self.features, self.arms()))

    def report(self) -> ReportPage:
        """The report page of the evaluation."""
        arm = refined_arm(self.config.arms)
        refined = self.arm(arm) if arm else None
        assert refined is None or isinstance(refined, Retrain)
        return self._once("report", lambda: ReportPage(self.context, self.evaluate(), arm, refined))

    def shared_artifacts(self) -> dict[str, Artifact]:
        """Finished artifacts of the data and the features, for `Execution.known`."""
        features = self.features.ensure()
        return {stage.name: stage.artifact for stage in (features.data, features)}

    @property
    def run_dir(self) -> Location:
        """The folder of the run."""
        return self.context.run_dir

    @property
    def task(self) -> Task:
        """The task of the base model."""
        return self.context.task

    @property
    def videos(self) -> VideoSet:
        """The data set; computed if need be."""
        return self.data.ensure().videos

    def usable(self, split: Split) -> list[Video]:
        """Videos of a split that have features; computed if need be."""
        return self.features.ensure().usable(split)

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Make each stage once, so that it is ensured once."""
        if key not in self._stages:
            self._stages[key] = make()
        return self._stages[key]
