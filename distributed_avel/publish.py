"""Copies of the results at the top of the run directory and in MLflow."""

from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.evaluate import PREDICTIONS
from distributed_avel.stages.report import REPORT, RESULTS, ReportPage


def publish(pipeline: Pipeline) -> ReportPage:
    """Compute all stages; put results, predictions and report into the run directory and MLflow."""
    report, run_dir = pipeline.report().ensure(), pipeline.run_dir
    results = report.results()
    (run_dir / RESULTS).write_json(results)
    for stage, name in ((report.evaluation, PREDICTIONS), (report, REPORT)):
        (run_dir / name).write_bytes((stage.location / name).read_bytes())
    for arm, values in results["arms"].items():
        pipeline.tracker.parent.metrics({f"{arm}/{key}": value for key, value in values.items()})
    for name in (RESULTS, REPORT):
        pipeline.tracker.parent.file(run_dir / name)
    return report
