"""Entry points of the commands: open a session, run stages, and print the results."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distributed_avel.arms import ARMS
from distributed_avel.cluster.progress import say
from distributed_avel.cluster.tracking import store_uri
from distributed_avel.config import RunConfig
from distributed_avel.pipeline import STAGES, Pipeline
from distributed_avel.publish import publish
from distributed_avel.report.tables import results_table, to_terminal
from distributed_avel.stages.evaluate import PREDICTIONS
from distributed_avel.stages.report import REPORT, RESULTS
from distributed_avel.startup import check_names, started
from distributed_avel.storage import Location

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class RunResult:
    """The results of a finished run.

    Args:
        run_dir: Folder or URI of the run.
        results: Content of `results.json`: `arms` has the metrics of each arm, in percent.
    """

    run_dir: Location
    results: dict[str, Any]

    @property
    def report(self) -> Location:
        """The report page (HTML)."""
        return self.run_dir / REPORT

    @property
    def predictions(self) -> pa.Table:
        """Probabilities, predictions and ground truth of every test segment, by arm.

        The columns are those of `schema.predictions_schema` or `schema.parsing_predictions_schema`.
        """
        return (self.run_dir / PREDICTIONS).read_table()

    @property
    def table(self) -> "pd.DataFrame":
        """Metrics on the test split, in percent: a row for each arm, NaN where undefined."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.results["arms"], orient="index", dtype=float)


def run_pipeline(config: RunConfig) -> RunResult:
    """Run all stages, print the table of results, and return it.

    Raises:
        AvelError: A setting, a file or a service has a problem; the message names the remedy.
    """
    with open_pipeline(config, STAGES) as pipeline:
        publish(pipeline)
        return _summarize(pipeline)


def run_extract(config: RunConfig) -> None:
    """Load the data set and extract its features."""
    with open_pipeline(config, ("data", "extract")) as pipeline:
        say(f"features: {pipeline.features.ensure().location}")


def run_base(config: RunConfig) -> None:
    """Run Step 1: train each base model that the arms need."""
    with open_pipeline(config, ("base",)) as pipeline:
        for auxiliary in sorted({ARMS[arm].auxiliary for arm in config.arms}):
            say(f"base model: {pipeline.base(auxiliary).ensure().location}")


def run_refine(config: RunConfig) -> None:
    """Run Step 2 for each arm that needs it."""
    with open_pipeline(config, ("refine",)) as pipeline:
        for plan in (ARMS[arm] for arm in config.arms):
            if plan.scored:
                refined = pipeline.refine(plan.auxiliary, plan.scored).ensure()
                say(f"window probabilities: {refined.location}")


def run_retrain(config: RunConfig) -> None:
    """Run Step 3 for each arm that has one."""
    with open_pipeline(config, ("calibrate", "screen", "retrain")) as pipeline:
        for arm in config.arms:
            if ARMS[arm].windows:
                say(f"retrained model: {pipeline.arm(arm).ensure().location}")


def run_evaluate(config: RunConfig) -> None:
    """Evaluate all arms and write the report."""
    with open_pipeline(config, ("evaluate", "report")) as pipeline:
        publish(pipeline)
        _summarize(pipeline)


@contextmanager
def open_pipeline(config: RunConfig, may_run: tuple[str, ...]) -> Iterator[Pipeline]:
    """Open a pipeline in a Ray session and an MLflow run.

    Args:
        config: Configuration of the run.
        may_run: Names of the stages that may be computed; the results of all others must exist.

    Raises:
        AvelError: A check before the start fails.
    """
    check_names(config)
    with started(config, config.data.dataset) as tracker:
        yield Pipeline(config, tracker, may_run)


def _summarize(pipeline: Pipeline) -> RunResult:
    results = (pipeline.run_dir / RESULTS).read_json()
    synthetic = ", synthetic" if results["synthetic"] else ""
    title = f"{results['dataset']}{synthetic}: {results['num_test_videos']} test videos"
    table = results_table(results["arms"], title=title, conditions=results["conditions"])
    print(to_terminal(table))  # noqa: T201
    for name in (RESULTS, PREDICTIONS, REPORT):
        say(f"{name}: {pipeline.run_dir / name}")
    if pipeline.config.tracking.enabled:
        say(f"MLflow: {store_uri(pipeline.config.tracking)}")
    return RunResult(pipeline.run_dir, results)
