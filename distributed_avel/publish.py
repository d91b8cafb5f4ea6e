"""Copies of the results at the top of the run directory and in MLflow."""

from distributed_avel.arms import arm_label
from distributed_avel.pipeline import Pipeline
from distributed_avel.predict.model_folder import write_model_folder
from distributed_avel.stages.evaluate import PREDICTIONS
from distributed_avel.stages.extract import Extract
from distributed_avel.stages.report import REPORT, RESULTS, ReportPage
from distributed_avel.stages.training import WEIGHTS
from distributed_avel.version import VERSION

MODEL = "model"


def publish(pipeline: Pipeline) -> ReportPage:
    """Compute all stages; put results, predictions, report and model into the run directory."""
    report, run_dir = pipeline.report().ensure(), pipeline.run_dir
    results = report.results()
    (run_dir / RESULTS).write_json(results)
    for stage, name in ((report.evaluation, PREDICTIONS), (report, REPORT)):
        (run_dir / name).write_bytes((stage.location / name).read_bytes())
    publish_model(pipeline, report.arm or pipeline.config.arms[-1])
    for arm, values in results["arms"].items():
        pipeline.tracker.parent.metrics({f"{arm}/{key}": value for key, value in values.items()})
    for name in (RESULTS, REPORT):
        pipeline.tracker.parent.file(run_dir / name)
    return report


def publish_model(pipeline: Pipeline, arm: str) -> None:
    """Write the model folder of an arm, for `avel predict` and `load_model`."""
    config, features, videos = pipeline.config, pipeline.features, pipeline.videos
    label = arm_label(config.model.name, arm)
    is_extracted = isinstance(features, Extract)
    write_model_folder(
        pipeline.run_dir / MODEL,
        {
            "version": VERSION,
            "arm": label,
            "dataset": videos.name,
            "synthetic": videos.synthetic,
            "classes": videos.classes,
            "num_segments": videos.timeline.num_segments,
            "segment_s": videos.timeline.segment_s,
            "model": config.model,
            "train": config.train,
            "extract": config.extract if is_extracted else None,
            "extractor_provenance": features.artifact.depends["extractor"] if is_extracted else {},
            "audio_shape": features.manifest.audio_shape,
            "visual_shape": features.manifest.visual_shape,
        },
        (pipeline.arm(arm).location / WEIGHTS).read_bytes(),
        pipeline.evaluate().metrics()[label],
    )
