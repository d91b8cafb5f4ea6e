"""Secrets in URIs are redacted in all text that is printed or stored."""

import copy
import json
import pickle
import sys

import pytest
import yaml

from distributed_avel.cli import read_config, run_job
from distributed_avel.config import ReproduceConfig, TuneConfig, validate
from distributed_avel.errors import ArtifactError, ConfigError
from distributed_avel.redaction import SecretUri, redact, redact_values, secret_problem
from distributed_avel.search.space import with_values
from distributed_avel.storage import Location

HUSH = "hush9"

WITH_SECRET = [
    f"postgresql://user:{HUSH}@host/db",
    f"postgresql+psycopg2://user:{HUSH}@host:5432/db?sslmode=require",
    f"mysql://user:a/{HUSH}@host/db",
    f"mysql://user:a@{HUSH}@host/db",
    f"postgresql://user:12345@{HUSH}@host/db",
    f"redis://:{HUSH}@host/0",
    f"https://{HUSH}@host/path",
    f"http://user:{HUSH}@127.0.0.1:5000",
    f"s3://AKIAX:{HUSH}@bucket/run",
    f"s3://AKIAX:{HUSH}%2F@bucket/run?region=us-east-1",
    f"s3://bucket/run?access_key=AKIAX&secret_key={HUSH}",
    f"s3://bucket/run?access%5Fkey={HUSH}",
    f"s3://bucket/run?region=us-east-1&session_token={HUSH}",
    f"s3://bucket/run?X-Amz-Signature={HUSH}&X-Amz-Expires=60",
    f"s3://bucket/run?X-Amz-Security-Token={HUSH}",
    f"https://bucket.s3.amazonaws.com/a?X-Amz-Credential={HUSH}",
    f"gs://bucket/run?access_token={HUSH}",
    f"https://storage.googleapis.com/a?X-Goog-Signature={HUSH}",
    f"https://www.googleapis.com/a?key={HUSH}",
    f"abfss://box@account/run?sas_token={HUSH}",
    f"https://account.blob.core.windows.net/box/run?sv=2024&sig={HUSH}%3D",
    f"abfs://box/run?account_key={HUSH}==",
    f"sftp://host/run?password={HUSH}",
    f"https://host/run#token={HUSH}",
    f"ray://user:{HUSH}@host:10001",
]

WITHOUT = [
    "s3://bucket/run?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1",
    "s3://bucket/a:b@c",
    "http://127.0.0.1:5000/videos/a@2x.mp4",
    "postgresql://user@host/db",
    "abfss://box@account.dfs.core.windows.net/run",
    "sqlite:////tmp/mlflow.db",
    "gs://bucket/keys/signature/token",
    "/data/token=abc/run",
    "train.learning_rate=0.001 and refine.window=4",
]


@pytest.mark.parametrize("uri", WITH_SECRET)
def test_a_secret_is_found_in_a_uri_and_in_a_text_around_it(uri):
    for text in (uri, f"could not open '{uri}': no answer", json.dumps({"uri": uri})):
        assert HUSH not in redact(text)
        assert redact(redact(text)) == redact(text)
        assert "***" in redact(text)
    assert redact_values({"a": [uri], "b": (uri, 3)}) == {"a": [redact(uri)], "b": (redact(uri), 3)}


@pytest.mark.parametrize("text", WITHOUT)
def test_text_without_a_secret_is_unchanged(text):
    assert redact(text) == text
    assert secret_problem(text) is None


# Settings that refuse secrets


@pytest.mark.parametrize("uri", WITH_SECRET)
def test_a_location_with_a_secret_is_refused_without_printing_it(uri):
    with pytest.raises(ArtifactError, match="remove it and") as error:
        Location.at(uri)
    assert HUSH not in str(error.value)


@pytest.mark.parametrize("uri", WITH_SECRET)
@pytest.mark.parametrize(
    "key", ["run_dir", "data.root", "data.split", "extract.weights", "cluster.address"]
)
def test_a_setting_with_a_secret_is_refused_and_named_by_its_key(key, uri):
    section, _, name = key.rpartition(".")
    value = {"vgg19": uri} if name == "weights" else uri

    with pytest.raises(ConfigError, match=f"{key}: ") as error:
        validate({section: {name: value}} if section else {name: value}, "test")

    assert HUSH not in str(error.value)


def test_a_password_with_a_space_is_refused():
    with pytest.raises(ConfigError, match=r"tracking\.uri: .*%20") as error:
        validate({"tracking": {"uri": f"postgresql://user:a {HUSH}@host/db"}}, "test")
    assert HUSH not in str(error.value)


# Settings that accept secrets


@pytest.mark.parametrize("kind", [None, TuneConfig, ReproduceConfig])
def test_the_password_of_the_tracking_store_is_in_no_copy_of_the_settings(kind):
    uri = f"postgresql://user:{HUSH}@host/db"
    argv = ["--tracking.uri", uri]
    config = read_config(argv, kind=kind) if kind else read_config(argv)

    assert isinstance(config.tracking.uri, SecretUri)
    assert config.tracking.uri.whole == uri
    dump = config.model_dump(mode="json")
    pickled = pickle.dumps(config)
    shown = [repr(config), str(config.tracking.uri), f"{config.tracking}", config.model_dump_json()]
    shown += [json.dumps(dump), yaml.safe_dump(dump), repr(copy.deepcopy(config))]
    assert all(HUSH not in text for text in shown)
    assert HUSH.encode() not in pickled
    assert pickle.loads(pickled) == config
    assert with_values(getattr(config, "run", config), {"seed": 3}).tracking == config.tracking


def test_settings_that_differ_in_a_password_are_equal():
    configs = [read_config(["--tracking.uri", f"http://u:{p}@host"]) for p in ("old", "new")]
    assert configs[0] == configs[1]


# Output of a job


def test_errors_and_tracebacks_of_a_job_are_redacted(capsys, monkeypatch):
    monkeypatch.setattr("sys.excepthook", lambda *_: None)
    monkeypatch.setattr("threading.excepthook", lambda *_: None)

    def fails(kind):
        def job(_):
            raise kind(f"cannot open postgresql://user:{HUSH}@host/db?sig={HUSH}")

        return job

    assert run_job(fails(ArtifactError), [], None) == 2
    assert run_job(lambda _: None, [f"run_dir=s3://key:{HUSH}@bucket"], None) == 2
    with pytest.raises(KeyError, match=HUSH) as bug:
        run_job(fails(KeyError), [], None)
    sys.excepthook(bug.type, bug.value, bug.tb)
    said = capsys.readouterr().err
    assert HUSH not in said
    assert "Traceback (most recent call last)" in said
    assert "postgresql://user:***@host/db?sig=***" in said


def test_the_help_text_redacts_the_values_of_a_file(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(f"tracking: {{uri: 'http://user:{HUSH}@host'}}\n")

    with pytest.raises(SystemExit):
        read_config(["--config", str(tmp_path / "run.yaml"), "--help"])

    said = capsys.readouterr().out
    assert "http://user:***@host" in said
    assert HUSH not in said
