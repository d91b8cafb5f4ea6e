"""`ray job submit` on a cluster from `ray start --head`: submit, stop and submit again."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.ray.small_runs import SMALL_RUN, checkpoints

pytestmark = [pytest.mark.ray, pytest.mark.timeout(800)]

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
CARRIED = ("distributed_avel", "jobs")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Head:
    """A separate cluster, independent of others on this machine."""

    def __init__(self, folder: Path) -> None:
        gcs, dashboard, agent, agent_grpc, metrics, client = free_ports(6)
        self.address = f"http://127.0.0.1:{dashboard}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "GLOO_"))}
        self.environment = kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_API_SERVER_ADDRESS": self.address,
            "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
        }
        options = {
            "--node-ip-address": "127.0.0.1",
            "--port": gcs,
            "--dashboard-host": "127.0.0.1",
            "--dashboard-port": dashboard,
            "--dashboard-agent-listen-port": agent,
            "--dashboard-agent-grpc-port": agent_grpc,
            "--metrics-export-port": metrics,
            "--ray-client-server-port": client,
            "--num-cpus": 4,
            "--temp-dir": folder / "ray",
        }
        self.process = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--disable-usage-stats"]
            + [str(part) for pair in options.items() for part in pair],
            env=self.environment,
            stdout=(folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
        )

    def job(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAY, "job", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def close(self) -> None:
        """Kill the cluster; a normal shutdown waits half a minute for its processes."""
        cluster = psutil.Process(self.process.pid)
        for process in [cluster, *cluster.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


@pytest.fixture
def head():
    folder = Path("/tmp") / f"avel-{secrets.token_hex(4)}"  # socket paths must be short
    folder.mkdir()
    cluster = Head(folder)
    yield cluster
    cluster.close()
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.5)


def test_a_submitted_job_stops_cleanly_and_a_second_one_resumes_it(head, tmp_path):
    working_dir = tmp_path / "project"
    for name in CARRIED:
        shutil.copytree(ROOT / name, working_dir / name, ignore=shutil.ignore_patterns("__pyc*"))
    run = tmp_path / "run"
    options = {
        "--run-dir": run,
        "--tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        **SMALL_RUN,
        "--train.base-epochs": 1000,
        "--train.report-every": 50,
    }
    entry = ["--working-dir", str(working_dir), "--", "python", "jobs/pipeline.py"]
    command = [*entry, *(str(part) for pair in options.items() for part in pair)]
    submit = ["submit", "--submission-id", "first", "--no-wait", *command]

    wait_for(lambda: head.job(*submit).returncode == 0, 180, "the job agent")
    wait_for(lambda: checkpoints(run), 300, "a checkpoint")
    assert head.job("stop", "first").returncode == 0
    logs = head.job("logs", "first").stdout
    assert "SIGTERM: stopping; the same command continues from here" in logs
    assert "Traceback" not in logs
    status = head.job("status", "first")
    assert "stopped" in (status.stdout + status.stderr).lower()
    assert not list(run.glob("base/*/DONE"))

    lost = head.job("submit", *entry, timeout_s=300)  # results in Ray's copy of the folder
    told = lost.stdout + lost.stderr
    assert lost.returncode != 0, told
    assert "error: run_dir: " in told
    assert "working_dir_files" in told
    assert "tracking.uri: " in told
    assert "Traceback" not in told
    assert "not run before" not in told  # no stage was started

    edited = working_dir / "distributed_avel" / "run.py"
    edited.write_text(edited.read_text() + "\nprint('edited code')\n")
    second = head.job("submit", "--submission-id", "second", *command, timeout_s=300)

    assert second.returncode == 0, second.stdout + second.stderr
    said = second.stdout + second.stderr
    assert "edited code" in said
    assert said.count("cache hit") == 2  # data and extract
    assert "interrupted before" in said
    assert (run / "results.json").exists()
