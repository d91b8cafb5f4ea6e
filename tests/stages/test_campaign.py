"""Tasks that a campaign sends to other processes."""

import sys

import cloudpickle

from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, validate
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.stage import Execution
from distributed_avel.studies.campaign import _Ensure


def settings(root, num_train: int = 30, **other) -> RunConfig:
    sizes = {"num_train": num_train, "num_event_free": 2, "num_val": 4, "num_test": 4}
    data = {"dataset": "synthetic", "synthetic": sizes}
    return validate({"run_dir": str(root), "data": data, **other}, "test")


def test_a_task_imports_the_plug_ins_of_its_run(tmp_path, monkeypatch):
    (tmp_path / "own_plugin.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    pipeline = Pipeline(settings(tmp_path / "run", plugins=["own_plugin"]), untracked())
    task = cloudpickle.dumps(_Ensure(pipeline.data))
    del sys.modules["own_plugin"]

    cloudpickle.loads(task)()

    assert "own_plugin" in sys.modules
    assert pipeline.data.is_done()


def test_the_size_of_a_task_does_not_depend_on_the_data_set(tmp_path):
    sizes = []
    for num_train in (30, 300):
        config = settings(tmp_path / str(num_train), num_train)
        execution = Execution(in_process=True, quiet=True)
        pipeline = Pipeline(config, untracked(), execution=execution)
        assert len(pipeline.usable("train")) == num_train + 2
        stage = pipeline.retrain(auxiliary=True)
        _ = pipeline.base(auxiliary=True).fingerprint
        sizes.append(len(cloudpickle.dumps(_Ensure(stage))))

    assert sizes[1] < sizes[0] + 200
