"""The stages in order: data, features, Step 1, Step 2, Step 3, evaluation.

Each stage says what its result depends on; what exists already with the same dependencies is
reused, whoever made it. So a rerun goes on where the last one was killed, and a changed setting
redoes exactly the stages that it affects.
"""

import time
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from distributed_avel.arms import ARMS, Scored, WindowLabels, arm_label
from distributed_avel.artifacts import Location, Stage
from distributed_avel.config import Arm, RunConfig
from distributed_avel.datasets import Split, Video, VideoSet, feature_source
from distributed_avel.errors import DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.refine.pseudo_labels import Threshold, repeated_labels
from distributed_avel.registry import import_plugins
from distributed_avel.report.alarms import prediction_warnings, share_warnings
from distributed_avel.runtime import cache_keys
from distributed_avel.runtime import data as data_stage
from distributed_avel.runtime.evaluate import METRICS, evaluate
from distributed_avel.runtime.extract import (
    FAILURES_FILE,
    RETRY_S,
    ExtractorRecipe,
    extract,
    refuse_too_many_failures,
)
from distributed_avel.runtime.imported import import_features
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.refine import (
    NO_FACTS,
    LabelsAndFacts,
    labels_of_windows,
    score_windows,
    tell_labels,
    windows_of,
)
from distributed_avel.runtime.stages import REVISIONS, STAGES, Execution, StageMaker
from distributed_avel.runtime.thresholds import (
    THRESHOLDS_FILE,
    best_by_step_3,
    choose_threshold,
    chosen_threshold,
    share_metrics,
    threshold_metrics,
)
from distributed_avel.runtime.tracking import Run, Tracker
from distributed_avel.runtime.train import (
    CURVES_FILE,
    WEIGHTS,
    ModelRecipe,
    TrainJob,
    targets_of,
    train,
    train_in_process,
)
from distributed_avel.search.space import THRESHOLD, with_values
from distributed_avel.tasks import Task, task_of


