"""Shell completion: the script of bash, run by bash."""

import io
import subprocess
from contextlib import redirect_stdout

import pytest

from distributed_avel.cli import USER_ERROR
from distributed_avel.commands import COMMANDS, main

COMPLETE = """
source /dev/stdin
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_avel avel "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script() -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(["completion", "bash"]) == 0
    return printed.getvalue()


def complete(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    run = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "avel", *words],
        input=script,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return run.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], {*COMMANDS}),
        (["run", "--train.lo"], {"--train.loss"}),
        (["run", "--train.loss", ""], {"soft_margin", "cross_entropy"}),
        (["run", "--tracking.no"], {"--tracking.no-enabled"}),
        (["run", "--config", "ave"], {"ave", "ave_features"}),
        (["tune", "--sweep.num-t"], {"--sweep.num-trials", "--sweep.num-thresholds"}),
        (["run", "--sweep.num-t"], set()),
        (["predict", "--weights-"], {"--weights-dir"}),
        (["check", "--no-f"], {"--no-files"}),
    ],
)
def test_bash_completes_commands_options_and_values(script, words, offered):
    assert {*complete(script, *words)} == offered


@pytest.mark.parametrize("shell", ["fish", "tcsh", "zsh"])
def test_other_shells_have_a_script(shell, capsys):
    assert main(["completion", shell]) == 0

    assert "train.learning-rate" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["cmd"], ["bash", "zsh"]])
def test_an_unknown_shell_is_refused_with_the_known_ones(arguments, capsys):
    assert main(["completion", *arguments]) == USER_ERROR

    assert "one of bash, " in capsys.readouterr().err
