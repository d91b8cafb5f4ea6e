"""Copies of the results at the top of the run directory and in MLflow."""

import hashlib
from typing import Any

from distributed_avel.arms import arm_description, arm_label
from distributed_avel.metrics.parsing import DECISION_THRESHOLD
from distributed_avel.models import model_class
from distributed_avel.pipeline import Pipeline
from distributed_avel.predict.model_folder import MODEL, write_model_folder
from distributed_avel.predict.run_models import write_run_models
from distributed_avel.provenance import package_versions
from distributed_avel.report.page import with_media_root
from distributed_avel.stages.evaluate import PREDICTIONS
from distributed_avel.stages.extract import Extract
from distributed_avel.stages.report import REPORT, RESULTS, ReportPage
from distributed_avel.stages.retrain import Retrain
from distributed_avel.stages.training import WEIGHTS, TrainingStage
from distributed_avel.storage import Location
from distributed_avel.tasks import Parsing
from distributed_avel.version import VERSION


def publish(pipeline: Pipeline) -> ReportPage:
    """Compute all stages; put results, predictions, report and models into the run directory."""
    report, run_dir = pipeline.report().ensure(), pipeline.run_dir
    results = report.results()
    (run_dir / RESULTS).write_json(results)
    predictions = (report.evaluation.location / PREDICTIONS).read_bytes()
    (run_dir / PREDICTIONS).write_bytes(predictions)
    for name, content in report.pages():
        (run_dir / name).write_bytes(_playing(content, name, report.media_root, run_dir))
    publish_models(pipeline, report)
    for arm, values in results["arms"].items():
        pipeline.tracker.parent.metrics({f"{arm}/{key}": value for key, value in values.items()})
    for name in (RESULTS, REPORT):
        pipeline.tracker.parent.file(run_dir / name)
    return report


def _playing(content: bytes, name: str, media: Location | None, run_dir: Location) -> bytes:
    """Let a page play the media files, if the page and the files are on the local file system."""
    if not name.endswith(".html") or media is None or not (media.is_local and run_dir.is_local):
        return content
    return with_media_root(content.decode(), run_dir.path, media.path).encode()


def publish_models(pipeline: Pipeline, report: ReportPage) -> None:
    """Write the model folder of the refined arm, and the list of the models of all arms."""
    run_dir, arms = pipeline.run_dir, pipeline.config.arms
    default, metrics = report.arm or arms[-1], pipeline.evaluate().metrics()
    settings = {arm: _settings(pipeline, report, arm) for arm in arms}
    weights = {arm: (pipeline.arm(arm).location / WEIGHTS).read_bytes() for arm in arms}
    label = settings[default]["arm"]
    write_model_folder(
        run_dir / MODEL, settings[default], weights[default], metrics[label], arms=metrics
    )
    write_run_models(
        run_dir,
        {
            arm: {**settings[arm], "sha256": hashlib.sha256(weights[arm]).hexdigest()}
            for arm in arms
        },
        {arm: _path_of_weights(pipeline.arm(arm)) for arm in arms},
        default,
        metrics,
    )


def _path_of_weights(stage: TrainingStage[Any]) -> str:
    """Return the path of the weights of a stage, below the run directory."""
    return f"{stage.name}/{stage.fingerprint}/{WEIGHTS}"


def _settings(pipeline: Pipeline, report: ReportPage, arm: str) -> dict[str, Any]:
    """Return the settings of the model folder of an arm, without the hash of its weights."""
    config, features, videos = pipeline.config, pipeline.features, pipeline.videos
    is_extracted, stage = isinstance(features, Extract), pipeline.arm(arm)
    return {
        "version": VERSION,
        "packages": package_versions(),
        "arm": arm_label(config.model.name, arm),
        "description": arm_description(config.model.name, arm),
        "seed": config.seed,
        "task": model_class(config.model.name).task,
        "tau": stage.manifest.threshold if isinstance(stage, Retrain) else None,
        "decision_threshold": DECISION_THRESHOLD if isinstance(pipeline.task, Parsing) else None,
        "dataset": videos.name,
        "synthetic": videos.synthetic,
        "num_videos": features.data.manifest.num_videos,
        "conditions": report.results()["conditions"],
        "classes": videos.classes,
        "num_segments": videos.timeline.num_segments,
        "segment_s": videos.timeline.segment_s,
        "model": config.model,
        "train": config.train,
        "extract": config.extract if is_extracted else None,
        "extractor_provenance": features.artifact.depends["extractor"] if is_extracted else {},
        "audio_shape": features.manifest.audio_shape,
        "visual_shape": features.manifest.visual_shape,
    }
