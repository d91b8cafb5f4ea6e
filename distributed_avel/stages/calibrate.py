"""Stage `calibrate`: choose tau without times, on spliced videos whose labels are known.

An event must be both visible and audible. In a copy of a training video whose audio, or whose
visual stream, is that of a partner video, no segment has the events of the video, whatever its
label says. The base model scores the windows of these copies as in Step 2. tau is the value that
best separates them from the windows of the videos themselves (the largest Youden index).

In parsing, replacing the audio removes the audible events only, so each modality has its own
copies and its own tau.

Copies in which both modalities are replaced are easier to recognize than the background of a video
with an event, and give a tau that removes almost no label (`benchmarks/spliced_threshold.py`).

Shape suffixes used in this file:
    V = videos    S = spliced copies    W = windows    K = columns of labels
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distributed_avel.config import RunConfig
from distributed_avel.datasets import Video
from distributed_avel.method.pseudo_labels import (
    ThresholdCurve,
    most_separating,
    removed_shares,
    separation_curve,
    threshold_grid,
)
from distributed_avel.randomness import derive
from distributed_avel.search.screen import USELESS
from distributed_avel.stages.cache_keys import STEP_3, refine_section
from distributed_avel.stages.refine import Refine, read_window_scores, score_windows
from distributed_avel.stages.stage import Context, Stage
from distributed_avel.stages.thresholds import (
    THRESHOLDS_FILE,
    ChosenThreshold,
    read_threshold_curves,
    single_windows,
    threshold_metrics,
    write_threshold_curves,
)
from distributed_avel.storage import Location
from distributed_avel.tasks import Modality

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

_MAX_VIDEOS = 1000
"""Videos that are spliced: with 4 windows each, the rates are known to one point."""


class Calibrate(Stage[ChosenThreshold]):
    """Chooses tau on spliced training videos.

    Args:
        refined: Step 2, whose window probabilities of the training videos are compared.
    """

    name = "calibrate"
    revision = 2
    command = "avel retrain"
    manifest_type = ChosenThreshold

    def __init__(self, context: Context, refined: Refine) -> None:
        super().__init__(context)
        self.refined = refined

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return Step 2."""
        return (self.refined,)

    def depends(self) -> Mapping[str, Any]:
        """Return the settings, and Step 2, which depends on the same videos."""
        return {"settings": settings(self.config), "refine": self.refined.fingerprint}

    def compute(self, out: Location, run: "Run") -> ChosenThreshold:
        """Score the spliced videos and choose tau."""
        task, seed = self.context.task, self.config.seed
        videos = self.refined.base.features.data.videos
        training = self.refined.base.features.usable("train")
        with_event = sorted(
            (video for video in training if video.labels),
            key=lambda video: derive(seed, "calibrate", video.video_id),
        )[:_MAX_VIDEOS]
        if not with_event:
            return ChosenThreshold(no_threshold="no training video with an event is usable")
        targets_VK = task.targets(videos, with_event)
        prob_VWK = self.refined.scores(with_event)
        training_VWK, training_VK = self.refined.scores(training), task.targets(videos, training)
        modalities: set[Modality] = {m for needed in task.needs.values() for m in needed}
        spliced = {
            modality: self._spliced(modality, with_event, training, out)
            for modality in sorted(modalities)
        }
        valid_VW, training_valid_VW = (
            self.refined.valid_windows(some) for some in (with_event, training)
        )
        if valid_VW is not None and training_valid_VW is not None:
            prob_VWK, targets_VK = single_windows(prob_VWK, targets_VK, valid_VW)
            spliced = {name: scores_VWK[valid_VW][:, None] for name, scores_VWK in spliced.items()}
            training_VWK, training_VK = single_windows(training_VWK, training_VK, training_valid_VW)
        size = targets_VK.shape[-1] // len(task.parts)
        curves, best, shares = {}, {}, {}
        for number, part in enumerate(task.parts):
            columns = slice(number * size, (number + 1) * size)
            curves[part] = separation_curve(
                prob_VWK[..., columns],
                np.stack([spliced[modality][..., columns] for modality in task.needs[part]]),
                targets_VK[:, columns],
                threshold_grid(),
                background=task.background,
            )
            best[part], youden = most_separating(curves[part])
            if youden < USELESS:
                return ChosenThreshold(
                    no_threshold=f"{part}: the base model scores windows of spliced videos, which "
                    "lack the events, like those of the videos themselves; train Step 1 longer"
                )
            removed_G = removed_shares(
                training_VWK[..., columns],
                training_VK[:, columns],
                np.array([best[part]]),
                background=task.background,
            )
            shares[part] = float(removed_G[0])
        write_threshold_curves(curves, out)
        threshold = best if len(best) > 1 else next(iter(best.values()))
        run.metrics(threshold_metrics(threshold))
        names = shares if len(shares) > 1 else {"": next(iter(shares.values()))}
        run.metrics(
            {f"removed_share_achieved_{part}".rstrip("_"): share for part, share in names.items()}
        )
        run.file(out / THRESHOLDS_FILE)
        return ChosenThreshold(threshold=threshold)

    def _spliced(
        self,
        replaced: Modality,
        with_event: Sequence[Video],
        training: Sequence[Video],
        out: Location,
    ) -> NDArray[np.float32]:
        """Score copies of videos with one modality of a donor, shape (V, W, K)."""
        refined = self.refined
        score_windows(
            refined.base.features.data.videos,
            with_event,
            training,
            make_model=refined.base.trained(),
            features=refined.base.features.location,
            task=self.context.task,
            windows_of=refined.windows_of,
            config=self.config.refine,
            seed=self.config.seed,
            out=out / replaced,
            scored=refined.scored,
            replaced=replaced,
            in_process=self.context.execution.in_process,
        )
        return read_window_scores(out / replaced, [video.video_id for video in with_event])

    def threshold_curves(self) -> dict[str, ThresholdCurve]:
        """Read the curves behind the choice of tau, by part; empty if tau was not chosen."""
        return read_threshold_curves(self.location)


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of the spliced videos; those of Step 2 are in its fingerprint."""
    return {"seed": config.seed, "refine": refine_section(config, STEP_3)}
