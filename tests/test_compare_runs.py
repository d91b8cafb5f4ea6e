"""`scripts/compare_runs.py` accepts equal runs and names each difference."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.compare_runs import main


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    """Two runs with equal results under different cache keys."""
    for name, key in (("a", "0123"), ("b", "4567")):
        stage = tmp_path / name / "base" / key
        stage.mkdir(parents=True)
        (stage / "model.safetensors").write_bytes(b"weights")
        (stage / "manifest.json").write_text(key)
        pq.write_table(
            pa.table({"value": [0.5]}),
            stage / "curves.parquet",
            compression="zstd" if name == "a" else "none",
        )
        pq.write_table(
            pa.table({"video_id": ["v"], "p": [0.25]}), tmp_path / name / "predictions.parquet"
        )
        failures = pa.table({"video_id": ["w"], "seconds": [1.0 if name == "a" else 2.0]})
        pq.write_table(failures, stage / "failures.parquet")
        results = {"arms": {"AVE": {"accuracy": 50.0, "precision": None}}}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    return tmp_path / "a", tmp_path / "b"


def test_runs_with_different_cache_keys_only_are_equal(runs, capsys):
    assert main([*map(str, runs), "--assert-equal"]) == 0
    assert "all results are equal" in capsys.readouterr().out


def test_each_difference_is_named(runs, capsys):
    _, other = runs
    (stage,) = (other / "base").iterdir()
    (stage / "model.safetensors").write_bytes(b"weightz")
    pq.write_table(pa.table({"video_id": ["v"], "p": [0.26]}), other / "predictions.parquet")
    results = {"arms": {"AVE": {"accuracy": 51.0, "precision": None}, "AVE+A": {}}}
    (other / "results.json").write_text(json.dumps(results))

    assert main([*map(str, runs)]) == 0
    assert main([*map(str, runs), "--assert-equal"]) == 1

    out = capsys.readouterr().out
    for line in (
        "AVE: accuracy 50.0 and 51.0",
        "arm AVE+A: in one run only",
        "predictions: column p differs",
        "base: model.safetensors differs (1 only in",
    ):
        assert line in out
    assert "curves" not in out


def test_a_folder_without_results_is_refused(runs, capsys):
    shutil.rmtree(runs[1])
    with pytest.raises(SystemExit) as stop:
        main([*map(str, runs)])

    assert stop.value.code == 2
    assert "no results.json" in capsys.readouterr().err
