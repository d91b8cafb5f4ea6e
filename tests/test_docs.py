"""Commands, settings, names and messages in `docs/` and the README exist in the code."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from distributed_avel import commands
from distributed_avel.cli import read_config
from distributed_avel.config import RunConfig, built_in_configs, validate
from distributed_avel.startup import check_names

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "distributed_avel"
PAGES = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").glob("*.md"))]

IN_A_PLUGIN = {"linear", "my_model", "colour", "subfolders"}
"""Names in examples that a plug-in registers, which is not installed here."""


def blocks(language: str) -> list[tuple[str, str]]:
    """Return page and content of every code block in a language."""
    pattern = re.compile(rf"^ *```{language}\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    return [(page.name, block) for page in PAGES for block in pattern.findall(page.read_text())]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield page and words of every command in a bash block, without comments."""
    for page, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield page, words


def avel_commands() -> list[tuple[str, str, list[str]]]:
    """Return page, name and arguments of every `avel` command, also of those inside Ray jobs."""
    found = []
    for page, words in command_lines():
        if words[:3] == ["ray", "job", "submit"]:
            words = words[words.index("--") + 1 :]
        program = Path(words[0]).name
        if program == "avel":
            found.append((page, *name_and_arguments(words[1:])))
        elif program == "python" and words[1].startswith("jobs/"):
            found.append((page, command_of_job(Path(words[1])), words[2:]))
    return found


def name_and_arguments(words: list[str]) -> tuple[str, list[str]]:
    return (words[0], words[1:]) if words else ("--help", [])


def command_of_job(path: Path) -> str:
    """Return the `avel` command of a file in `jobs/`, which imports the command's function."""
    (imported,) = re.findall(
        r"from distributed_avel.commands import (\w+)", (ROOT / path).read_text()
    )
    (name,) = [n for n, command in commands.COMMANDS.items() if command.__name__ == imported]
    return name


COMMANDS = avel_commands()


def test_commands_are_found_on_each_page_that_has_any():
    assert len(COMMANDS) > 40
    assert {"README.md", "cluster.md", "your_videos.md", "ave_llp.md"} <= {c[0] for c in COMMANDS}
    assert {name for _, name, _ in COMMANDS} >= {*commands.COMMANDS}


@pytest.mark.parametrize(
    ("page", "name", "arguments"), COMMANDS, ids=[f"{c[0]}: avel {c[1]}" for c in COMMANDS]
)
def test_every_command_in_the_docs_is_accepted(page, name, arguments, monkeypatch, tmp_path):
    """Parse the options of a command as usual, without running the command."""
    read = []

    def parse_only(
        job: Any, argv: list[str], description: str | None, kind: type[RunConfig] = RunConfig
    ) -> int:
        read.append(read_config(argv, description, kind))
        return 0

    monkeypatch.setattr(commands, "run_job", parse_only)
    if name.startswith("--"):
        assert commands.main([name]) == 0
        return
    if name == "completion":
        assert commands.main([name, *arguments]) == 0
        return
    if "--help" in arguments:
        assert exit_status([name, *arguments]) == 0
        return
    if name in (
        "predict",
        "export",
        "annotate-export",
        "import-annotations",
    ):  # reads no configuration
        monkeypatch.setattr(commands, "run_safely", lambda action, *_: 0)
        assert commands.main([name, *arguments]) == 0
        return
    assert commands.main([name, *with_existing_config(arguments, tmp_path)]) == 0
    (config,) = read
    named = {config.model.name, config.extract.extractor, config.data.dataset}
    if not named & IN_A_PLUGIN:
        check_names(config)


def exit_status(argv: list[str]) -> Any:
    """Return the status with which `avel` returns or exits."""
    try:
        return commands.main(argv)
    except SystemExit as end:
        return end.code


def with_existing_config(arguments: list[str], folder: Path) -> list[str]:
    """Replace a configuration file that only the reader has by an empty file."""
    if "--config" not in arguments:
        return arguments
    at = arguments.index("--config") + 1
    if arguments[at] in built_in_configs():
        return arguments
    empty = folder / "empty.yaml"
    empty.write_text("")
    return [*arguments[:at], str(empty), *arguments[at + 1 :]]


def test_scripts_in_the_docs_exist():
    scripts = {
        words[1]
        for _, words in command_lines()
        if Path(words[0]).name == "python" and words[1].endswith(".py")
    }

    assert scripts
    assert not [script for script in scripts if not (ROOT / script).is_file()]


def test_make_targets_in_the_docs_exist():
    targets = {words[1] for _, words in command_lines() if words[0] == "make"}
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert targets
    assert targets <= {*rules}


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_every_configuration_in_the_docs_is_valid(page, block):
    check_names(validate(yaml.safe_load(block), page))


def test_the_page_on_configuration_names_every_built_in_configuration():
    page = (ROOT / "docs" / "configuration.md").read_text()

    assert not [name for name in built_in_configs() if f"`{name}`" not in page]


def test_every_included_file_exists():
    included = {
        path for page in PAGES for path in re.findall(r"<!-- file: (\S+) -->", page.read_text())
    }

    assert included
    assert not [path for path in included if not (ROOT / path).is_file()]


@pytest.mark.parametrize(("page", "block"), blocks("python"))
def test_every_import_in_the_docs_works(page, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("distributed_avel"):
            module = import_module(str(node.module))
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_the_picture_of_the_report_is_small():
    assert (ROOT / "docs" / "report.png").stat().st_size < 150_000


def code_names() -> list[tuple[str, str]]:
    """Return page and name of every function or class that is written as `module.name()`."""
    pattern = re.compile(r"`((?:[a-z_]+\.)+\w+)\(\)`")
    return [
        (page.name, name)
        for page in PAGES
        for name in pattern.findall(page.read_text())
        if (PACKAGE / name.partition(".")[0]).is_dir()
        or (PACKAGE / f"{name.partition('.')[0]}.py").is_file()
    ]


def test_every_function_named_in_the_docs_exists():
    names = {name for _, name in code_names()}

    assert len(names) > 20
    assert not [name for name in sorted(names) if resolve(name) is None]


def resolve(name: str) -> Any:
    """Return the object with a dotted name below the package, or None if there is none."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(["distributed_avel", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found
    return None


def symptoms() -> list[str]:
    """Return the messages in the first column of the tables of the troubleshooting page."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


@cache
def texts_of_the_package() -> str:
    """Return all strings in the code of the package, with … for each formatted value."""
    texts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                ]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_every_message_on_the_troubleshooting_page_exists():
    known = texts_of_the_package()

    assert len(symptoms()) > 40
    missing = [
        (message, part.strip())
        for message in symptoms()
        for part in message.split("…")
        if part.strip(" :") and part.strip() not in known
    ]
    assert not missing
