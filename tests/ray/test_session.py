"""Ray sessions: local ones are private, and clusters are joined with their token."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray

from distributed_avel.cluster.preflight import check_cluster
from distributed_avel.cluster.session import require
from distributed_avel.commands import main
from distributed_avel.config import ClusterConfig, validate
from distributed_avel.errors import ResourceError
from distributed_avel.stages.resources import requirements

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200), pytest.mark.usefixtures("ray_cluster")]


JOB = Path(__file__).parents[2] / "jobs" / "pipeline.py"


def test_a_local_session_listens_on_loopback_only():
    @ray.remote
    def work() -> int:
        return os.getpid()

    ray.get(work.remote())
    me = psutil.Process()
    listening = [
        (process.name(), connection.laddr.ip)
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert len(listening) > 3
    for name, address in listening:
        ip = ipaddress.ip_address(address)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        assert ip.is_loopback, f"{name} listens on {address}"


def test_a_local_session_requires_a_token():
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32


@pytest.mark.parametrize("token", ["of another cluster", None])
def test_a_wrong_token_is_a_one_line_error_with_the_remedy(tmp_path, token):
    address = ray.get_runtime_context().gcs_address
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH_")}
    other_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    run = subprocess.run(
        [sys.executable, str(JOB), "--data.dataset", "synthetic", "--cluster.address", address],
        cwd=tmp_path,
        env={**others, **other_token, "HOME": str(tmp_path)},  # Ray reads tokens from ~/.ray
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr == (
        f"error: cluster.address {address}: this cluster requires another token; set "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, as on its head; or "
        "leave cluster.address out to run on this machine alone\n"
    )
    assert [*tmp_path.iterdir()] == []


def test_a_cluster_is_joined_with_its_own_token(monkeypatch):
    address = ray.get_runtime_context().gcs_address
    with monkeypatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: False)
        check_cluster(ClusterConfig(address=address))


def test_requests_that_can_never_be_scheduled_are_refused_with_the_arithmetic():
    config = validate(
        {"train": {"num_workers": 3, "cpus_per_worker": 2}, "refine": {"gpus_per_actor": 0.5}},
        "test",
    )

    with pytest.raises(ResourceError) as caught:
        require(requirements(config))

    said = str(caught.value)
    assert "train: 6 CPUs and 0 GPUs (train.num_workers 3 x train.cpus_per_worker 2)" in said
    assert "but there are 4 CPUs" in said
    assert "refine: 3 CPUs and 1 GPUs" in said
    assert "extract" not in said


def test_threads_of_workers_wait_passively():
    """With spinning threads, two parallel trainings on two cores are ten times slower."""

    @ray.remote
    def waiting() -> str | None:
        return os.environ.get("OMP_WAIT_POLICY")

    assert ray.get(waiting.remote()) == "passive"


def test_the_doctor_reports_the_problems_of_a_run(tmp_path, capsys):
    options = ["doctor", "--run-dir", str(tmp_path), "--tracking.no-enabled"]

    assert main(options) == 0
    out = capsys.readouterr().out
    for line in ("ok       packages: Python 3", "ok       Ray: 1 machine(s) with ", "models ave, "):
        assert line in out
    assert out.endswith("no problem found\n")

    assert main([*options, "--train.cpus-per-worker", "1000", "--plugins", "no_such_module"]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM  names: plugins: no_such_module" in out
    assert "PROBLEM  Ray: " in out
    assert out.endswith("2 problem(s)\n")
