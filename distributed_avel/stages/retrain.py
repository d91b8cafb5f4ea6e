"""Stage `retrain` (Step 3): train from scratch on pseudo-labels of videos, windows or segments.

Shape suffixes used in this file:
    V = videos    T = segments    W = windows    K = columns of labels
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.arms import WindowLabels
from distributed_avel.cluster.progress import say
from distributed_avel.config import RunConfig
from distributed_avel.datasets import Video, VideoSet
from distributed_avel.method.pseudo_labels import (
    Threshold,
    ThresholdCurve,
    pseudo_labels,
    repeated_labels,
    soft_labels,
    threshold_text,
)
from distributed_avel.method.windows import most_windows, valid_windows
from distributed_avel.report.alarms import segments_text, share_warnings, window_warnings
from distributed_avel.stages.cache_keys import (
    PARTNERS,
    STEP_3,
    THRESHOLD_CHOICE,
    WINDOWS,
    refine_section,
    training_settings,
)
from distributed_avel.stages.calibrate import Calibrate
from distributed_avel.stages.features import FeatureStage
from distributed_avel.stages.refine import Refine, scored_windows
from distributed_avel.stages.screen import Screen
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.stages.training import Step3Targets, TrainingStage
from distributed_avel.storage import Location
from distributed_avel.tasks import SegmentCounts, Task, WindowCounts, lacks_times
from distributed_avel.tasks.parsing import modality_targets

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """Facts about the labels of Step 3.

    Args:
        threshold: tau, if there is one.
        windows: Counts of the labels of windows. None for soft labels.
        segments: Counts of the labels of segments; only for labels of segments.
    """

    threshold: float | dict[str, float] | None = None
    windows: WindowCounts | None = None
    segments: SegmentCounts | None = None


@dataclass(frozen=True, slots=True)
class RetrainManifest(LabelFacts):
    """Facts about the labels of Step 3, and the number of training videos."""

    num_videos: int = 0


class Retrain(TrainingStage[RetrainManifest]):
    """Step 3.

    Args:
        windows: Source of the labels, see `arms.Arm`.
        refined: Step 2; None if the labels are those of the videos ("dummy").
        screen: Creates the stage `screen`, which is used if `refine.threshold` is "screened".
        calibrate: Stage `calibrate`, which is used if `refine.threshold` is "spliced", or if it is
            "validation" and no validation video has times.
        threshold: tau; overrides `refine.threshold`.
    """

    name = "retrain"
    revision = 4
    command = "avel retrain"
    manifest_type = RetrainManifest

    def __init__(
        self,
        context: Context,
        features: FeatureStage,
        windows: WindowLabels,
        *,
        refined: Refine | None = None,
        screen: Callable[[], Screen] | None = None,
        calibrate: Calibrate | None = None,
        threshold: float | None = None,
    ) -> None:
        super().__init__(context, features)
        self.windows: WindowLabels = windows
        self.refined = refined
        refine = context.config.refine
        self._has_threshold = windows not in ("dummy", "segments") and refine.labels != "soft"
        if threshold is None and not isinstance(refine.threshold, str):
            threshold = refine.threshold
        self._given = threshold
        is_screened = self._has_threshold and threshold is None and refine.is_screened
        self._screen = screen() if screen and is_screened else None
        self._spliced = calibrate

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return the choice of tau, Step 2, or the features, depending on the labels."""
        if self._screen:
            return (self._screen,)
        if self._calibrate:
            return (self._calibrate,)
        return (self.refined,) if self.refined else (self.features,)

    @cached_property
    def _calibrate(self) -> Calibrate | None:
        """The stage that chooses tau on spliced videos, if it does."""
        rule = self.config.refine.threshold
        if not self._has_threshold or self._given is not None or self._screen:
            return None
        if rule == "spliced" or lacks_times(
            self.context.task, self.features.ensure().usable("val")
        ):
            return self._spliced
        return None

    @property
    def is_calibrated(self) -> bool:
        """Whether tau is chosen on spliced videos."""
        return self._calibrate is not None

    def threshold_curves(self) -> dict[str, ThresholdCurve]:
        """Read the curves behind the choice of tau, by part; empty if there are none."""
        source = self._calibrate or self.refined
        return source.threshold_curves() if source else {}

    @cached_property
    def threshold(self) -> Threshold | None:
        """tau; None for soft labels and for labels of videos or segments.

        Raises:
            ArtifactError: The stage that chooses tau is not finished.
            DatasetError: tau could not be chosen.
        """
        if not self._has_threshold:
            return None
        if self._given is not None:
            return self._given
        if self._screen:
            return self._screen.manifest.threshold
        if self._calibrate:
            return self._calibrate.manifest.value()
        assert self.refined
        return self.refined.manifest.value()

    def depends(self) -> Mapping[str, Any]:
        """Return the settings, tau, and Step 2, which depends on the same videos."""
        read = settings(self.config, self.context.task, self.windows, self.threshold)
        if self.refined is None:
            return {"settings": read, **self.videos_identity()}
        return {"settings": read, "refine": self.refined.fingerprint}

    def compute(self, out: Location, run: "Run") -> RetrainManifest:
        """Derive the labels and train from scratch."""
        targets, facts = self._targets()
        _print_facts(facts)
        for warning in self.share_warnings():
            say(f"WARNING: {warning}")
        if facts.windows:
            run.metrics({"background_windows": facts.windows.background})
        num_epochs = self.config.train.retrain_epochs
        num_videos = self.train(
            out,
            run,
            num_epochs=num_epochs,
            windows_of=scored_windows(
                "segments" if self.windows == "segments" else "refined", self.config
            ),
            targets=targets,
        )
        return RetrainManifest(facts.threshold, facts.windows, facts.segments, num_videos)

    def _targets(self) -> tuple[Step3Targets, LabelFacts]:
        task, videos = self.context.task, self.data.videos
        training = self.features.usable("train")
        if self.refined is None:  # LR_dummy: the same windows and losses, without refined labels
            targets_VK = task.targets(videos, training)
            windows_of = scored_windows("refined", self.config)
            length = self.config.data.num_segments
            is_equal = self.features.lengths(training) is None
            num_windows = len(windows_of(length)) if is_equal else most_windows(windows_of, length)
            labels_VWK = repeated_labels(targets_VK, num_windows)
            lengths_V = self.features.lengths(training)
            if lengths_V is not None:
                labels_VWK &= valid_windows(lengths_V, windows_of, length)[..., None]
            return Step3Targets(windows_VWK=labels_VWK), LabelFacts()
        scores_VWK = self.refined.scores(training)
        labels_VWK, facts = pseudo_labels_of(
            task,
            videos,
            training,
            scores_VWK,
            self.threshold,
            self.windows,
            self.refined.valid_windows(training),
        )
        if self.windows == "exchanged":
            return Step3Targets(video_VK=labels_VWK[:, 0].astype(bool, copy=False)), facts
        is_supervised = self.windows == "segments"
        return Step3Targets(windows_VWK=labels_VWK, fully_supervised=is_supervised), facts

    def share_warnings(self) -> list[str]:
        """Return warnings if Step 3 uses the tau of Step 2 and that tau misses its share."""
        if not self._has_threshold or self._given is not None or self._screen or self._calibrate:
            return []
        assert self.refined
        return share_warnings(self.refined.manifest.removed_share)


