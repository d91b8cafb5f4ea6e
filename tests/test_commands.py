"""The console command `avel`, and the files in `jobs/`, which call the same functions."""

import subprocess
import sys
from pathlib import Path

import pytest

from distributed_avel import __version__
from distributed_avel.cli import INTERRUPTED, USER_ERROR
from distributed_avel.commands import COMMANDS, main

JOBS = Path(__file__).parents[1] / "jobs"
HEAVY = ("torch", "ray", "mlflow", "librosa", "pandas")


def test_the_overview_lists_each_command(capsys):
    assert main([]) == main(["--help"]) == 0

    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert any(line.split()[:1] == [name] for line in lines)


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"avel {__version__}\n"


def test_an_unknown_command_is_refused_with_the_list_of_commands(capsys):
    assert main(["runn"]) == USER_ERROR

    line = capsys.readouterr().err
    assert line.startswith("error: no command 'runn'; there are: demo, run, ")
    assert line.count("\n") == 1


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_errors_import_no_heavy_library(name, tmp_path):
    script = (
        "import sys\n"
        "from distributed_avel.commands import main\n"
        "try:\n"
        "    main([sys.argv[1], sys.argv[2]])\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    for argument in ("--help", "--no-such-option=1"):
        run = subprocess.run(
            [sys.executable, "-c", script, name, argument],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert run.stdout.splitlines()[-1] == "[]", argument
    assert list(tmp_path.iterdir()) == []


@pytest.mark.multiprocess
@pytest.mark.parametrize("job", sorted(JOBS.glob("*.py")), ids=lambda path: path.stem)
def test_each_job_prints_its_help(job, tmp_path):
    run = subprocess.run(
        [sys.executable, str(job), "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert ("MODEL is the folder" if job.stem == "predict" else "--config PATH") in run.stdout


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["inspect", "clip.mp4", "--out", "sheets"], "--out"),
        (["check", "--data.dataset", "synthetic", "--write-split", "split"], "--write-split"),
    ],
)
def test_output_inside_rays_copy_of_the_working_directory_is_refused(
    argv, option, tmp_path, monkeypatch, capsys
):
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)

    assert main(argv) == USER_ERROR

    line = capsys.readouterr().err
    assert line.startswith(f"error: {option}: ")
    assert "use an absolute path" in line
    assert not list(copy.iterdir())


def test_the_demo_refuses_another_data_set(capsys):
    assert main(["demo", "--data.dataset", "synthetic"]) == USER_ERROR
    assert "use `avel run` for synthetic" in capsys.readouterr().err


def test_an_interrupted_prediction_does_not_promise_to_continue(capsys, monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("distributed_avel.predict.files.predict_files", interrupted)

    assert main(["predict", "model", "video.mp4"]) == INTERRUPTED
    message = capsys.readouterr().err
    assert (
        message
        == "interrupted; results are written at the end, and the same command starts again\n"
    )
