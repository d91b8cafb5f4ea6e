"""Stage `report`: the report page of an evaluation, with its table and figures as files.

Shape suffixes used in this file:
    C = event classes    G = thresholds
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from distributed_avel.arms import arm_label
from distributed_avel.cluster.progress import say
from distributed_avel.config import RunConfig
from distributed_avel.datasets import Video, VideoSet, feature_source
from distributed_avel.errors import MediaError
from distributed_avel.method import pseudo_labels
from distributed_avel.method.pseudo_labels import threshold_rule
from distributed_avel.metrics.video import VIDEO_METRICS
from distributed_avel.models import UNVERIFIED, is_verified
from distributed_avel.report.alarms import (
    failure_warnings,
    prediction_warnings,
    result_warnings,
    window_warnings,
)
from distributed_avel.report.conditions import times_conditions
from distributed_avel.report.figures import standalone, threshold_figure, windows_figure
from distributed_avel.report.page import page_files
from distributed_avel.report.page_data import (
    Failure,
    LearningCurve,
    Pictures,
    Report,
    ThresholdPlot,
    WindowSummary,
)
from distributed_avel.report.pictures import pictures_of
from distributed_avel.report.predictions import LocalizationPredictions, ParsingPredictions
from distributed_avel.report.tables import class_table, interval_numbers, results_table, to_csv
from distributed_avel.report.task_views import view_of
from distributed_avel.report.templates import flatten
from distributed_avel.stages.base import BaseTraining
from distributed_avel.stages.cache_keys import (
    model_settings,
    refine_section,
    unread_by_training,
    without_neutral,
)
from distributed_avel.stages.data import settings as data_settings
from distributed_avel.stages.evaluate import Evaluate
from distributed_avel.stages.retrain import LabelFacts, Retrain
from distributed_avel.stages.stage import Context, NoManifest, Stage
from distributed_avel.storage import Location
from distributed_avel.tasks import Parsing, Task, WindowCounts
from distributed_avel.train.initial_weights import WeightsSource

if TYPE_CHECKING:  # MLflow takes seconds to load, and workers do not need it
    from distributed_avel.cluster.tracking import Run

PAGE_STEM = "report"
REPORT = f"{PAGE_STEM}.html"
RESULTS = "results.json"
_MAX_FAILURES = 50


class ReportPage(Stage[NoManifest]):
    """The report page of an evaluation.

    Args:
        evaluation: Evaluation of all arms.
        arm: Arm whose tau and windows the page shows, if there is one.
        refined: Step 3 of this arm.
    """

    name = "report"
    revision = 5
    command = "avel evaluate"
    manifest_type = NoManifest

    def __init__(
        self, context: Context, evaluation: Evaluate, arm: str | None, refined: Retrain | None
    ) -> None:
        super().__init__(context)
        self.evaluation, self.refined = evaluation, refined
        self.arm = arm
        self.features = evaluation.features
        self.data = self.features.data

    def inputs(self) -> Sequence[Stage[Any]]:
        """Return the evaluation."""
        return (self.evaluation,)

    def depends(self) -> Mapping[str, Any]:
        """Return the settings that the page shows, and fingerprints of what it reads."""
        return {
            "settings": self._settings(),
            "evaluate": self.evaluation.fingerprint,
            "data": self.data.fingerprint,
            "extract": self.features.fingerprint,
        }

    def _settings(self) -> dict[str, Any]:
        return settings(self.config, self.context.task, self.features.artifact.settings)

    def compute(self, out: Location, run: "Run") -> NoManifest:
        """Write the page, its table and its figures."""
        for name in write_report(self._sources(), out):
            folder, _, _ = name.rpartition("/")
            run.file(out / name, folder or None)
        return NoManifest()

    def pages(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of the page and of what belongs to it, to be copied elsewhere.

        The copy of a page can play the media files, which the page of the stage cannot know,
        because results are reused where the files have moved.
        """
        for name in page_names(self.location):
            yield name, (self.location / name).read_bytes()

    @property
    def media_root(self) -> Location | None:
        """The folder of the media files; None if the data set brought features."""
        return None if feature_source(self.config.data.dataset) else self.data.root

    def results(self) -> dict[str, Any]:
        """Return the content of `results.json`."""
        config, task = self.config, self.context.task
        facts = self._label_facts
        test, validation = self.features.usable("test"), self.features.usable("val")
        tau = threshold_rule(config.refine.threshold, config.refine.labels)
        if self.refined and self.refined.is_calibrated and config.refine.threshold != "spliced":
            tau = f"{threshold_rule('spliced')}, because no validation video has times"
        conditions = {"g": task.loss_name, "tau": tau}
        conditions |= times_conditions(task, test, validation, config.train.keep)
        if (source := self._initial_weights()) is not None:
            training = "trained further" if config.train.base_epochs else "not trained"
            conditions["Step 1"] = f"given weights, sha256 {source.sha256[:12]}, {training}"
        if not is_verified(config.model.name):
            conditions[config.model.name] = UNVERIFIED
        return {
            "arms": self.evaluation.metrics(),
            "dataset": self.data.videos.name,
            "synthetic": self.data.videos.synthetic,
            "seed": config.seed,
            "threshold": facts.threshold,
            "windows": asdict(facts.windows) if facts.windows else None,
            "window": config.refine.window,
            "stride": config.refine.stride,
            "loss": task.loss_name,
            "conditions": conditions,
            "num_test_videos": len(test),
            "num_test_videos_with_times": int(task.annotated(test).sum()),
            "num_test_videos_lost": len(self.data.videos.split("test")) - len(test),
        }

    def _initial_weights(self) -> WeightsSource | None:
        """Return the file of weights with which Step 1 starts, if an arm depends on one."""
        stages = self.evaluation.arms.values()
        refined = [stage.refined for stage in stages if isinstance(stage, Retrain)]
        bases = [stage for stage in stages if isinstance(stage, BaseTraining)]
        bases += [stage.base for stage in refined if stage is not None]
        return bases[0].source if bases else None

    @property
    def _label_facts(self) -> LabelFacts:
        return self.refined.manifest if self.refined else LabelFacts()

    def _sources(self) -> "ReportSources":
        config, results, model = self.config, self.results(), self.config.model.name
        base = arm_label(model, "base")
        refined = arm_label(model, self.arm) if self.arm else ""
        arms, windows = self.evaluation.arms, self._label_facts.windows
        return ReportSources(
            task=self.context.task,
            videos=self.data.videos,
            root=self.media_root,
            predictions=self.evaluation.predictions(),
            results=results,
            windows=windows,
            shown=sorted(arms, key=lambda name: (name == refined) - (name == base)),
            refined=refined,
            exchanged=self.refined is not None and self.refined.windows == "exchanged",
            curves={name: arm.curves() for name, arm in arms.items()},
            failures=self.features.failures(),
            threshold_curves=self.refined.threshold_curves() if self.refined else {},
            spliced=self.refined is not None and self.refined.is_calibrated,
            settings=self._settings(),
            provenance=self.evaluation.artifact.provenance(),
            warnings=self._warnings(windows),
            num_timelines=config.report.num_timelines,
        )

    def _warnings(self, windows: WindowCounts | None) -> list[str]:
        note = self.features.manifest.weights_note
        return [
            *([note] if note else []),
            *(window_warnings(windows) if windows else []),
            *(self.refined.share_warnings() if self.refined else []),
            *prediction_warnings(self.evaluation.manifest.background),
        ]


