"""What the jobs run: a session, a tracker, and the stages that were asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from distributed_avel.arms import ARMS, PARSING_ARMS
from distributed_avel.artifacts import Location
from distributed_avel.config import RunConfig
from distributed_avel.datasets import dataset_reader
from distributed_avel.errors import ConfigError
from distributed_avel.features.base import extractor_options
from distributed_avel.models import model_class, model_options
from distributed_avel.pipeline import STAGES, Pipeline
from distributed_avel.publish import RESULTS, publish
from distributed_avel.registry import import_plugins
from distributed_avel.report.tables import results_table, to_terminal
from distributed_avel.runtime.evaluate import PREDICTIONS
from distributed_avel.runtime.preflight import check_before_start
from distributed_avel.runtime.progress import say
from distributed_avel.runtime.report import REPORT
from distributed_avel.runtime.session import ray_session, require
from distributed_avel.runtime.tracking import Tracker, store_uri, tracked

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
        """The report page, HTML."""
        return self.run_dir / REPORT

    @property
    def predictions(self) -> pa.Table:
        """Probabilities, prediction and ground truth of every segment of the test split."""
        return (self.run_dir / PREDICTIONS).read_table()

    @property
    def table(self) -> "pd.DataFrame":
        """Metrics on the test split, in percent: a row for each arm, NaN where undefined."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.results["arms"], orient="index", dtype=float)


def run_pipeline(config: RunConfig) -> RunResult:
    """Run all stages, print the table of results, and return it.

    Raises:
        AvelError: A setting, a file or a service is wrong; the message names it and the remedy.
    """
    with open_pipeline(config, STAGES) as pipeline:
        publish(pipeline)
        return _summarize(pipeline)


def run_extract(config: RunConfig) -> None:
    """The data and its features."""
    with open_pipeline(config, ("data", "extract")) as pipeline:
        say(f"features: {pipeline.extract.location}")


def run_base(config: RunConfig) -> None:
    """Step 1, as often as the arms need it."""
    with open_pipeline(config, ("base",)) as pipeline:
        for auxiliary in sorted({ARMS[arm].auxiliary for arm in config.arms}):
            say(f"base model: {pipeline.base(auxiliary).location}")


def run_refine(config: RunConfig) -> None:
    """Step 2."""
    with open_pipeline(config, ("refine",)) as pipeline:
        for plan in (ARMS[arm] for arm in config.arms):
            if plan.scored:
                done = pipeline.refine(plan.auxiliary, plan.scored)
                say(f"window probabilities: {done.location}")


def run_retrain(config: RunConfig) -> None:
    """Step 3."""
    with open_pipeline(config, ("screen", "retrain")) as pipeline:
        for arm in config.arms:
            if ARMS[arm].windows:
                say(f"retrained model: {pipeline.arm(arm).location}")


def run_evaluate(config: RunConfig) -> None:
    """Evaluation and report."""
    with open_pipeline(config, ("evaluate", "report")) as pipeline:
        publish(pipeline)
        _summarize(pipeline)


def check_names(config: RunConfig) -> None:
    """Refuse names that no registry has, and options of none, all at once, before anything starts.

    Raises:
        ConfigError: The message has every wrong name and the ones there are.
    """
    checks: list[Callable[[], object]] = [
        lambda: dataset_reader(config.data.dataset),
        lambda: extractor_options(config.extract.extractor, config.extract.options),
        lambda: model_options(config.model.name, config.model.options),
    ]
    import_plugins(config.plugins)
    problems = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems.append(str(error))
    if not problems:
        problems += _mismatches(config)
    if problems:
        raise ConfigError("\n".join(problems))


def _mismatches(config: RunConfig) -> list[str]:
    """Settings that this model has no use for."""
    if model_class(config.model.name).task != "parsing":
        return [
            f"arms: arm {arm} needs an audio-visual parsing model such as han; "
            f"{config.model.name} is a localization model"
            for arm in config.arms
            if arm in PARSING_ARMS
        ]
    problems = []
    if config.model.pooling != "model":
        problems.append(
            f"model.pooling: {config.model.name} pools by an attention of its own; leave it out"
        )
    if config.refine.labels == "soft" and "MA" in config.arms:
        problems.append(
            "refine.labels: MA removes a label from a modality or leaves it, so it has no soft "
            "labels; set them to hard, or leave MA out"
        )
    return problems


@contextmanager
def open_pipeline(config: RunConfig, may_run: tuple[str, ...]) -> Iterator[Pipeline]:
    """A pipeline within a Ray session and an MLflow run; only these stages may be computed."""
    check_names(config)
    with started(config, config.data.dataset) as tracker:
        yield Pipeline(config, tracker, may_run)


@contextmanager
def started(config: RunConfig, name: str) -> Iterator[Tracker]:
    """A Ray session and an MLflow run, after all that can be known to be wrong was checked."""
    check_before_start(config)
    with ray_session(config.cluster), tracked(config, name) as tracker:
        require(config)
        yield tracker


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
