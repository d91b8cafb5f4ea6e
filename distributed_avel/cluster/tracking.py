"""MLflow tracking: one parent run per pipeline, and a child run for each computed stage.

Only the driver logs, through the client and with explicit run ids, so that nothing depends on
MLflow's active run. A pipeline that runs again with the same settings continues its parent run.
"""

import hashlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import requests
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from sqlalchemy.exc import SQLAlchemyError

from distributed_avel.cluster.session import is_in_ray_working_dir
from distributed_avel.config import RunConfig, TrackingConfig
from distributed_avel.errors import TrackingError
from distributed_avel.provenance import commit
from distributed_avel.redaction import SecretUri, redact, redact_values
from distributed_avel.storage import Location

_LOCAL_STORE = "runs"
_URI_VARIABLE = "MLFLOW_TRACKING_URI"
_CHECKED_TAG = "distributed_avel.checked"
_ANSWER_S = 10
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_MAX_REASON_CHARS = 300
_KEY_TAG = "distributed_avel.key"
_MAX_PARAM_CHARS = 500
_BATCH = 900


class Run:
    """An MLflow run; without a client, all methods do nothing."""

    def __init__(self, client: MlflowClient | None, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log nested settings under dotted names; MLflow refuses changed values."""
        flat = [Param(_name(k), redact(str(v))[:_MAX_PARAM_CHARS]) for k, v in _flatten(values)]
        if self._client:
            for start in range(0, len(flat), 100):
                self._client.log_batch(self.run_id, params=flat[start : start + 100])

    def tags(self, values: Mapping[str, str]) -> None:
        """Log tags."""
        if self._client:
            tags = [RunTag(key, redact(value)) for key, value in values.items()]
            self._client.log_batch(self.run_id, tags=tags)

    def metrics(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Log metrics of one step; undefined metrics (None) are omitted."""
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
        """Log a file from any file system."""
        if not self._client:
            return
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / location.name
            copy.write_bytes(location.read_bytes())
            self._client.log_artifact(self.run_id, str(copy), folder)

    def ended(self, *, failed: bool) -> None:
        """Set the final status of the run."""
        if self._client:
            self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def json(self, value: Any, name: str) -> None:
        """Log a JSON file."""
        if self._client:
            self._client.log_dict(self.run_id, redact_values(value), name)

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
        """Yield a child run for a stage; its final status is that of the stage."""
        if self._client is None:
            yield Run(None, "")
            return
        run_id = self._child(self._client, name)
        with _final_status(self._client, run_id):
            yield Run(self._client, run_id)

    def trial(self, key: str, name: str) -> tuple[Run, bool]:
        """Find or create the child run of a trial.

        Args:
            key: Identifies the trial among the children of this parent.
            name: Name of a new run.

        Returns:
            The run, and whether an earlier session finished logging it.
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
    """Return a tracker that logs nothing, for processes other than the driver."""
    return Tracker(None, "", Run(None, ""))


@contextmanager
def tracked(config: RunConfig, name: str) -> Iterator[Tracker]:
    """Yield the tracker of a pipeline with these settings.

    Args:
        name: Name of a new parent run.

    Raises:
        TrackingError: The store does not answer or cannot be written.
    """
    if not config.tracking.enabled:
        yield untracked()
        return
    with _mlflow_errors(store_uri(config.tracking)):
        client, experiment_id = connect(config.tracking)
        yield from _with_parent_run(client, experiment_id, config, name)


def _with_parent_run(
    client: MlflowClient, experiment_id: str, config: RunConfig, name: str
) -> Iterator[Tracker]:
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
    with _final_status(client, run_id):
        yield Tracker(client, experiment_id, parent)


def store_uri(config: TrackingConfig) -> SecretUri:
    """Return the URI of the store: the setting, else MLFLOW_TRACKING_URI, else a local SQLite file.

    If the secret of the setting was redacted, as in a sweep's best.yaml, MLFLOW_TRACKING_URI gives
    the whole URI.

    Raises:
        TrackingError: The secret is in neither.
    """
    given = os.environ.get(_URI_VARIABLE)
    local = f"sqlite:///{Path(_LOCAL_STORE).absolute()}/mlflow.db"
    uri = SecretUri(config.uri or given or local)
    if uri.is_whole:
        return uri
    if given and SecretUri(given) == uri:
        return SecretUri(given)
    raise TrackingError(
        f"tracking.uri: {uri} has lost its secret, which is never stored; set {_URI_VARIABLE} to "
        "the whole URI"
    )


def local_folder(config: TrackingConfig) -> Path | None:
    """Return the folder of a store on this machine; None if the store is a service."""
    uri = store_uri(config).whole
    scheme = uri.partition(":")[0] if "://" in uri or uri.startswith("file:") else ""
    if scheme == "sqlite":
        database = _sqlite_file(uri)
        return database and database.parent
    if scheme in ("", "file") and not uri.startswith("databricks"):
        return Path(unquote(urlsplit(uri).path) or ".").absolute()
    return None


def connect(config: TrackingConfig) -> tuple[MlflowClient, str]:
    """Connect to the store, and create the experiment if it does not exist.

    Returns:
        A client, and the id of the experiment.

    Raises:
        TrackingError: The store does not answer or cannot be written, or the experiment is
            deleted.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it also raises
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it logs each retry
    uri = store_uri(config)
    with _mlflow_errors(uri, OSError, ImportError, ValueError), _short_timeouts():
        if _is_database(uri.whole):
            _open_database(uri.whole)
        client = MlflowClient(tracking_uri=uri.whole)
        experiment_id = _experiment(client, config)
        client.set_experiment_tag(experiment_id, _CHECKED_TAG, "true")  # checks write access
    return client, experiment_id


def _is_database(uri: str) -> bool:
    return urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES


def _open_database(uri: str) -> None:
    """Connect to a database once; MLflow itself retries for two minutes."""
    url, file = sqlalchemy.make_url(uri), _sqlite_file(uri)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
    dialect = url.get_backend_name()
    if url.host and dialect in _PORTS:
        address = url.host, url.port or _PORTS[dialect]
        socket.create_connection(address, timeout=_ANSWER_S).close()
    limits = {"connect_timeout": _ANSWER_S} if dialect in ("postgresql", "mysql") else {}
    engine = sqlalchemy.create_engine(url, connect_args=limits)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI; None for databases in memory and SQLite's own URIs."""
    if not uri.startswith("sqlite:"):
        return None
    name = sqlalchemy.make_url(uri).database
    return Path(name).absolute() if name and not name.startswith((":", "file:")) else None


@contextmanager
def _short_timeouts() -> Iterator[None]:
    """Make MLflow's client give up within seconds, unless the user set its variables."""
    limits = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_ANSWER_S // 2),
    }
    added = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _mlflow_errors(uri: SecretUri, *more: type[Exception]) -> Iterator[None]:
    """Turn errors of MLflow and its store into user-facing errors.

    Args:
        more: Further classes of errors.

    Raises:
        TrackingError: The message has the reason and a remedy.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, *more) as error:
        raise _tracking_error(uri, error) from None


def _tracking_error(uri: SecretUri, error: Exception) -> TrackingError:
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    _, is_connection_error, cause = message.partition("Caused by ")
    reason = redact(cause.rstrip(")") if is_connection_error else message)[:_MAX_REASON_CHARS]
    remedy = "check the store, name another in tracking.uri, or run with --tracking.no-enabled"
    if "error code 401" in message or "error code 403" in message:
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    elif "maintenance mode" in message:
        reason = "MLflow no longer writes to folders"
        remedy = "name a database, such as sqlite:///runs/mlflow.db"
    elif "unsupported URI" in message:
        reason = "MLflow knows no store of this kind"
        remedy = "give http(s)://, sqlite:///, postgresql:// or mysql://"
    elif isinstance(error, ImportError):
        remedy = f"install the driver of this database: pip install {error.name}"
    return TrackingError(f"tracking.uri: {uri}: {reason}; {remedy}")


def _experiment(client: MlflowClient, config: TrackingConfig) -> str:
    """Return the id of the experiment; create it if it does not exist.

    Raises:
        TrackingError: The experiment is deleted, or its files would be removed with the job.
    """
    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is None:
        file = _sqlite_file(client.tracking_uri)
        artifacts = file and (file.parent / "mlartifacts").as_uri()
        if (
            artifacts is None
            and _is_database(client.tracking_uri)
            and is_in_ray_working_dir("mlruns")
        ):
            raise TrackingError(
                f"tracking.experiment: the files of a new experiment {config.experiment!r} would "
                "be in Ray's copy of the job's working directory, which is removed; create it with "
                "`mlflow experiments create --experiment-name ... --artifact-location ...` first"
            )
        return client.create_experiment(config.experiment, artifact_location=artifacts)
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"tracking.experiment: {config.experiment!r} is deleted; restore it (`mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}`) or name another one"
        )
    return experiment.experiment_id


@contextmanager
def _final_status(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Set the status of a run at the end of the block."""
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with suppress(MlflowException), _short_timeouts():  # the original error matters more
            client.set_terminated(run_id, status)
        raise
    client.set_terminated(run_id, "FINISHED")


def _name(name: str) -> str:
    """Replace plus signs, which MLflow does not accept in names."""
    return name.replace("+", "-")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            yield from _flatten(value, name)
        else:
            yield name, value
