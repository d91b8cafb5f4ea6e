"""What a run shows: `results.json`, its predictions and the report page, and the same in MLflow."""

from collections.abc import Mapping
from typing import Any

from distributed_avel.arms import ARMS, arm_label, refined_arm
from distributed_avel.artifacts import Stage
from distributed_avel.datasets import feature_source
from distributed_avel.models import UNVERIFIED, is_verified
from distributed_avel.pipeline import Pipeline
from distributed_avel.refine.pseudo_labels import threshold_rule
from distributed_avel.report.alarms import prediction_warnings, window_warnings
from distributed_avel.runtime.cache_keys import report_settings
from distributed_avel.runtime.evaluate import METRICS, PREDICTIONS
from distributed_avel.runtime.extract import FAILURES_FILE
from distributed_avel.runtime.report import REPORT, ReportSources, write_report
from distributed_avel.runtime.thresholds import read_threshold_curves
from distributed_avel.runtime.tracking import Run
from distributed_avel.runtime.train import CURVES_FILE

RESULTS = "results.json"


def publish(pipeline: Pipeline) -> None:
    """Put results, predictions and report at the top of the run directory, and in MLflow."""
    evaluated, reported = pipeline.evaluate(), report(pipeline)
    found = results(pipeline, evaluated)
    (pipeline.run_dir / RESULTS).write_json(found)
    _copy_up(pipeline, evaluated, PREDICTIONS)
    _copy_up(pipeline, reported, REPORT)
    for arm, values in found["arms"].items():
        pipeline.tracker.parent.metrics({f"{arm}/{key}": value for key, value in values.items()})
    for name in (RESULTS, REPORT):
        pipeline.tracker.parent.file(pipeline.run_dir / name)


def report(pipeline: Pipeline) -> Stage:
    """The report page of the evaluation."""
    evaluated = pipeline.evaluate()
    of_features = pipeline.extract.depends["settings"]
    settings = report_settings(pipeline.config, pipeline.task, of_features)
    stage = pipeline.stage("report", settings=settings, evaluate=evaluated)

    def compute(run: Run) -> dict[str, Any]:
        for file in write_report(_sources(pipeline, evaluated, settings), stage.location):
            run.file(file)
        return {}

    return pipeline.stages.ensure(stage, compute)


def results(pipeline: Pipeline, evaluated: Stage) -> dict[str, Any]:
    """What `results.json` holds."""
    config = pipeline.config
    arm = refined_arm(config.arms)
    refined = {} if arm is None else pipeline.arm(arm).manifest()
    num_usable = len(pipeline.usable("test"))
    return {
        "arms": (evaluated.location / METRICS).read_json(),
        "dataset": pipeline.videos.name,
        "synthetic": pipeline.videos.synthetic,
        "seed": config.seed,
        "threshold": refined.get("threshold"),
        "windows": refined.get("windows"),
        "window": config.refine.window,
        "stride": config.refine.stride,
        "loss": pipeline.task.loss_name,
        "conditions": conditions(pipeline),
        "num_test_videos": num_usable,
        "num_test_videos_lost": len(pipeline.videos.split("test")) - num_usable,
    }


def conditions(pipeline: Pipeline) -> dict[str, str]:
    """What the figures of a run depend on; see `report.tables.Table`."""
    config = pipeline.config
    found = {
        "g": pipeline.task.loss_name,
        "tau": threshold_rule(config.refine.threshold, config.refine.labels),
    }
    if not is_verified(config.model.name):
        found[config.model.name] = UNVERIFIED
    return found


def _sources(pipeline: Pipeline, evaluated: Stage, settings: Mapping[str, Any]) -> ReportSources:
    config, arms, found = pipeline.config, pipeline.arms(), results(pipeline, evaluated)
    arm = refined_arm(config.arms)
    plan = ARMS[arm] if arm else None
    scored = plan and plan.scored and pipeline.refine(plan.auxiliary, plan.scored)
    base = arm_label(config.model.name, "base")
    refined = arm_label(config.model.name, arm) if arm else ""
    return ReportSources(
        task=pipeline.task,
        videos=pipeline.videos,
        root=None if feature_source(config.data.dataset) else pipeline.root,
        evaluated=evaluated.location,
        results=found,
        shown=sorted(arms, key=lambda name: (name == refined) - (name == base)),
        refined=refined,
        exchanged=plan is not None and plan.windows == "exchanged",
        curves={name: (a.location / CURVES_FILE).read_table() for name, a in arms.items()},
        failures=(pipeline.extract.location / FAILURES_FILE).read_table(),
        threshold_curves=read_threshold_curves(scored.location) if scored else {},
        settings=settings,
        provenance=evaluated.manifest()["provenance"],
        warnings=_warnings(pipeline, found["windows"], evaluated),
        num_timelines=config.report.num_timelines,
    )


def _warnings(pipeline: Pipeline, windows: Mapping[str, Any] | None, evaluated: Stage) -> list[str]:
    note = pipeline.extract.manifest()["weights_note"]
    arm = refined_arm(pipeline.config.arms)
    plan = ARMS[arm] if arm else None
    return [
        *([note] if note else []),
        *(window_warnings(windows) if windows else []),
        *(pipeline.share_warnings(plan.auxiliary, plan.windows) if plan and plan.windows else []),
        *prediction_warnings(evaluated.manifest()["background"]),
    ]


def _copy_up(pipeline: Pipeline, stage: Stage, name: str) -> None:
    (pipeline.run_dir / name).write_bytes((stage.location / name).read_bytes())
