"""Runs read and write object storage: here S3, emulated by moto."""

import logging

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs as pafs

from distributed_avel.config import validate
from distributed_avel.pipeline import STAGES
from distributed_avel.run import run_pipeline
from distributed_avel.storage import Location
from tests.ray.stores import store_in

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500), pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def bucket():
    """A function that returns the URI of a folder in an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"{host}:{port}"
    filesystem = pafs.S3FileSystem(
        access_key="key",
        secret_key="secret",
        endpoint_override=endpoint,
        scheme="http",
        allow_bucket_creation=True,
    )
    filesystem.create_dir("avel")
    yield (
        lambda folder: (
            f"s3://avel/{folder}?endpoint_override={endpoint}&scheme=http&region=us-east-1"
        )
    )
    server.stop()


def test_the_pipeline_runs_and_resumes_on_object_storage(bucket, tmp_path, capsys):
    config = validate(
        {
            "run_dir": bucket("run"),
            "arms": ["A", "A+LR"],
            "data": {
                "root": bucket("videos"),
                "demo": {"num_train": 8, "num_event_free": 2, "num_val": 8, "num_test": 8},
            },
            "model": {"hidden_size": 8},
            "train": {"base_epochs": 1, "retrain_epochs": 1, "cpus_per_worker": 1},
            "refine": {"threshold": 0.5, "num_actors": 1},
            "tracking": {"uri": store_in(tmp_path)},
        },
        "test",
    )

    run_pipeline(config)

    run = Location(bucket("run"))
    assert set((run / "results.json").read_json()["arms"]) == {"GT-repeat", "AVE+A", "AVE+A+LR"}
    assert (run / "predictions.parquet").read_table().num_rows == 3 * 8 * 10
    assert b"data:image/jpeg" in (run / "report.html").read_bytes()
    assert not list(tmp_path.glob("**/*.safetensors.tmp*"))

    capsys.readouterr()
    run_pipeline(config)
    said = capsys.readouterr().err
    assert said.count("cache hit") == len({*STAGES} - {"calibrate", "screen"})
    assert "not run before" not in said

    (evaluated,) = (run / "evaluate").children()
    damaged = evaluated / "metrics.json"
    before = damaged.read_bytes()
    damaged.write_bytes(before[:-5])
    capsys.readouterr()
    run_pipeline(config)
    said = capsys.readouterr().err
    assert f"metrics.json is damaged: {len(before) - 5} bytes instead of {len(before)}" in said
    assert damaged.read_bytes() == before
    assert said.count("cache hit") == len({*STAGES} - {"calibrate", "screen", "evaluate"})
