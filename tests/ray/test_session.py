"""A local session is nobody else's business."""

import ipaddress
import os

import psutil
import pytest
import ray

from distributed_avel.commands import main
from distributed_avel.config import validate
from distributed_avel.errors import ResourceError
from distributed_avel.runtime.session import require

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200), pytest.mark.usefixtures("ray_cluster")]


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


def test_a_local_session_asks_for_a_token():
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32


def test_what_can_never_be_scheduled_is_refused_with_the_arithmetic():
    config = validate(
        {"train": {"num_workers": 3, "cpus_per_worker": 2}, "refine": {"gpus_per_actor": 0.5}},
        "test",
    )

    with pytest.raises(ResourceError) as caught:
        require(config)

    said = str(caught.value)
    assert "train: 6 CPUs and 0 GPUs (train.num_workers 3 x train.cpus_per_worker 2)" in said
    assert "but there are 4 CPUs" in said
    assert "refine: 3 CPUs and 1 GPUs" in said
    assert "extract" not in said


def test_threads_of_workers_sleep_while_they_wait():
    """Where they spin, two trainings on two cores take ten times as long as one after the other."""

    @ray.remote
    def waiting() -> str | None:
        return os.environ.get("OMP_WAIT_POLICY")

    assert ray.get(waiting.remote()) == "passive"


def test_the_doctor_reports_what_a_run_would_meet(tmp_path, capsys):
    options = ["doctor", "--run-dir", str(tmp_path), "--tracking.no-enabled"]

    assert main(options) == 0
    out = capsys.readouterr().out
    for line in ("ok       packages: Python 3", "ok       Ray: 1 machine(s) with ", "models ave, "):
        assert line in out
    assert out.endswith("no problem found\n")

    assert main([*options, "--train.cpus-per-worker", "1000", "--plugins", "no_such_module"]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM  plug-ins: plugins: no_such_module" in out
    assert "PROBLEM  Ray: " in out
    assert out.endswith("2 problem(s)\n")
