"""MLflow: one parent run for a pipeline, a child run for each stage that was computed.

Only the driver logs, through the client and with explicit run ids, so that nothing depends on
what is "active". A pipeline that is started again with the same settings goes on in its own
parent run.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from distributed_avel.artifacts import Location
from distributed_avel.config import RunConfig, TrackingConfig
from distributed_avel.provenance import commit

_LOCAL_STORE = "runs"
_KEY_TAG = "distributed_avel.key"
_MAX_PARAM_CHARS = 500
_BATCH = 900


class Run:
    """One MLflow run; without a client it keeps nothing."""

    def __init__(self, client: MlflowClient | None, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log nested settings under dotted names; MLflow refuses to change one later."""
        flat = [Param(_name(k), str(v)[:_MAX_PARAM_CHARS]) for k, v in _flatten(values)]
        if self._client:
            for start in range(0, len(flat), 100):
                self._client.log_batch(self.run_id, params=flat[start : start + 100])

    def tags(self, values: Mapping[str, str]) -> None:
        """Log tags."""
        if self._client:
            tags = [RunTag(key, value) for key, value in values.items()]
            self._client.log_batch(self.run_id, tags=tags)

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Log metrics of one step; one that is undefined is left out."""
        now_ms = int(time.time() * 1000)
        defined = {name: value for name, value in values.items() if value is not None}
        self._log([Metric(_name(name), value, now_ms, step) for name, value in defined.items()])

    def curves(self, table: pa.Table) -> None:
        """Log learning curves of `schema.CURVES`."""
        now_ms = int(time.time() * 1000)
        self._log(
            [Metric(_name(r["metric"]), r["value"], now_ms, r["epoch"]) for r in table.to_pylist()]
        )

    def file(self, location: Location, folder: str | None = None) -> None:
        """Log a file, wherever it lies."""
        if not self._client:
            return
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / location.name
            copy.write_bytes(location.read_bytes())
            self._client.log_artifact(self.run_id, str(copy), folder)

    def ended(self, *, failed: bool) -> None:
        """Say that what the run stands for is over."""
        if self._client:
            self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def json(self, value: Any, name: str) -> None:
        """Log a JSON file."""
        if self._client:
            self._client.log_dict(self.run_id, value, name)

    def _log(self, metrics: list[Metric]) -> None:
        if self._client:
            for start in range(0, len(metrics), _BATCH):
                self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])


class Tracker:
    """The parent run of a pipeline, and its children."""

    def __init__(self, client: MlflowClient | None, experiment_id: str, parent: Run) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self.parent = parent

    @contextmanager
    def stage(self, name: str) -> Iterator[Run]:
        """A child run that ends with what happened to the stage."""
        if self._client is None:
            yield Run(None, "")
            return
        run_id = self._child(self._client, name)
        with _ends(self._client, run_id):
            yield Run(self._client, run_id)

    def trial(self, key: str, name: str) -> tuple[Run, bool]:
        """The child run of a trial, and whether it was logged to its end before.

        Args:
            key: What tells the trial from all others of this parent.
        """
        if self._client is None:
            return Run(None, ""), False
        tags = {_KEY_TAG: key, MLFLOW_PARENT_RUN_ID: self.parent.run_id}
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        if found:
            return Run(self._client, found[0].info.run_id), found[0].info.status == "FINISHED"
        return Run(self._client, self._child(self._client, name, key)), False

    def _child(self, client: MlflowClient, name: str, key: str = "") -> str:
        tags = {MLFLOW_PARENT_RUN_ID: self.parent.run_id, MLFLOW_RUN_NAME: name, _KEY_TAG: key}
        return client.create_run(self._experiment_id, tags=tags).info.run_id


def untracked() -> Tracker:
    """A tracker that keeps nothing: for processes other than the driver."""
    return Tracker(None, "", Run(None, ""))


@contextmanager
def tracked(config: RunConfig, name: str) -> Iterator[Tracker]:
    """The tracker of a pipeline with these settings."""
    if not config.tracking.enabled:
        yield untracked()
        return
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for noisy in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=store_uri(config.tracking))
    experiment_id = _experiment(client, config.tracking)
    settings = config.model_dump(mode="json")
    key = hashlib.sha256(repr((config.resolved_run_dir, settings)).encode()).hexdigest()[:16]
    found = client.search_runs([experiment_id], f"tags.`{_KEY_TAG}` = '{key}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {_KEY_TAG: key, MLFLOW_RUN_NAME: name}
        run_id = client.create_run(experiment_id, tags=tags).info.run_id
    parent = Run(client, run_id)
    parent.tags({"git_commit": commit()})
    parent.params(settings)
    parent.json(settings, "config.json")
    with _ends(client, run_id):
        yield Tracker(client, experiment_id, parent)


def store_uri(config: TrackingConfig) -> str:
    """Where runs are logged: the setting, else MLFLOW_TRACKING_URI, else a local sqlite file."""
    local = f"sqlite:///{Path(_LOCAL_STORE).absolute()}/mlflow.db"
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or local


def _experiment(client: MlflowClient, config: TrackingConfig) -> str:
    if client.tracking_uri.startswith("sqlite:///"):
        folder = Path(client.tracking_uri.removeprefix("sqlite:///")).absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        artifacts = (folder / "mlartifacts").as_uri()
    else:
        artifacts = None
    found = client.get_experiment_by_name(config.experiment)
    if found:
        return found.experiment_id
    return client.create_experiment(config.experiment, artifact_location=artifacts)


@contextmanager
def _ends(client: MlflowClient, run_id: str) -> Iterator[None]:
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run_id, status)


def _name(name: str) -> str:
    """A name that MLflow takes: it has no plus sign."""
    return name.replace("+", "-")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from _flatten(value, name)
        else:
            yield name, value
