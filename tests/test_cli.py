"""Settings from a file and the command line, and error messages, common to all jobs."""

import subprocess
import sys
from pathlib import Path

import pytest

from distributed_avel.cli import INTERRUPTED, USER_ERROR, read_config, run_job
from distributed_avel.config import RunConfig
from distributed_avel.errors import ConfigError, DatasetError

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def config_file(tmp_path: Path):
    def write(text: str) -> str:
        (tmp_path / "run.yaml").write_text(text)
        return str(tmp_path / "run.yaml")

    return write


def refused(argv: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read_config(argv)
    return str(error.value).splitlines()


# Sources of values


def test_without_arguments_the_defaults_are_used():
    assert read_config([]) == RunConfig()


def test_the_command_line_overrides_the_file_which_overrides_the_defaults(config_file):
    path = config_file("seed: 3\ntrain: {batch_size: 8, loss: soft_margin}\n")

    config = read_config(["--train.batch-size", "4", "--config", path, "--refine.unit-size", "9"])

    assert config.train.batch_size == 4
    assert config.train.loss == "soft_margin"
    assert config.seed == 3
    assert config.refine.unit_size == 9
    assert config.train.base_epochs == RunConfig().train.base_epochs


def test_a_default_given_on_the_command_line_overrides_the_file(config_file):
    path = config_file("seed: 3\ntrain: {use_gpu: true}\n")

    config = read_config(["--config", path, "--seed", "0", "--train.no-use-gpu"])

    assert config == RunConfig()


def test_the_command_line_can_complete_an_invalid_file(config_file):
    path = config_file("refine: {window: 3}\n")  # with the default stride no windows fit

    assert read_config([f"--config={path}", "--refine.stride", "1"]).refine.window == 3
    assert "stride must divide" in refused([f"--config={path}"])[1]


def test_every_type_of_value_can_be_given():
    config = read_config(
        [
            *("--arms", "A", "base"),
            *("--data.root", "None"),
            *("--run-dir", "s3://b/x"),
            *("--refine.threshold", "0.25"),
            *("--train.learning-rate", "1e-3"),
            "--train.use-gpu",
            "--tracking.no-enabled",
            *("--extract.weights", "vgg19", "random", "vggish", "a/b.pth"),
            *("--cluster.num-cpus", "6"),
        ]
    )

    assert config.arms == ("A", "base")
    assert config.data.root is None
    assert config.run_dir == "s3://b/x"
    assert config.refine.threshold == 0.25
    assert config.train.learning_rate == 1e-3
    assert config.train.use_gpu
    assert not config.tracking.enabled
    assert config.extract.weights == {"vgg19": "random", "vggish": "a/b.pth"}
    assert config.cluster.num_cpus == 6
    assert read_config(["--refine.threshold", "validation"]) == RunConfig()


# Errors


def test_all_problems_of_the_command_line_are_reported_together():
    wrong = ["--refine.window", "four", "--refine.strde", "3", "--train.loss=mse"]

    lines = refused([*wrong, "--extract.weights", "vgg19", "random", "--seed", "-1"])

    assert lines == [
        "command line: 4 problem(s)",
        "  seed: Input should be greater than or equal to 0",
        "  train.loss: Input should be 'soft_margin' or 'cross_entropy'",
        "  refine.window: Input should be a valid integer, unable to parse string as an integer",
        "  refine.strde: no such key; perhaps stride",
    ]


def test_problems_of_the_file_and_of_the_command_line_are_reported_together(config_file):
    path = config_file("model: {nme: ave}\nrefine: 7\ndata: {num_segments: none}\n")

    lines = refused(["--config", path, "--train.num-workers", "0", "--nothing=1", "stray"])

    assert lines[0] == f"{path} and command line: 6 problem(s)"
    assert {line.split(":")[0].strip() for line in lines[1:]} == {
        "model.nme",
        "refine",
        "data.num_segments",
        "train.num_workers",
        "nothing",
        "stray",
    }


def test_a_config_option_without_a_path_is_refused():
    assert refused(["--seed", "1", "--config"])[1:] == ["  config: --config needs a value"]


def test_a_malformed_option_exits_with_the_status_of_a_user_error(capsys):
    assert run_job(lambda _: None, ["--refine.window", "--seed", "-1", "run_dir=/x"], None) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: command line: 3 problem(s)",
        "  seed: Input should be greater than or equal to 0",
        "  refine.window: --refine.window needs a value",
        "  run_dir=/x: not an option; write --run-dir /x",
    ]


# Exit status of a job


def test_a_job_receives_the_settings():
    seen = []

    assert run_job(seen.append, ["--seed", "5"], None) == 0
    assert [config.seed for config in seen] == [5]


def test_a_user_error_is_printed_without_a_traceback(capsys):
    def job(config: RunConfig) -> None:
        raise DatasetError("Annotations.txt: no line")

    assert run_job(job, [], None) == USER_ERROR
    assert capsys.readouterr().err == "error: Annotations.txt: no line\n"


def test_a_bug_keeps_its_traceback():
    def job(config: RunConfig) -> None:
        raise KeyError("impossible")

    with pytest.raises(KeyError):
        run_job(job, [], None)


def test_an_interrupted_job_says_how_to_continue(capsys):
    def job(config: RunConfig) -> None:
        raise KeyboardInterrupt

    assert run_job(job, [], None) == INTERRUPTED
    assert "the same command continues" in capsys.readouterr().err


# The main job


def pipeline(tmp_path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, REPOSITORY / "jobs" / "pipeline.py", *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.multiprocess
def test_the_main_job_refuses_invalid_settings_before_it_starts(tmp_path, config_file):
    path = config_file("model: {pooling: median}\nrefine: {window: 9}\n")

    run = pipeline(tmp_path, "--config", path, "--train.batch-sise", "3")

    assert run.returncode == USER_ERROR
    assert run.stdout == ""
    assert run.stderr.splitlines() == [
        f"error: {path} and command line: 3 problem(s)",
        "  model.pooling: Input should be 'model', 'max', 'mean' or 'lse'",
        "  train.batch_sise: no such key; perhaps batch_size",
        "  refine: window must be in 2..5 for 10 segments, got 9",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.multiprocess
def test_the_main_job_reports_all_unregistered_names_together(tmp_path):
    names = ["--data.dataset", "avee", "--model.name", "ave2", "--extract.extractor", "vgg"]

    run = pipeline(tmp_path, *names)

    assert run.returncode == USER_ERROR
    assert "Traceback" not in run.stderr
    for key in ("data.dataset: no data set 'avee'", "model.name: no base model 'ave2'"):
        assert f"{key}; there are: " in run.stderr
    assert "extract.extractor: no extractor 'vgg'; there are: " in run.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.multiprocess
def test_the_help_of_the_main_job_lists_every_option_with_its_default(tmp_path):
    def options(section, prefix="--"):
        for name, info in section.model_fields.items():
            option = prefix + name.replace("_", "-")
            if hasattr(info.annotation, "model_fields"):
                yield from options(info.annotation, f"{option}.")
            else:
                yield option

    run = pipeline(tmp_path, "--help")

    assert run.returncode == 0
    assert [option for option in options(RunConfig) if option not in run.stdout] == []
    assert "--config PATH" in run.stdout
    assert "--refine.window INT" in run.stdout
    assert "--model.pooling {model,max,mean,lse}" in run.stdout
    assert "N, the length of a window, in segments. (default: 4)" in run.stdout