class Pipeline:
    """One configuration, and its stages; asking for a stage's result computes it if need be.

    Args:
        may_run: Stages that may be computed; asking for another that is not there is an error.
    """

    def __init__(
        self,
        config: RunConfig,
        tracker: Tracker,
        may_run: tuple[str, ...] = STAGES,
        execution: Execution | None = None,
    ) -> None:
        import_plugins(config.plugins)  # where a trial runs, nobody else has done so
        self.config = config
        self._execution, self._may_run = execution or Execution(), may_run
        self.run_dir = Location.at(config.resolved_run_dir)
        self.tracker = tracker
        self.stages = StageMaker(tracker, may_run, self._execution)
        vars(self).update(self._execution.known)

    # Stages ------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Stage:
        """The videos and their labels; the demo is rendered here."""
        config, root = self.config.data, self.root
        stage = self.stage(
            "data",
            settings=cache_keys.data_settings(self.config),
            annotations=data_stage.annotations(config, root),
        )

        def compute(run: Run) -> dict[str, Any]:
            num_actors = self.config.extract.num_actors
            videos = data_stage.load(config, root, num_actors, stage.location)
            counts = data_stage.write(videos, stage.location)
            run.file(stage.location / data_stage.VIDEOS_FILE)
            return counts

        self.tracker.parent.tags({"data_fingerprint": stage.fingerprint})
        return self.stages.ensure(stage, compute)

    @cached_property
    def extract(self) -> Stage:
        """The features of all videos that could be used: extracted, or the data set's own."""
        config, source = self.config.extract, feature_source(self.config.data.dataset)
        extractor = None if source else ExtractorRecipe(self.videos.timeline, config)()
        stage_of = partial(
            self.stage,
            "extract",
            settings=cache_keys.extract_settings(self.config, extractor),
            # wrong weights stop here, before any video is read
            extractor=extractor and extractor.provenance(),
            videos=self.data if source else data_stage.videos_fingerprint(self.videos),
        )
        media = data_stage.find_media(self.videos, self.root)
        stage = stage_of(media=media.fingerprint)
        for wait_s in RETRY_S:  # a file may be missing for a moment
            if source or not media.missing or stage.is_done():
                break
            say(f"extract: {len(media.missing)} media files are missing; looking again")
            time.sleep(wait_s)
            media = data_stage.find_media(self.videos, self.root)
            stage = stage_of(media=media.fingerprint)

        def compute(run: Run) -> dict[str, Any]:
            if source:
                data, root = self.config.data, self.root
                counts = import_features(self.videos, source, data, root, stage.location)
            else:
                counts = extract(
                    self.videos, self.root, config, stage.location, missing=media.missing
                )
            refuse_too_many_failures(stage.location, len(self.videos.videos), config)
            run.metrics({key: counts[key] for key in ("num_videos", "num_failed")})
            run.file(stage.location / FAILURES_FILE)
            return {**counts, "weights_note": extractor and extractor.weights_note}

        self.stages.ensure(stage, compute)
        refuse_too_many_failures(stage.location, len(self.videos.videos), config)
        return stage

    def base_stage(self, auxiliary: bool) -> Stage:
        """Step 1, whether it is done or not."""
        settings = cache_keys.base_settings(self.config, self.task, auxiliary=auxiliary)
        return self.stage("base", settings=settings, data=self.data, extract=self.extract)

    def base(self, auxiliary: bool) -> Stage:
        """Step 1: the base model, with or without the auxiliary loss."""
        stage = self.base_stage(auxiliary)

        def compute(run: Run) -> dict[str, Any]:
            num_epochs = self.config.train.base_epochs
            name = "base+A" if auxiliary else "base"
            partners = self.config.refine.partners if auxiliary else None
            return self._train(stage, run, name, num_epochs, partners=partners)

        return self.stages.ensure(stage, compute)

    def refine_stage(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """Step 2, whether it is done or not."""
        settings = cache_keys.refine_settings(self.config, scored)
        return self.stage("refine", settings=settings, base=self.base_stage(auxiliary))

    def refine(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """Step 2: window probabilities of the training and validation videos, and tau."""
        base, stage = self.base(auxiliary), self.refine_stage(auxiliary, scored)

        def compute(run: Run) -> dict[str, Any]:
            training, validation = self.usable("train"), self.usable("val")
            mask_WT = windows_of(scored, self.config)
            score_windows(
                self.videos,
                training if scored == "segments" else training + validation,
                training,
                make_model=self.recipe().trained(base.location / WEIGHTS),
                features=self.extract.location,
                task=self.task,
                mask_WT=mask_WT,
                config=self.config.refine,
                seed=self.config.seed,
                out=stage.location,
                scored=scored,
                in_process=self._execution.in_process,
            )
            if scored == "segments":
                return {}
            chosen = choose_threshold(
                self.task, self.videos, training, validation, mask_WT, stage.location
            )
            if chosen["threshold"] is not None:
                run.metrics(threshold_metrics(chosen["threshold"]))
                run.metrics(share_metrics(chosen["removed_share"]))
                run.file(stage.location / THRESHOLDS_FILE)
            return chosen

        return self.stages.ensure(stage, compute)

    def screen_stage(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """The choice of tau by Step 3 on validation, whether it is done or not."""
        settings = cache_keys.screen_settings(self.config, self.task)
        refined = self.refine_stage(auxiliary, scored)
        return self.stage("screen", settings=settings, extract=self.extract, refine=refined)

    def screen(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """tau by the paper's rule: the best Step 3 on validation, of several (Sec. 5.3)."""
        refined, stage = self.refine(auxiliary, scored), self.screen_stage(auxiliary, scored)

        def compute(run: Run) -> dict[str, Any]:
            retrain = partial(self._retrain_at, auxiliary, scored)
            chosen = best_by_step_3(refined, self.config, self.task, retrain)
            run.metrics(threshold_metrics(chosen["threshold"]))
            return chosen

        return self.stages.ensure(stage, compute)

    def retrain_stage(self, auxiliary: bool, windows: WindowLabels = "refined") -> Stage:
        """Step 3, whether it is done or not; a tau from validation needs Step 2."""
        tau = None if windows == "dummy" else self._threshold(auxiliary, windows)
        settings = cache_keys.retrain_settings(self.config, self.task, windows, tau)
        if windows == "dummy":
            return self.stage("retrain", settings=settings, data=self.data, extract=self.extract)
        refined = self.refine_stage(auxiliary, windows)
        return self.stage("retrain", settings=settings, extract=self.extract, refine=refined)

    def retrain(self, auxiliary: bool, windows: WindowLabels = "refined") -> Stage:
        """Step 3: a model trained from scratch on the labels of videos, windows or segments."""
        if windows != "dummy":
            self.refine(auxiliary, windows)
        if windows not in ("dummy", "segments") and self.config.refine.is_screened:
            self.screen(auxiliary, windows)
        stage = self.retrain_stage(auxiliary, windows)

        def compute(run: Run) -> dict[str, Any]:
            labels_VWK, facts = self._step_3_labels(auxiliary, windows)
            tell_labels(facts)
            for warning in self.share_warnings(auxiliary, windows):
                say(f"WARNING: {warning}")
            if facts["windows"]:
                run.metrics({"background_windows": facts["windows"]["background"]})
            num_epochs, what = self.config.train.retrain_epochs, targets_of(labels_VWK, windows)
            return {**self._train(stage, run, "retrain", num_epochs, **what), **facts}

        return self.stages.ensure(stage, compute)

    def _step_3_labels(self, auxiliary: bool, windows: WindowLabels) -> LabelsAndFacts:
        """Labels of the windows or segments of the training videos, and facts for the manifest."""
        training = self.usable("train")
        if windows == "dummy":  # what refinement adds is not in it
            targets_VK = self.task.targets(self.videos, training)
            return repeated_labels(targets_VK, len(windows_of("refined", self.config))), NO_FACTS
        out = self.refine_stage(auxiliary, windows).location
        threshold = self._threshold(auxiliary, windows)
        return labels_of_windows(self.task, self.videos, training, out, threshold, windows)

    def evaluate_stage(self) -> Stage:
        """The evaluation, whether it is done or not; the arms tell it by the models they train."""
        name, arms = self.config.model.name, self.config.arms
        trained = {arm_label(name, arm): self.arm_stage(arm).fingerprint for arm in arms}
        return self.stage("evaluate", arms=trained)

    def evaluate(self) -> Stage:
        """All arms on the test split."""
        arms = self.arms()
        stage = self.evaluate_stage()

        def compute(run: Run) -> dict[str, Any]:
            recipe = self.recipe()
            background = evaluate(
                self.task,
                self.videos,
                self.extract.location,
                {name: recipe.trained(arm.location / WEIGHTS) for name, arm in arms.items()},
                repeated=[arm_label(self.config.model.name, "base")],
                out=stage.location,
            )
            run.file(stage.location / METRICS)
            for warning in prediction_warnings(background):
                say(f"WARNING: {warning}")
            return {"background": background}

        return self.stages.ensure(stage, compute)

    def stage(self, name: str, **depends: Any) -> Stage:
        """A stage, whether it is done or not.

        Args:
            depends: What its result depends on: settings, other stages, fingerprints.
        """
        plain = {k: v.fingerprint if isinstance(v, Stage) else v for k, v in depends.items()}
        return Stage(self.run_dir, name, {"revision": REVISIONS[name], **plain})

    # What follows from them --------------------------------------------------------------

    @cached_property
    def root(self) -> Location:
        """Where the media files lie."""
        return data_stage.root_of(self.config.data, self.run_dir)

    @cached_property
    def task(self) -> Task:
        """What the base model is for."""
        return task_of(self.config.model, self.config.train)

    @cached_property
    def videos(self) -> VideoSet:
        """The data set, as the data stage wrote it."""
        videos = data_stage.read(self.data)
        self.task.refuse(videos)
        return videos

    def usable(self, split: Split) -> list[Video]:
        """Videos of a split that have features."""
        return [v for v in self.videos.split(split) if v.video_id in self._store]

    def arms(self) -> dict[str, Stage]:
        """The trained models by the names of the paper's tables."""
        return {arm_label(self.config.model.name, arm): self.arm(arm) for arm in self.config.arms}

    def arm(self, arm: Arm) -> Stage:
        """The stage that trains the model of an arm."""
        plan = ARMS[arm]
        if plan.windows is None:
            return self.base(plan.auxiliary)
        return self.retrain(plan.auxiliary, plan.windows)

    def arm_stage(self, arm: Arm) -> Stage:
        """The stage that trains the model of an arm, whether it is done or not."""
        plan = ARMS[arm]
        if plan.windows is None:
            return self.base_stage(plan.auxiliary)
        return self.retrain_stage(plan.auxiliary, plan.windows)

    def share_warnings(self, auxiliary: bool, windows: WindowLabels) -> list[str]:
        """Say where the tau of Step 2 misses its share, if Step 3 uses that tau."""
        refine = self.config.refine
        if refine.labels == "soft" or refine.threshold != "validation":
            return []
        if windows in ("dummy", "segments"):
            return []
        manifest = self.refine_stage(auxiliary, windows).manifest()
        return share_warnings(manifest.get("removed_share", {}))  # older manifests have none

    # Within -------------------------------------------------------------------------------

    @cached_property
    def _store(self) -> FeatureStore:
        return FeatureStore(self.extract.location)

    def recipe(self) -> ModelRecipe:
        """How a process builds the base model."""
        shapes = self.extract.manifest()
        return ModelRecipe(
            config=self.config.model,
            num_classes=self.videos.num_classes,
            audio_shape=tuple(shapes["audio_shape"]),
            visual_shape=tuple(shapes["visual_shape"]),
        )

    def _train(
        self, stage: Stage, run: Run, name: str, num_epochs: int, **what: Any
    ) -> dict[str, Any]:
        training, validation = self.usable("train"), self.usable("val")
        if not training:
            raise DatasetError(f"{self.videos.name}: no training video has features")
        job = TrainJob(
            stage=name,
            seed=self.config.seed,
            task=self.task,
            make_model=self.recipe(),
            features=self.extract.location,
            video_ids=[v.video_id for v in training],
            files=[v.uri for v in training],
            labels_VK=self.videos.video_labels(training),
            val_ids=[v.video_id for v in validation],
            val_truth_VTK=self.task.truth(self.videos, validation),
            num_epochs=num_epochs,
            config=self.config.train,
            **{
                "targets_VK": self.task.targets(self.videos, training),
                "mask_WT": windows_of("refined", self.config),
                **what,
            },
        )
        job.check()
        if self._execution.in_process:
            train_in_process(job, stage.location, self._execution.watch)
        else:
            train(job, stage.location)
        run.curves((stage.location / CURVES_FILE).read_table())
        run.file(stage.location / WEIGHTS)
        return {"num_videos": len(training)}

    def _threshold(self, auxiliary: bool, scored: Scored) -> Threshold | None:
        """tau of Step 3; None where its labels are soft, or are of segments."""
        refine = self.config.refine
        if refine.labels == "soft" or scored == "segments":
            return None
        if not isinstance(refine.threshold, str):
            return refine.threshold
        stage_of = self.screen_stage if refine.is_screened else self.refine_stage
        return chosen_threshold(stage_of(auxiliary, scored).manifest())

    def _retrain_at(self, auxiliary: bool, scored: Scored, threshold: float) -> Location:
        """Step 3 with a tau that is given."""
        config = with_values(self.config, {THRESHOLD: threshold})
        execution = replace(self._execution, known={"data": self.data, "extract": self.extract})
        fixed = Pipeline(config, self.tracker, self._may_run, execution)
        return fixed.retrain(auxiliary, scored).location