def settings(
    config: RunConfig, task: Task, windows: WindowLabels, threshold: Threshold | None
) -> dict[str, Any]:
    """Return the settings of Step 3; those of Step 2 are in its fingerprint.

    Args:
        config: Configuration of the run.
        task: Task of the model.
        windows: Source of the labels.
        threshold: The value of tau, independent of how it was chosen.
    """
    unread = {
        "refined": THRESHOLD_CHOICE,
        "alone": THRESHOLD_CHOICE | PARTNERS,
        "exchanged": THRESHOLD_CHOICE | WINDOWS,
        "segments": STEP_3 | PARTNERS | WINDOWS,
        "dummy": STEP_3 | PARTNERS | {"unit_size", "use_gpu"},
    }[windows]
    return {
        **training_settings(config, task, config.train.retrain_epochs),
        "windows": windows,
        "threshold": threshold,
        "refine": refine_section(config, unread),
    }


def pseudo_labels_of(
    task: Task,
    videos: VideoSet,
    training: Sequence[Video],
    scores_VWK: NDArray[np.float32],
    threshold: Threshold | None,
    scored: WindowLabels,
    valid_VW: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.bool_] | NDArray[np.float32], LabelFacts]:
    """Derive the labels of the windows of the training videos.

    Args:
        task: Task of the model.
        videos: Data set.
        training: Training videos.
        scores_VWK: Window probabilities of Step 2, in 0..1.
        threshold: tau; None for soft labels and for segments.
        scored: What Step 2 scored. An exchanged modality is one window with all segments; in
            "segments", each segment is one window.
        valid_VW: True for the windows that a video has; all by default.

    Returns:
        Labels, shape (V, W, K), and facts about them.
    """
    targets_VK = task.targets(videos, training)
    if scored == "segments":
        labels_VTK = task.predicted(scores_VWK)
        if valid_VW is not None:
            labels_VTK &= valid_VW[..., None]
        counts = task.count_segments(targets_VK, labels_VTK, valid_VW)
        return labels_VTK, LabelFacts(segments=counts)
    if threshold is None:
        soft_VWK = soft_labels(scores_VWK, targets_VK, background=task.background)
        if valid_VW is not None:
            soft_VWK *= valid_VW[..., None]
        return soft_VWK, LabelFacts()
    threshold_K = task.threshold_by_column(threshold, targets_VK.shape[-1])
    labels_VWK = pseudo_labels(scores_VWK, targets_VK, threshold_K, background=task.background)
    if valid_VW is not None:
        labels_VWK &= valid_VW[..., None]
    num_before = labels_VWK.sum()
    if scored == "exchanged":
        labels_VWK = modality_targets(labels_VWK[:, 0], targets_VK)[:, None]
    counts = task.count_windows(targets_VK, labels_VWK, valid_VW)
    counts = replace(counts, restored=int(labels_VWK.sum() - num_before))
    plain = dict(threshold) if isinstance(threshold, Mapping) else threshold
    return labels_VWK, LabelFacts(threshold=plain, windows=counts)


def _print_facts(facts: LabelFacts) -> None:
    """Print facts about the labels of Step 3, and warnings."""
    if facts.segments:
        say(f"retrain: {segments_text(facts.segments)}")
    if not facts.windows or facts.threshold is None:
        return
    windows = facts.windows
    say(
        f"retrain: tau {threshold_text(facts.threshold)} keeps {sum(windows.kept_of_class)} "
        f"of {sum(windows.of_class)} labels, and leaves {windows.background} of "
        f"{windows.of_events} windows without an event"
    )
    for warning in window_warnings(windows):
        say(f"WARNING: {warning}")
