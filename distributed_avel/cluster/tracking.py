"""MLflow: one parent run for a pipeline, a child run for each stage that was computed.

Only the driver logs, through the client and with explicit run ids, so that nothing depends on
what is "active". A pipeline that is started again with the same settings goes on in its own
parent run.
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

from distributed_avel.artifacts import Location
from distributed_avel.cluster.session import is_copy_of_ray
from distributed_avel.config import RunConfig, TrackingConfig
from distributed_avel.errors import TrackingError
from distributed_avel.provenance import commit
from distributed_avel.redaction import SecretUri, redact, redact_values

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
    """One MLflow run; without a client it keeps nothing."""

    def __init__(self, client: MlflowClient | None, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log nested settings under dotted names; MLflow refuses to change one later."""
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
    with _ends(client, run_id):
        yield Tracker(client, experiment_id, parent)


def store_uri(config: TrackingConfig) -> SecretUri:
    """Where runs are logged: the setting, else MLFLOW_TRACKING_URI, else a local sqlite file.

    A setting whose secret was taken out, such as that of a sweep's best.yaml, stands for the
    whole URI in MLFLOW_TRACKING_URI.

    Raises:
        TrackingError: Its secret is not there either.
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
    """The folder on this machine that holds the store; None if it is a service."""
    uri = store_uri(config).whole
    scheme = uri.partition(":")[0] if "://" in uri or uri.startswith("file:") else ""
    if scheme == "sqlite":
        database = _sqlite_file(uri)
        return database and database.parent
    if scheme in ("", "file") and not uri.startswith("databricks"):
        return Path(unquote(urlsplit(uri).path) or ".").absolute()
    return None


def connect(config: TrackingConfig) -> tuple[MlflowClient, str]:
    """A client of the store and the id of the experiment, after both have been tried.

    Raises:
        TrackingError: The store does not answer or cannot be written, or the experiment is
            deleted.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # raised again as it is
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of each retry
    uri = store_uri(config)
    with _mlflow_errors(uri, OSError, ImportError, ValueError), _impatient():
        if _is_database(uri.whole):
            _open_database(uri.whole)
        client = MlflowClient(tracking_uri=uri.whole)
        experiment_id = _experiment(client, config)
        client.set_experiment_tag(experiment_id, _CHECKED_TAG, "true")  # it can be written
    return client, experiment_id


def _is_database(uri: str) -> bool:
    return urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES


def _open_database(uri: str) -> None:
    """Connect to a database once; MLflow itself would try for two minutes."""
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
    """The file of an sqlite URI; None if it is in memory, or a URI of sqlite's own."""
    if not uri.startswith("sqlite:"):
        return None
    name = sqlalchemy.make_url(uri).database
    return Path(name).absolute() if name and not name.startswith((":", "file:")) else None


@contextmanager
def _impatient() -> Iterator[None]:
    """Let MLflow's client give up a server within seconds, unless the user says how long."""
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
    """Tell what MLflow and its store raise, and more, as a user's error.

    Raises:
        TrackingError: With the reason and a remedy.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, *more) as error:
        raise _tracking_error(uri, error) from None


def _tracking_error(uri: SecretUri, error: Exception) -> TrackingError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    _, is_of_connection, cause = said.partition("Caused by ")
    reason = redact(cause.rstrip(")") if is_of_connection else said)[:_MAX_REASON_CHARS]
    remedy = "see to the store, name another in tracking.uri, or run with --tracking.no-enabled"
    if "error code 401" in said or "error code 403" in said:
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    elif "maintenance mode" in said:
        reason = "MLflow no longer writes to folders"
        remedy = "name a database, such as sqlite:///runs/mlflow.db"
    elif "unsupported URI" in said:
        reason = "MLflow knows no store of this kind"
        remedy = "give http(s)://, sqlite:///, postgresql:// or mysql://"
    elif isinstance(error, ImportError):
        remedy = f"install the driver of this database: pip install {error.name}"
    return TrackingError(f"tracking.uri: {uri}: {reason}; {remedy}")


def _experiment(client: MlflowClient, config: TrackingConfig) -> str:
    """The id of the experiment, which is made if there is none.

    Raises:
        TrackingError: It is deleted.
    """
    found = client.get_experiment_by_name(config.experiment)
    if found is None:
        file = _sqlite_file(client.tracking_uri)
        artifacts = file and (file.parent / "mlartifacts").as_uri()
        if artifacts is None and _is_database(client.tracking_uri) and is_copy_of_ray("mlruns"):
            raise TrackingError(
                f"tracking.experiment: the files of a new experiment {config.experiment!r} would "
                "lie in Ray's copy of the job's working directory, which is removed; make it with "
                "`mlflow experiments create --experiment-name ... --artifact-location ...` first"
            )
        return client.create_experiment(config.experiment, artifact_location=artifacts)
    if found.lifecycle_stage == LifecycleStage.DELETED:
        raise TrackingError(
            f"tracking.experiment: {config.experiment!r} is deleted; restore it (`mlflow "
            f"experiments restore --experiment-id {found.experiment_id}`) or name another one"
        )
    return found.experiment_id


@contextmanager
def _ends(client: MlflowClient, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with suppress(MlflowException), _impatient():  # the error that is under way says more
            client.set_terminated(run_id, status)
        raise
    client.set_terminated(run_id, "FINISHED")


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
