"""The stages in order: data, features, Step 1, Step 2, Step 3, evaluation, report.

Each stage says what its result depends on; what exists already with the same dependencies is
reused, whoever made it. So a rerun goes on where the last one was killed, and a changed setting
redoes exactly the stages that it affects.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.arms import ARMS, Scored, arm_label
from distributed_avel.artifacts import Location, Stage
from distributed_avel.config import Arm, RunConfig
from distributed_avel.datasets import Split, Video, VideoSet, feature_source
from distributed_avel.errors import ArtifactError, DatasetError
from distributed_avel.features.store import FeatureStore
from distributed_avel.provenance import provenance
from distributed_avel.refine.pseudo_labels import (
    Threshold,
    pseudo_labels,
    repeated_labels,
    soft_labels,
    threshold_text,
)
from distributed_avel.refine.windows import window_mask
from distributed_avel.runtime import data as data_stage
from distributed_avel.runtime.evaluate import METRICS, PREDICTIONS, evaluate
from distributed_avel.runtime.extract import (
    FAILURES_FILE,
    ExtractorRecipe,
    extract,
    refuse_too_many_failures,
)
from distributed_avel.runtime.imported import import_features
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.refine import read_window_scores, score_windows
from distributed_avel.runtime.report import REPORT, ReportSources, write_report
from distributed_avel.runtime.thresholds import (
    THRESHOLDS_FILE,
    choose_threshold,
    read_threshold_curves,
)
from distributed_avel.runtime.tracking import Run, Tracker
from distributed_avel.runtime.train import (
    CURVES_FILE,
    WEIGHTS,
    ModelRecipe,
    TrainJob,
    Watch,
    train,
    train_here,
)
from distributed_avel.tasks import Parsing, Task, task_of
from distributed_avel.tasks.parsing import modality_targets

_REVISIONS = {
    "data": 1,
    "extract": 1,
    "base": 1,
    "refine": 2,
    "retrain": 1,
    "evaluate": 2,
    "report": 1,
}
"""Of the code behind each stage. Raise it with a change that makes other results."""

STAGES = tuple(_REVISIONS)

RESULTS = "results.json"

_JOB_OF = {
    "data": "jobs/extract.py",
    "extract": "jobs/extract.py",
    "base": "jobs/train_base.py",
    "refine": "jobs/refine.py",
    "retrain": "jobs/retrain.py",
    "evaluate": "jobs/evaluate.py",
    "report": "jobs/evaluate.py",
}


@contextmanager
def _nobody_else(stage: Stage) -> Iterator[bool]:
    yield True


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where stages are computed, and how.

    Args:
        here: Train and score in this process rather than in workers of their own: what takes
            seconds is not worth their start.
        watch: Called after each epoch of a training in this process.
        quiet: Say nothing of stages that are there.
        alone_at: Holds a stage that others may want at the same moment. It yields whether the
            stage is still to be computed; where it is not, somebody did so meanwhile.
        made: The stages `data` and `extract`, if they are known to be there: many pipelines of
            one data set need not look at all of its files again.
    """

    here: bool = False
    quiet: bool = False
    watch: Watch | None = None
    alone_at: Callable[[Stage], AbstractContextManager[bool]] = _nobody_else
    made: Mapping[str, Stage] = field(default_factory=dict)


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
        place: Place | None = None,
    ) -> None:
        self.config = config
        self._place = place or Place()
        self.run_dir = Location.at(config.resolved_run_dir)
        self._tracker = tracker
        self._may_run = may_run
        self._said: set[str] = set()
        vars(self).update(self._place.made)

    # Stages ------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Stage:
        """The videos and their labels; the demo is rendered here."""
        config, root = self.config.data, self._root
        stage = Stage(
            self.run_dir,
            "data",
            {
                "revision": _REVISIONS["data"],
                "settings": config.model_dump(mode="json", exclude=data_stage.unused(config)),
                "annotations": data_stage.annotations(config, root),
            },
        )

        def compute(run: Run) -> dict[str, Any]:
            num_actors = self.config.extract.num_actors
            videos = data_stage.load(config, root, num_actors, stage.location)
            counts = data_stage.write(videos, stage.location)
            run.file(stage.location / data_stage.VIDEOS_FILE)
            return counts

        self._tracker.parent.tags({"data_fingerprint": stage.fingerprint})
        return self._ensure(stage, compute)

    @cached_property
    def extract(self) -> Stage:
        """The features of all videos that could be used: extracted, or the data set's own."""
        config, source = self.config.extract, feature_source(self.config.data.dataset)
        used = set() if source else {"extractor", "timeout_s", "unit_size"}
        extractor = None if source else ExtractorRecipe(self.videos.timeline, config)()
        what = extractor and {
            "frames_per_segment": extractor.frames_per_segment,
            **extractor.provenance(),  # wrong weights stop here, before any video is read
        }
        stage = Stage(
            self.run_dir,
            "extract",
            {
                "revision": _REVISIONS["extract"],
                "settings": config.model_dump(mode="json", include=used),
                "extractor": what,
                "videos": self.data.fingerprint
                if source
                else data_stage.videos_fingerprint(self.videos),
                "media": data_stage.media_fingerprint(self.videos, self._root),
            },
        )

        def compute(run: Run) -> dict[str, Any]:
            if source:
                data, root = self.config.data, self._root
                counts = import_features(self.videos, source, data, root, stage.location)
            else:
                counts = extract(self.videos, self._root, config, stage.location)
            run.metrics({key: counts[key] for key in ("num_videos", "num_failed")})
            run.file(stage.location / FAILURES_FILE)
            return {**counts, "weights_note": extractor and extractor.weights_note}

        self._ensure(stage, compute)
        refuse_too_many_failures(stage.location, len(self.videos.videos), config)
        return stage

    def base_stage(self, auxiliary: bool) -> Stage:
        """Step 1, whether it is done or not."""
        settings = self._training_settings(self.config.train.base_epochs)
        if auxiliary:
            settings["auxiliary"] = self._window_settings()
        return self._stage("base", settings, data=self.data, extract=self.extract)

    def base(self, auxiliary: bool) -> Stage:
        """Step 1: the base model, with or without the auxiliary loss."""
        stage = self.base_stage(auxiliary)

        def compute(run: Run) -> dict[str, Any]:
            num_epochs = self.config.train.base_epochs
            name = "base+A" if auxiliary else "base"
            partners = self.config.refine.partners if auxiliary else None
            return self._train(stage, run, name, num_epochs, partners=partners)

        return self._ensure(stage, compute)

    def refine_stage(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """Step 2, whether it is done or not."""
        settings = {"seed": self.config.seed, "scored": scored, **self._window_settings()}
        if scored == "exchanged":
            del settings["window"], settings["stride"]
        if scored == "alone":
            del settings["partners"]
        else:
            settings["num_partners"] = self.config.refine.num_partners
        return self._stage("refine", settings, base=self.base_stage(auxiliary))

    def refine(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """Step 2: window probabilities of the training and validation videos, and tau."""
        base, stage = self.base(auxiliary), self.refine_stage(auxiliary, scored)

        def compute(run: Run) -> dict[str, Any]:
            training, validation = self.usable("train"), self.usable("val")
            mask_WT = self._windows(scored)
            score_windows(
                self.videos,
                training + validation,
                training,
                make_model=self.recipe().trained(base.location / WEIGHTS),
                features=self.extract.location,
                task=self.task,
                mask_WT=mask_WT,
                config=self.config.refine,
                seed=self.config.seed,
                out=stage.location,
                scored=scored,
                here=self._place.here,
            )
            chosen = choose_threshold(self.task, self.videos, validation, mask_WT, stage.location)
            if chosen["threshold"] is not None:
                run.metrics(_named(chosen["threshold"]))
                run.file(stage.location / THRESHOLDS_FILE)
            return chosen

        return self._ensure(stage, compute)

    def retrain_stage(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """Step 3, whether it is done or not; a tau from validation needs Step 2."""
        refined = self.refine_stage(auxiliary, scored)
        settings = self._training_settings(self.config.train.retrain_epochs)
        if self.config.refine.labels == "soft":
            settings["labels"] = "soft"
        else:
            settings["threshold"] = self._threshold(refined)
        return self._stage("retrain", settings, extract=self.extract, refine=refined)

    def retrain(self, auxiliary: bool, scored: Scored = "refined") -> Stage:
        """Step 3: a model trained from scratch on the video labels and the pseudo-labels."""
        refined = self.refine(auxiliary, scored)
        stage = self.retrain_stage(auxiliary, scored)

        def compute(run: Run) -> dict[str, Any]:
            training, background = self.usable("train"), self.task.background
            scores_VWK = read_window_scores(refined.location, [v.video_id for v in training])
            targets_VK = self.task.targets(self.videos, training)
            if self.config.refine.labels == "soft":
                soft_VWK = soft_labels(scores_VWK, targets_VK, background=background)
                counts = self._retrain(stage, run, scored, soft_VWK)
                return {**counts, "threshold": None, "windows": None}
            threshold = self._threshold(refined)
            threshold_K = self.task.threshold_by_column(threshold, targets_VK.shape[-1])
            labels_VWK = pseudo_labels(scores_VWK, targets_VK, threshold_K, background=background)
            if scored == "exchanged":
                labels_VWK = modality_targets(labels_VWK[:, 0], targets_VK)[:, None]
            windows = self.task.count_windows(targets_VK, labels_VWK)
            say(
                f"retrain: tau {threshold_text(threshold)} keeps {sum(windows['kept_of_class'])} "
                f"of {sum(windows['of_class'])} labels, and leaves {windows['background']} of "
                f"{windows['of_events']} windows without an event"
            )
            for warning in window_warnings(windows):
                say(f"WARNING: {warning}")
            run.metrics({"background_windows": windows["background"]})
            counts = self._retrain(stage, run, scored, labels_VWK)
            return {**counts, "threshold": threshold, "windows": windows}

        return self._ensure(stage, compute)

    def retrain_dummy_stage(self) -> Stage:
        """Step 3 with the video label in every window, whether it is done or not."""
        settings = self._training_settings(self.config.train.retrain_epochs)
        settings |= {"dummy": True, **self._window_settings()}
        del settings["partners"]
        return self._stage("retrain", settings, data=self.data, extract=self.extract)

    def retrain_dummy(self) -> Stage:
        """Step 3 with the video label in every window: what refinement adds is not in it."""
        stage = self.retrain_dummy_stage()

        def compute(run: Run) -> dict[str, Any]:
            targets_VK = self.task.targets(self.videos, self.usable("train"))
            labels_VWK = repeated_labels(targets_VK, len(self._windows("refined")))
            return self._retrain(stage, run, "refined", labels_VWK)

        return self._ensure(stage, compute)

    def evaluate_stage(self) -> Stage:
        """The evaluation, whether it is done or not; the arms tell it by the models they train."""
        fingerprints = {
            arm_label(self.config.model.name, arm): self.arm_stage(arm).fingerprint
            for arm in self.config.arms
        }
        depends = {"revision": _REVISIONS["evaluate"], "arms": fingerprints}
        return Stage(self.run_dir, "evaluate", depends)

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

        return self._ensure(stage, compute)

    def report(self) -> Stage:
        """The report page of the evaluation."""
        evaluated = self.evaluate()
        settings = self.config.report.model_dump(mode="json")
        stage = self._stage("report", settings, evaluate=evaluated)

        def compute(run: Run) -> dict[str, Any]:
            for file in write_report(self._report_sources(evaluated), stage.location):
                run.file(file)
            return {}

        return self._ensure(stage, compute)

    def publish(self) -> None:
        """Put results, predictions and report at the top of the run directory, and in MLflow."""
        evaluated, report = self.evaluate(), self.report()
        results = self.results(evaluated)
        (self.run_dir / RESULTS).write_json(results)
        self._copy_up(evaluated, PREDICTIONS)
        self._copy_up(report, REPORT)
        for arm, values in results["arms"].items():
            self._tracker.parent.metrics({f"{arm}/{key}": value for key, value in values.items()})
        for name in (RESULTS, REPORT):
            self._tracker.parent.file(self.run_dir / name)

    # What follows from them --------------------------------------------------------------

    @cached_property
    def task(self) -> Task:
        """What the base model is for."""
        return task_of(self.config.model, self.config.train)

    @cached_property
    def videos(self) -> VideoSet:
        """The data set, as the data stage wrote it."""
        return data_stage.read(self.data)

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
        if plan.windows == "dummy":
            return self.retrain_dummy()
        return self.retrain(plan.auxiliary, plan.windows)

    def arm_stage(self, arm: Arm) -> Stage:
        """The stage that trains the model of an arm, whether it is done or not."""
        plan = ARMS[arm]
        if plan.windows is None:
            return self.base_stage(plan.auxiliary)
        if plan.windows == "dummy":
            return self.retrain_dummy_stage()
        return self.retrain_stage(plan.auxiliary, plan.windows)

    def results(self, evaluated: Stage) -> dict[str, Any]:
        """What `results.json` holds."""
        config = self.config
        arm = self._refined_arm
        refined = {} if arm is None else self.arm(arm).manifest()
        num_usable = len(self.usable("test"))
        return {
            "arms": (evaluated.location / METRICS).read_json(),
            "dataset": self.videos.name,
            "synthetic": self.videos.synthetic,
            "seed": config.seed,
            "threshold": refined.get("threshold"),
            "windows": refined.get("windows"),
            "window": config.refine.window,
            "stride": config.refine.stride,
            "loss": "binary_cross_entropy" if isinstance(self.task, Parsing) else config.train.loss,
            "num_test_videos": num_usable,
            "num_test_videos_lost": len(self.videos.split("test")) - num_usable,
        }

    # Within -------------------------------------------------------------------------------

    @cached_property
    def _root(self) -> Location:
        return data_stage.root_of(self.config.data, self.run_dir)

    @property
    def _refined_arm(self) -> Arm | None:
        """The arm whose tau and windows are shown: with the auxiliary loss, if there is one."""
        return next((arm for arm in ("A+LR", "LR", "MA") if arm in self.config.arms), None)

    @cached_property
    def _store(self) -> FeatureStore:
        return FeatureStore(self.extract.location)

    def _windows(self, scored: Scored) -> NDArray[np.bool_]:
        """Which segments each window has; an exchanged modality is one window of them all."""
        num_segments, refine = self.videos.timeline.num_segments, self.config.refine
        if scored == "exchanged":
            return np.ones((1, num_segments), dtype=bool)
        return window_mask(num_segments, refine.window, refine.stride)

    def _stage(self, name: str, settings: Mapping[str, Any], **upstream: Stage) -> Stage:
        before = {stage: made.fingerprint for stage, made in upstream.items()}
        depends = {"revision": _REVISIONS[name], "settings": settings, **before}
        return Stage(self.run_dir, name, depends)

    def _ensure(self, stage: Stage, compute: Callable[[Run], dict[str, Any]]) -> Stage:
        """The stage, computed if it is not there."""
        label = f"{stage.name} {stage.fingerprint}"
        is_done, is_new = stage.is_done(), label not in self._said
        self._said.add(label)
        if is_done:
            if is_new and not self._place.quiet:
                say(f"{label}: done before")
            return stage
        why = stage.why_not_done()
        if stage.name not in self._may_run:
            raise ArtifactError(
                f"{stage.name} is not there for these settings ({why}); "
                f"run `python {_JOB_OF[stage.name]}` with the same options first"
            )
        with self._place.alone_at(stage) as is_mine:
            if is_mine:
                say(f"{label}: {why}")
                self._compute(stage, compute)
            else:
                say(f"{label}: done meanwhile")
        return stage

    def _compute(self, stage: Stage, compute: Callable[[Run], dict[str, Any]]) -> None:
        try:
            stage.begin()
        except OSError as error:
            raise ArtifactError(f"run_dir: cannot write to {self.run_dir}: {error}") from None
        started = time.monotonic()
        with self._tracker.stage(stage.name) as run:
            run.params({"fingerprint": stage.fingerprint, **stage.depends})
            manifest = compute(run)
            seconds = round(time.monotonic() - started, 2)
            run.metrics({"seconds": seconds})
            stage.finish({**manifest, "seconds": seconds, "provenance": provenance()})

    def recipe(self) -> ModelRecipe:
        """How a process builds the base model."""
        shapes = self.extract.manifest()
        return ModelRecipe(
            config=self.config.model,
            num_classes=self.videos.num_classes,
            audio_shape=tuple(shapes["audio_shape"]),
            visual_shape=tuple(shapes["visual_shape"]),
        )

    def _training_settings(self, num_epochs: int) -> dict[str, Any]:
        used = {"batch_size", "learning_rate", "lr_decay", "keep"}
        if self.config.train.lr_decay < 1.0:
            used.add("lr_decay_epochs")
        if self.config.train.keep == "best":
            used.add("report_every")
        used.add("visual_smoothing" if isinstance(self.task, Parsing) else "loss")
        if self.recipe().has_dropout:
            used.add("num_workers")  # each draws what it drops
        return {
            "seed": self.config.seed,
            "epochs": num_epochs,
            "model": self.config.model.model_dump(mode="json"),
            "train": self.config.train.model_dump(mode="json", include=used),
        }

    def _window_settings(self) -> dict[str, Any]:
        return self.config.refine.model_dump(mode="json", include={"window", "stride", "partners"})

    def _retrain(
        self,
        stage: Stage,
        run: Run,
        scored: Scored,
        labels_VWK: NDArray[np.bool_] | NDArray[np.float32],
    ) -> dict[str, Any]:
        """Step 3 on labels of windows, or, where a modality was exchanged, of whole videos."""
        num_epochs = self.config.train.retrain_epochs
        if scored == "exchanged":
            targets = {"targets_VK": labels_VWK[:, 0]}
            return self._train(stage, run, "retrain", num_epochs, **targets)
        return self._train(stage, run, "retrain", num_epochs, window_labels_VWK=labels_VWK)

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
            mask_WT=self._windows("refined"),
            val_ids=[v.video_id for v in validation],
            val_truth_VTK=self.task.truth(self.videos, validation),
            num_epochs=num_epochs,
            config=self.config.train,
            **{"targets_VK": self.task.targets(self.videos, training), **what},
        )
        job.check()
        if self._place.here:
            train_here(job, stage.location, self._place.watch)
        else:
            train(job, stage.location)
        run.curves((stage.location / CURVES_FILE).read_table())
        run.file(stage.location / WEIGHTS)
        return {"num_videos": len(training)}

    def _threshold(self, refined: Stage) -> Threshold:
        if self.config.refine.threshold != "validation":
            return self.config.refine.threshold
        manifest = refined.manifest()
        if manifest["threshold"] is None:
            raise DatasetError(f"{manifest['no_threshold']}; or set refine.threshold to a number")
        return manifest["threshold"]

    def _warnings(self, results: Mapping[str, Any], evaluated: Stage) -> list[str]:
        note = self.extract.manifest()["weights_note"]
        windows = results["windows"]
        return [
            *([note] if note else []),
            *(window_warnings(windows) if windows else []),
            *prediction_warnings(evaluated.manifest()["background"]),
        ]

    def _copy_up(self, stage: Stage, name: str) -> None:
        (self.run_dir / name).write_bytes((stage.location / name).read_bytes())

    def _report_sources(self, evaluated: Stage) -> ReportSources:
        arms, results, arm = self.arms(), self.results(evaluated), self._refined_arm
        plan = ARMS[arm] if arm else None
        refined = plan and plan.scored and self.refine(plan.auxiliary, plan.scored)
        return ReportSources(
            task=self.task,
            videos=self.videos,
            root=None if feature_source(self.config.data.dataset) else self._root,
            evaluated=evaluated.location,
            results=results,
            shown=list(arms),
            refined=arm_label(self.config.model.name, arm) if arm else "",
            exchanged=plan is not None and plan.windows == "exchanged",
            curves={name: (a.location / CURVES_FILE).read_table() for name, a in arms.items()},
            failures=(self.extract.location / FAILURES_FILE).read_table(),
            threshold_curves=read_threshold_curves(refined.location) if refined else {},
            settings=self.config.model_dump(mode="json"),
            provenance=evaluated.manifest()["provenance"],
            warnings=self._warnings(results, evaluated),
            num_timelines=self.config.report.num_timelines,
        )


def _named(threshold: Threshold) -> dict[str, float]:
    """tau under the names of metrics."""
    if isinstance(threshold, Mapping):
        return {f"threshold_{part}": value for part, value in threshold.items()}
    return {"threshold": threshold}


def prediction_warnings(background: Mapping[str, float]) -> list[str]:
    """What to say of arms that predict (nearly) nothing but background."""
    return [
        f"{arm} calls {share:.0%} of the test segments background: it has collapsed"
        for arm, share in background.items()
        if share > 0.95
    ]


def window_warnings(windows: Mapping[str, Any]) -> list[str]:
    """What to say where (nearly) no window has an event left, or all have what they had."""
    share = windows["background"] / max(1, windows["of_events"])
    if share > 0.95:
        return [
            f"{share:.0%} of the windows of event videos have no event left, so Step 3 learns to "
            "predict none; lower refine.threshold or train Step 1 longer"
        ]
    if sum(windows["kept_of_class"]) > 0.999 * sum(windows["of_class"]):
        return [
            "refinement removed no event from any window, so Step 3 learns what the video labels "
            "say; raise refine.threshold"
        ]
    return []