def settings(config: RunConfig, task: Task, extract: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the page shows.

    Settings that a stage does not hash are omitted, because its result may come from a run in which
    they had other values.

    Args:
        config: Configuration of the run.
        task: Task of the model.
        extract: Settings that the features depend on.
    """
    return {
        **without_neutral(config),
        "data": data_settings(config),
        "extract": dict(extract),
        "model": model_settings(config),
        "train": without_neutral(config.train, "train", unread_by_training(config, task)),
        "refine": refine_section(config, frozenset()),
    }


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """Inputs of the report page.

    Args:
        task: Task of the models.
        videos: Data set.
        root: Folder of the media files; None if there are none.
        predictions: Predictions of every segment of the test split, by arm.
        results: Content of `results.json`.
        windows: Counts of the pseudo-labels of `refined`.
        shown: Arms to compare, the base model first and the refined arm last.
        refined: Arm of `threshold_curves`.
        exchanged: Whether Step 2 of that arm labelled whole modalities instead of windows.
        curves: Learning curves (`schema.CURVES`), by arm.
        failures: Videos without features (`schema.FAILURES`).
        threshold_curves: Curves behind the choice of tau, by part.
        spliced: Whether these curves are of spliced videos.
        settings: Settings to show.
        provenance: Provenance of the evaluation.
        warnings: Warnings to show.
        num_timelines: Number of videos with pictures.
    """

    task: Task
    videos: VideoSet
    root: Location | None
    predictions: pa.Table
    results: Mapping[str, Any]
    windows: WindowCounts | None
    shown: Sequence[str]
    refined: str
    exchanged: bool
    curves: Mapping[str, pa.Table]
    failures: pa.Table
    threshold_curves: Mapping[str, pseudo_labels.ThresholdCurve]
    spliced: bool
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    warnings: Sequence[str]
    num_timelines: int


def write_report(sources: ReportSources, out: Location) -> list[str]:
    """Write the page, and its table and figures as separate files, to `out`.

    Returns:
        The paths of the files below `out`.
    """
    table = sources.predictions
    if isinstance(sources.task, Parsing):
        predictions = ParsingPredictions(table, sources.videos, exchanged=sources.exchanged)
    else:
        predictions = LocalizationPredictions(table, sources.videos)
    failures = sources.failures.slice(0, _MAX_FAILURES).to_pylist()
    report = predictions.report(
        sources.shown,
        sources.num_timelines,
        partial(_pictures, sources),
        results=sources.results["arms"],
        conditions=sources.results["conditions"],
        settings=sources.settings,
        provenance=dict(flatten(sources.provenance)),
        warnings=tuple(sources.warnings),
        threshold_curves=_threshold_curves(sources),
        spliced=sources.spliced,
        learning_curves=tuple(_learning_curves(sources)),
        windows=_window_summary(sources.windows),
        failures=tuple(
            Failure(video_id=f["video_id"], stage=f["stage"], error=f["error"]) for f in failures
        ),
        num_failures=sources.failures.num_rows,
    )
    alarms = [
        *failure_warnings(sources.failures.num_rows, len(sources.videos.videos)),
        *result_warnings(report),
    ]
    for alarm in alarms:
        say(f"WARNING: {alarm}")
    report = replace(report, warnings=(*report.warnings, *alarms))
    files = {**page_files(report, REPORT), **dict(_table_and_figures(report))}
    for name, text in files.items():
        (out / name).write_bytes(text.encode())
    return [*files]


def page_names(folder: Location) -> Iterator[str]:
    """Yield the paths of the page and of the files that belong to it."""
    for file in folder.children():
        if file.name == f"{PAGE_STEM}_videos":
            yield from (f"{file.name}/{part.name}" for part in file.children())
        elif file.name in (REPORT, f"{PAGE_STEM}_single.html"):
            yield file.name


def _table_and_figures(report: Report) -> Iterator[tuple[str, str]]:
    """Yield name and content of the files of the table and the figures."""
    yield "results.csv", to_csv(results_table(report.results, conditions=report.conditions))
    if report.intervals:
        yield "intervals.csv", to_csv(interval_numbers(report.intervals))
        yield "classes.csv", to_csv(class_table(report.class_scores))
    view = view_of(report)
    for name, figure in view.files():
        yield name, standalone(figure)
    for part, curve in report.threshold_curves.items():
        suffix = f"_{part}" if len(report.threshold_curves) > 1 else ""
        yield f"thresholds{suffix}.svg", standalone(threshold_figure(curve))
    if report.windows:
        yield "windows.svg", standalone(windows_figure(report.windows, report.classes, view.unit))


def _threshold_curves(sources: ReportSources) -> dict[str, ThresholdPlot]:
    chosen = sources.results["threshold"]
    if chosen is None:
        return {}
    return {
        part: ThresholdPlot(
            thresholds=tuple(curve.thresholds_G.tolist()),
            sensitivity=tuple(curve.sensitivity_G.tolist()),
            specificity=tuple(curve.specificity_G.tolist()),
            chosen=chosen[part] if isinstance(chosen, Mapping) else chosen,
            arm=sources.refined,
        )
        for part, curve in sources.threshold_curves.items()
    }


def _window_summary(windows: WindowCounts | None) -> WindowSummary | None:
    if windows is None:
        return None
    return WindowSummary(
        num_videos=windows.videos,
        num_windows=windows.of_events,
        num_background=windows.background,
        of_video_C=tuple(windows.of_class),
        kept_C=tuple(windows.kept_of_class),
    )


def _learning_curves(sources: ReportSources) -> list[LearningCurve]:
    validated = (*sources.task.criterion, *VIDEO_METRICS)
    metrics = ("train/total", *(f"val/{metric}" for metric in validated))
    found = []
    for arm, table in sources.curves.items():
        for metric in metrics:
            rows = table.filter(pc.field("metric") == metric)
            if rows.num_rows:
                found.append(
                    LearningCurve(
                        arm=arm,
                        metric=metric,
                        epochs=tuple(rows["epoch"].to_pylist()),
                        values=tuple(rows["value"].to_pylist()),
                    )
                )
    return found


def _pictures(sources: ReportSources, video: Video, num_segments: int) -> Pictures:
    """Return the pictures of a video; none if the media file cannot be read."""
    if sources.root is None:
        return Pictures()
    try:
        media = (sources.root / video.uri).read_bytes()
        return pictures_of(media, replace(sources.videos.timeline, num_segments=num_segments))
    except (MediaError, OSError) as error:
        say(f"report: no pictures of {video.video_id}: {error}")
        return Pictures()
