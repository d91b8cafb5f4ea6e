"""Problems that are detectable before Ray starts are one error line, within seconds."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from distributed_avel.cluster import preflight, tracking
from distributed_avel.cluster.preflight import check_cluster
from distributed_avel.cluster.session import is_in_ray_working_dir
from distributed_avel.cluster.tracking import connect, store_uri, tracked
from distributed_avel.config import ClusterConfig, RunConfig, TrackingConfig, validate
from distributed_avel.errors import AvelError, ClusterError, ConfigError, TrackingError
from distributed_avel.startup import check_before_start, check_results_last
from tests.ray.stores import store_in

JOB = Path(__file__).parents[2] / "jobs" / "pipeline.py"
FEW_S = 15


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch):
    """Pretend that Ray is not running; an earlier test of this process may have started it."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return opened.getsockname()[1]


@pytest.fixture
def silent_port():
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened.getsockname()[1]


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small tmpfs with the given options."""
    mounts = []

    def mount(options: str, fill: Path | None = None) -> Path:
        folder = tmp_path / f"mount{len(mounts)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a file system")
        mounts.append(folder)
        if fill:
            shutil.copy(fill, folder)
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        return folder

    yield mount
    for folder in mounts:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def config_of(tmp_path: Path, **values) -> RunConfig:
    without = {"run_dir": str(tmp_path / "run"), "tracking": {"enabled": False}}
    return validate({"data": {"dataset": "synthetic"}, **without, **values}, "test")


@contextmanager
def refused(kind: type[AvelError], *words: str):
    """Check that the block raises a one-line error with these words within seconds."""
    started = time.monotonic()
    with pytest.raises(kind) as error:
        yield
    assert time.monotonic() - started < FEW_S
    said = str(error.value)
    assert "\n" not in said
    for word in words:
        assert word in said


def test_valid_settings_pass_and_leave_no_probe_file(tmp_path):
    config = config_of(tmp_path, tracking={"uri": store_in(tmp_path)})

    check_before_start(config)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    check_before_start(config)
    assert list((tmp_path / "run").iterdir()) == []


# Storage


def test_a_run_directory_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with refused(AvelError, "run_dir: ", "cannot be written", "Not a directory"):
        check_before_start(config_of(tmp_path, run_dir=str(tmp_path / "file" / "run")))


def test_a_full_disk_is_refused(tmp_path, mounted):
    folder = mounted("size=64k")
    (folder / "fill").write_bytes(bytes(1 << 16))
    with refused(AvelError, "run_dir: ", "No space left on device", "free some space"):
        check_before_start(config_of(tmp_path, run_dir=str(folder / "run")))


@pytest.mark.parametrize("kind", ["closed", "silent"])
@pytest.mark.parametrize("key", ["run_dir", "data.root"])
def test_an_unresponsive_object_store_is_refused(kind, key, tmp_path, request):
    port = request.getfixturevalue(f"{kind}_port")
    uri = f"s3://bucket/run?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    root = {"data": {"dataset": "folder", "root": uri}}
    with refused(AvelError, f"{key}: s3://bucket/run?endpoint", "network or the credentials"):
        check_before_start(config_of(tmp_path, **({"run_dir": uri} if key == "run_dir" else root)))


def test_a_missing_data_folder_is_refused(tmp_path):
    data = {"dataset": "folder", "root": str(tmp_path / "videos")}
    with refused(AvelError, f"data.root: {tmp_path}/videos does not exist"):
        check_before_start(config_of(tmp_path, data=data))


# MLflow


def test_an_unreachable_server_is_refused(closed_port):
    with refused(TrackingError, f"http://user:***@127.0.0.1:{closed_port}", "refused", "enabled"):
        connect(TrackingConfig(uri=f"http://user:hush@127.0.0.1:{closed_port}"))


def test_an_unresponsive_server_is_refused(silent_port, monkeypatch):
    monkeypatch.setattr(tracking, "_ANSWER_S", 2)
    with refused(TrackingError, "timed out"):
        connect(TrackingConfig(uri=f"http://127.0.0.1:{silent_port}"))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:./mlruns", ("no longer writes to folders", "sqlite:///")),
        ("./mlruns", ("no longer writes to folders", "sqlite:///")),
        ("nosuch://x/y", ("no store of this kind", "postgresql://")),
        ("sqlite://user:hush@host/db", ("sqlite://user:***@host/db",)),
        ("postgresql://user:hush@127.0.0.1:{closed}/db", ("refused", "user:***@")),
        ("mysql+pymysql://user:hush@127.0.0.1:{silent}/db", ("pip install pymysql",)),
        ("sqlite:////proc/mlflow.db", ("unable to open database file",)),
        ("sqlite:///{folder}/text.db", ("file is not a database",)),
    ],
)
def test_an_unusable_store_is_refused(uri, words, tmp_path, closed_port, silent_port):
    (tmp_path / "text.db").write_text("this is text, which no database begins with. " * 40)
    uri = uri.format(folder=tmp_path, closed=closed_port, silent=silent_port)
    with refused(TrackingError, "tracking.uri: ", *words):
        connect(TrackingConfig(uri=uri))


def test_a_deleted_experiment_is_refused(tmp_path):
    client = MlflowClient(uri := store_in(tmp_path))
    client.delete_experiment(client.create_experiment("gone"))
    with refused(TrackingError, "tracking.experiment: 'gone' is deleted", "mlflow experiments"):
        connect(TrackingConfig(uri=uri, experiment="gone"))


def test_a_read_only_store_is_refused(tmp_path, mounted):
    store_in(tmp_path)
    folder = mounted("size=4m", fill=tmp_path / "mlflow.db")
    with refused(TrackingError, "readonly database"):
        connect(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


def test_a_store_on_a_full_disk_is_refused(mounted):
    with refused(TrackingError, "database or disk is full"):
        connect(TrackingConfig(uri=f"sqlite:///{mounted('size=200k')}/mlflow.db"))


def test_a_store_lost_during_a_run_is_reported_without_a_traceback(tmp_path):
    uri = store_in(tmp_path)
    config = config_of(tmp_path, tracking={"uri": uri})

    def run() -> None:
        with tracked(config, "run") as tracker:
            (tmp_path / "mlflow.db").write_bytes(b"")
            tracker.parent.tags({"a": "b"})

    with refused(TrackingError, "tracking.uri: "):
        run()


def test_a_redacted_uri_is_completed_from_the_environment(monkeypatch):
    stored = TrackingConfig.model_validate(
        TrackingConfig(uri="http://user:hush@host").model_dump(mode="json")
    )
    with refused(TrackingError, "has lost its secret", "MLFLOW_TRACKING_URI"):
        store_uri(stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hush@elsewhere")
    with refused(TrackingError, "has lost its secret"):
        store_uri(stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hush@host")
    assert store_uri(stored).whole == "http://user:hush@host"
    assert str(store_uri(TrackingConfig())) == "http://user:***@host"


# Ray


@pytest.mark.parametrize("kind", ["closed", "silent"])
@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("is_setting", [True, False])
def test_an_unresponsive_cluster_is_refused(kind, scheme, is_setting, request, monkeypatch):
    address = f"{scheme}127.0.0.1:{request.getfixturevalue(f'{kind}_port')}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(preflight, "_ANSWER_S", 1.0)
    key = "cluster.address" if is_setting else "RAY_ADDRESS"
    with refused(ClusterError, f"{key} {address}: no Ray", "answer", f"correct {key}"):
        check_cluster(ClusterConfig(address=address if is_setting else None))


@pytest.mark.parametrize("address", ["no-such-host.invalid:6379", "rubbish", "http://127.0.0.1:1"])
def test_a_malformed_address_is_refused(address):
    with refused(ClusterError, f"cluster.address {address}: "):
        check_cluster(ClusterConfig(address=address))


def test_a_temporary_folder_too_long_for_socket_paths_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "a" * 34)
    (Path("/tmp") / ("a" * 34)).mkdir(exist_ok=True)
    check_cluster(ClusterConfig())
    shutil.rmtree(Path("/tmp") / ("a" * 34))
    monkeypatch.setenv("TMPDIR", "/tmp/" + "a" * 35)
    with refused(ClusterError, "TMPDIR=/tmp/aaa", "too long", "at most 39 bytes", "such as /tmp"):
        check_cluster(ClusterConfig())


def test_a_temporary_folder_that_ray_cannot_write_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", "/proc/nothing")
    with refused(ClusterError, "Ray cannot write to /proc/nothing", "set RAY_TMPDIR"):
        check_cluster(ClusterConfig())


# Ray's copies of a working directory


@pytest.fixture
def copy_of_ray(tmp_path, monkeypatch) -> Path:
    """A working directory like the one that Ray unpacks for a job, as the current directory."""
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def test_all_outputs_inside_rays_copy_are_refused_together(copy_of_ray, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError) as error:
        check_results_last(validate({"data": {"dataset": "synthetic"}}, "test"))
    lines = str(error.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["run_dir", "tracking.uri"]
    assert f"{copy_of_ray}/runs/synthetic is in Ray's copy" in lines[0]
    assert "--run-dir" in lines[0]
    assert "--tracking.uri sqlite:////" in lines[1]


@pytest.mark.parametrize(
    "uri", ["sqlite:///runs/mlflow.db", "sqlite:///mlflow.db", "file:./mlruns", "mlruns"]
)
def test_a_relative_store_inside_rays_copy_is_refused(uri, copy_of_ray, tmp_path):
    with refused(ConfigError, "tracking.uri: "):
        check_results_last(config_of(tmp_path, tracking={"uri": uri}))


def test_paths_outside_rays_copy_are_accepted(copy_of_ray, tmp_path):
    for run_dir in (str(tmp_path / "run"), "../../../run", "s3://bucket/run"):
        for uri in (f"sqlite:///{tmp_path}/mlflow.db", "http://127.0.0.1:1", "databricks"):
            check_results_last(config_of(tmp_path, run_dir=run_dir, tracking={"uri": uri}))
    check_results_last(config_of(tmp_path))
    assert not is_in_ray_working_dir(tmp_path)


# The job itself


@pytest.mark.multiprocess
@pytest.mark.parametrize("fault", ["cluster", "store", "disk"])
def test_the_job_prints_one_error_line_without_starting_ray(fault, tmp_path, closed_port):
    (tmp_path / "file").touch()
    options = {
        "cluster": ["--cluster.address", f"127.0.0.1:{closed_port}"],
        "store": ["--tracking.uri", f"http://user:hush@127.0.0.1:{closed_port}"],
        "disk": ["--run-dir", str(tmp_path / "file" / "run")],
    }
    run = subprocess.run(
        [sys.executable, str(JOB), "--data.dataset", "synthetic", *options[fault]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert run.returncode == 2
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("error: ")
    assert "hush" not in run.stderr
