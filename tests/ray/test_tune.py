"""A small sweep on a real Ray cluster and a real MLflow store, on synthetic features."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import ray
import torch
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from distributed_avel.artifacts import Artifact
from distributed_avel.cluster.leases import LeaseActor, LeaseHolder
from distributed_avel.cluster.tracking import untracked
from distributed_avel.config import RunConfig, TuneConfig, load_values, validate
from distributed_avel.errors import ConfigError, ResourceError
from distributed_avel.pipeline import Pipeline
from distributed_avel.stages.stage import Execution
from distributed_avel.storage import Location
from distributed_avel.studies.sweep import run_sweep
from tests.ray.stores import store_in
from tests.troubled import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500), pytest.mark.usefixtures("ray_cluster")]

JOB = Path(__file__).parents[2] / "jobs" / "tune.py"

RUN = {
    "data": {
        "dataset": "synthetic",
        "synthetic": {"num_train": 56, "num_event_free": 6, "num_val": 28, "num_test": 28},
    },
    "arms": ["A+LR"],
    "model": {"hidden_size": 8},
    "train": {"base_epochs": 2, "retrain_epochs": 2, "report_every": 1, "cpus_per_worker": 1},
    "report": {"num_timelines": 1},
}


def settings(root: Path, **sweep) -> TuneConfig:
    """Settings of a sweep over 2 pairs of window and stride x 2 tau, with 2 seeds for the best."""
    chosen = {
        "windows": ["4:2", "5:5"],
        "thresholds": [0.05, 0.2],
        "num_best": 1,
        "num_seeds": 2,
        "max_retries": 0,
        **sweep,
    }
    values = {
        **RUN,
        "run_dir": str(root / "run"),
        "tracking": {"uri": store_in(root)},
        "sweep": chosen,
    }
    return validate(values, "test", TuneConfig)


def done_markers(root: Path) -> dict[str, int]:
    """Return the time at which each stage was finished, by path."""
    return {str(p): p.stat().st_mtime_ns for p in (root / "run").glob("*/*/DONE")}


def metrics_of_trials(root: Path) -> dict[str, object]:
    trials = json.loads((root / "run" / "sweep.json").read_text())["trials"]
    return {f"{t['point']} {t['seed']}": t["metrics"] for t in trials}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster) -> Path:
    """The root folder of a finished sweep."""
    root = tmp_path_factory.mktemp("sweep")
    run_sweep(settings(root))
    return root


def test_each_shared_stage_is_computed_once(finished):
    summary = json.loads((finished / "run" / "sweep.json").read_text())
    stages = Counter(Path(path).parts[-3] for path in done_markers(finished))

    assert {s["name"]: (s["used"], s["different"]) for s in summary["stages"]} == {
        "base": (4, 2),
        "refine": (4, 2),
        "retrain": (4, 4),
    }
    assert (stages["base"], stages["refine"], stages["retrain"]) == (2 + 1, 2 + 1, 4 + 1)
    assert len(summary["trials"]) == 4 + 1
    assert summary["chosen"]["values"] == summary["finalists"][0]["values"]


def test_a_repeated_sweep_computes_nothing(finished):
    before = done_markers(finished)

    run_sweep(settings(finished))

    assert done_markers(finished) == before


def test_the_chosen_configuration_is_one_file_that_the_pipeline_accepts(finished):
    chosen = json.loads((finished / "run" / "sweep.json").read_text())["chosen"]["point"]

    config = validate(load_values(finished / "run" / "best.yaml"), "best.yaml")

    assert config.refine.threshold == chosen["refine.threshold"]
    assert (config.refine.window, config.refine.stride) == (
        chosen["refine.window"],
        chosen["refine.stride"],
    )
    assert Pipeline(config, untracked(), may_run=()).evaluate().is_done()


def test_only_the_chosen_configuration_reads_the_test_split(finished):
    assert len(list((finished / "run" / "evaluate").iterdir())) == 1
    assert set(json.loads((finished / "run" / "results.json").read_text())["arms"]) == {
        "GT-repeat",
        "AVE+A+LR",
    }


def test_mlflow_has_a_parent_run_and_a_child_for_each_trial(finished):
    client = MlflowClient(f"sqlite:///{finished}/mlflow.db")
    experiment = client.get_experiment_by_name("distributed_avel")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = [
        run
        for run in runs
        if run.data.tags.get("distributed_avel.key") and (MLFLOW_PARENT_RUN_ID in run.data.tags)
    ]

    assert len(children) == 4 + 1
    assert {run.info.status for run in children} == {"FINISHED"}
    assert sum(run.data.tags.get("best") == "true" for run in children) == 1
    for run in children:
        assert {"refine.window", "refine.threshold", "seed"} <= run.data.params.keys()
        assert {"criterion", "accuracy", "val/non_ave_f1"} <= run.data.metrics.keys()
        assert len(client.get_metric_history(run.info.run_id, "train/total")) == 2
    parents = [run for run in runs if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    names = {file.path for file in client.list_artifacts(parents[0].info.run_id)}
    assert {"best.yaml", "sweep.html", "sweep.json", "figures"} <= names


def test_the_page_labels_synthetic_data_and_shows_each_trial(finished):
    page = (finished / "run" / "sweep.html").read_text()

    assert "These data are synthetic." in page
    assert page.count("[synthetic data]") >= 4
    assert page.count("<svg") >= 8 + 1 + 2 + 1
    for tau in ("0.05", "0.2"):
        assert f"N 4, s 2, tau {tau}" in page


@pytest.mark.slow
def test_sequential_and_concurrent_trials_have_equal_results(finished, tmp_path):
    run_sweep(settings(tmp_path, windows=["5:5"], num_seeds=1, max_concurrent=1))

    at_once, one_by_one = metrics_of_trials(finished), metrics_of_trials(tmp_path)
    assert len(one_by_one) == 2
    assert one_by_one == {trial: at_once[trial] for trial in one_by_one}


@pytest.mark.slow
def test_without_the_auxiliary_loss_all_window_pairs_share_one_step_1(tmp_path):
    run_sweep(settings(tmp_path, auxiliary=False, thresholds=[0.05], num_seeds=1))

    stages = Counter(Path(path).parts[-3] for path in done_markers(tmp_path))
    assert (stages["base"], stages["refine"], stages["retrain"]) == (1, 2, 2)
    assert "AVE+LR" in json.loads((tmp_path / "run" / "results.json").read_text())["arms"]


def test_a_failing_trial_is_reported_and_the_others_continue(tmp_path):
    vary = ["train.learning_rate=0.002,1.0e+30"]
    run_sweep(settings(tmp_path, windows=["5:5"], thresholds=[0.05], vary=vary, num_seeds=1))

    trials = json.loads((tmp_path / "run" / "sweep.json").read_text())["trials"]
    failed = [t for t in trials if t["error"]]
    assert {t["point"]["train.learning_rate"] for t in failed} == {1e30}
    assert all("loss is" in t["error"] for t in failed)
    assert len([t for t in trials if t["metrics"]]) == 1
    assert "loss is" in (tmp_path / "run" / "sweep.html").read_text()


def trials_of(root: Path) -> dict[Path, int]:
    """Return the time at which each trial was recorded, by file."""
    return {path: path.stat().st_mtime_ns for path in (root / "run").glob("sweep/*/trials/*.json")}


def copy_of(finished: Path, root: Path) -> None:
    shutil.copytree(finished / "run", root / "run")


def forget_a_trial(root: Path) -> Path:
    """Remove a trial and its Step 3; return the folder of Step 3."""
    first, *_ = sorted(trials_of(root))
    name, fingerprint, _ = json.loads(first.read_text())["report"]["stages"][-1]
    first.unlink()
    shutil.rmtree(root / "run" / name / fingerprint)
    return root / "run" / name / fingerprint


def test_only_unfinished_trials_are_run_again(finished, tmp_path, capfd):
    copy_of(finished, tmp_path)
    retrained = forget_a_trial(tmp_path)
    before = trials_of(tmp_path)
    assert len(before) == 4

    run_sweep(settings(tmp_path))

    after = trials_of(tmp_path)
    assert len(after) == 5
    assert {path: after[path] for path in before} == before
    assert (retrained / "DONE").exists()
    assert metrics_of_trials(tmp_path) == metrics_of_trials(finished)
    assert "of 4 trials to do" in capfd.readouterr().err


def test_a_trial_with_a_damaged_record_or_weights_is_run_again(finished, tmp_path, capfd):
    copy_of(finished, tmp_path)
    first, second, *_ = sorted(trials_of(tmp_path))
    first.write_text(first.read_text().replace("accuracy", "accurate"))
    name, fingerprint, _ = json.loads(second.read_text())["report"]["stages"][-1]
    weights = tmp_path / "run" / name / fingerprint / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))

    run_sweep(settings(tmp_path))

    assert weights.read_bytes() == before
    assert metrics_of_trials(tmp_path) == metrics_of_trials(finished)
    said = capfd.readouterr().err
    assert f"{first} is damaged; the trial is run again" in said
    assert "model.safetensors is damaged: its sha256 has changed" in said


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_in_a_run_directory_is_loaded(finished, tmp_path):
    """Pickles are planted where Ray Tune and training checkpoints store, or stored, theirs."""
    copy_of(finished, tmp_path)
    retrained, traces = forget_a_trial(tmp_path), tmp_path / "traces"
    planted = pickle.dumps(Malicious(traces))
    (sweep,) = (tmp_path / "run" / "sweep").iterdir()
    for folder in (sweep, sweep / "search", sweep / "trials", sweep / "search" / "trial"):
        for name in (
            "tuner.pkl",
            "trainable.pkl",
            "params.pkl",
            "error.pkl",
            "searcher-state-2026-01-01_00-00-00.pkl",
            "search_gen_state-2026-01-01_00-00-00.json",
            "experiment_state-2026-01-01_00-00-00.json",
        ):
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(planted)
    retrained.mkdir()
    for name in ("state.pt", "model.safetensors", "targets.parquet"):
        (retrained / name).write_bytes(planted)
    torch_file = io.BytesIO()
    torch.save(Malicious(traces), torch_file)
    digest = hashlib.sha256(torch_file.getvalue()).digest()
    (retrained / "state.pt").write_bytes(digest + torch_file.getvalue())

    run_sweep(settings(tmp_path))

    assert not traces.exists()
    assert metrics_of_trials(tmp_path) == metrics_of_trials(finished)
    pickle.loads(planted)  # shows that the planted object would run code
    assert traces.exists()


def test_a_killed_sweep_continues_with_the_unfinished_trials(tmp_path):
    """SIGKILL for all processes at once, as when the kernel runs out of memory."""
    options = {
        "--run-dir": tmp_path / "run",
        "--tracking.uri": store_in(tmp_path),
        "--data.dataset": "synthetic",
        "--data.synthetic.num-train": 56,
        "--data.synthetic.num-event-free": 6,
        "--data.synthetic.num-val": 28,
        "--data.synthetic.num-test": 28,
        "--model.hidden-size": 8,
        "--train.base-epochs": 2,
        "--train.retrain-epochs": 40,
        "--train.cpus-per-worker": 1,
        "--sweep.windows": "5:5",
        "--sweep.num-seeds": 1,
        "--sweep.max-concurrent": 1,
    }
    words = [str(word) for pair in options.items() for word in pair]
    command = [
        sys.executable,
        str(JOB),
        *words,
        *["--sweep.thresholds", "0.05", "0.1", "0.2", "0.3"],
    ]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)
        wait_until(lambda: len(trials_of(tmp_path)) >= 2 or driver.poll() is not None, 300)
        driver.kill()
        driver.wait()
    ended, trained = trials_of(tmp_path), done_markers(tmp_path)
    assert 2 <= len(ended) < 4, (tmp_path / "log").read_text()

    again = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)

    assert again.returncode == 0, again.stderr
    assert f"search: {4 - len(ended)} of 4 trials to do" in again.stderr
    after = trials_of(tmp_path)
    assert len(after) == 4
    assert {path: after[path] for path in ended} == ended
    assert trained.items() <= done_markers(tmp_path).items()
    assert len(metrics_of_trials(tmp_path)) == 4


def test_model_options_can_be_swept_in_a_relative_run_directory(tmp_path):
    values = {
        **RUN,
        "model": {"name": "psp", "hidden_size": 4, "options": {"head_size": 16}},
        "tracking": {"enabled": False},
        "sweep": {"windows": ["4:2"], "thresholds": [0.3], "num_best": 1, "num_seeds": 1},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(values))
    vary = ["--sweep.vary", "model.options.threshold=0.05,2"]
    command = ["tune", "--config", "run.yaml", "--run-dir", "run", *vary]

    sweep = subprocess.run(
        [sys.executable, "-m", "distributed_avel", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(JOB.parents[1])},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    assert sweep.returncode == 0, sweep.stderr
    trained = [
        json.loads(path.read_text())["depends"]["settings"]["model"]["options"]
        for path in (tmp_path / "run" / "retrain").glob("*/manifest.json")
    ]
    assert sorted(options["threshold"] for options in trained) == [0.05, 2.0]
    assert {options["head_size"] for options in trained} == {16}
    chosen = validate(load_values(tmp_path / "run" / "best.yaml"), "best.yaml")
    assert chosen.model.options["head_size"] == 16
    assert chosen.model.options["threshold"] in (0.05, 2.0)


@pytest.mark.slow
def test_optuna_continues_after_the_recorded_trials(tmp_path):
    vary = ["train.learning_rate=0.0005..0.005"]
    first = settings(tmp_path, search="optuna", num_trials=4, vary=vary, num_seeds=1)
    run_sweep(first)
    before = metrics_of_trials(tmp_path)
    forget_a_trial(tmp_path)
    kept = trials_of(tmp_path)

    run_sweep(first)

    after = trials_of(tmp_path)
    assert len(after) == len(metrics_of_trials(tmp_path)) == 4
    assert {path: after[path] for path in kept} == kept
    assert len(before.keys() & metrics_of_trials(tmp_path).keys()) == 3  # and one new trial


@pytest.mark.slow
@pytest.mark.parametrize("search", ["optuna", "asha", "random"])
def test_other_searches_try_the_requested_number_of_points(search, tmp_path):
    vary = ["train.learning_rate=0.0005..0.005"]
    run_sweep(settings(tmp_path, search=search, num_trials=3, vary=vary, num_seeds=1))

    trials = json.loads((tmp_path / "run" / "sweep.json").read_text())["trials"]
    assert len(trials) == 3
    assert all(0.0005 <= t["point"]["train.learning_rate"] <= 0.005 for t in trials)
    assert all(t["error"] is None for t in trials)
    assert any(t["metrics"] for t in trials)


@pytest.mark.slow
def test_concurrent_trials_with_several_workers_do_not_deadlock(tmp_path, finished):
    config = settings(tmp_path, windows=["5:5"], thresholds=[0.05, 0.2], num_seeds=1)
    values = config.model_dump(mode="json")
    values["train"]["num_workers"] = 2
    values["refine"]["num_actors"] = 1
    run_sweep(validate(values, "test", TuneConfig))

    nested = metrics_of_trials(tmp_path)
    assert len(nested) == 2
    for name, metrics in nested.items():
        alone = metrics_of_trials(finished)[name]
        assert isinstance(alone, dict)
        assert metrics == pytest.approx(alone, abs=2.0)  # sums over workers round differently


def test_sweeps_that_the_cluster_can_never_run_are_refused_before_starting(tmp_path):
    config = settings(tmp_path)
    values = config.model_dump(mode="json")
    values["train"]["cpus_per_worker"] = 64
    with pytest.raises(ResourceError, match="64"):
        run_sweep(validate(values, "test", TuneConfig))
    with pytest.raises(ConfigError, match="no such metric"):
        run_sweep(settings(tmp_path, criterion=["precision"]))
    assert not (tmp_path / "run").exists()


@ray.remote(num_cpus=1)
def compute_base(config: RunConfig, leases) -> int:
    """Ensure Step 1, and return the number of epochs that this process trained."""
    epochs = []
    execution = Execution(
        in_process=True,
        watch=lambda stage, epoch, metrics: epochs.append(epoch),
        lease=LeaseHolder(leases),
    )
    Pipeline(config, untracked(), execution=execution).base(auxiliary=True).ensure()
    return len(epochs)


def test_concurrent_requests_for_a_stage_compute_it_once(tmp_path):
    config = RunConfig.model_validate({**RUN, "run_dir": str(tmp_path)})
    Pipeline(config, untracked()).usable("train")
    leases = LeaseActor.remote()

    epochs = ray.get([compute_base.remote(config, leases) for _ in range(3)])

    assert sorted(epochs) == [0, 0, 2]

    (weights,) = tmp_path.glob("base/*/model.safetensors")
    before = weights.read_bytes()
    weights.write_bytes(before[:-1])
    epochs = ray.get([compute_base.remote(config, leases) for _ in range(3)])
    assert sorted(epochs) == [0, 0, 2]
    assert weights.read_bytes() == before


@ray.remote(num_cpus=1, max_retries=0)
def die_holding(stage: Artifact, leases) -> None:
    with LeaseHolder(leases)(stage) as is_mine:
        assert is_mine
        import os

        os._exit(1)


def test_the_lease_of_a_dead_holder_is_passed_on(tmp_path):
    stage = Artifact(Location.at(tmp_path), "base", {})
    leases = LeaseActor.remote(3.0)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(die_holding.remote(stage, leases))

    with LeaseHolder(leases)(stage) as is_mine:
        assert is_mine
