"""The wheel is complete, and its declared dependencies are correct."""

import ast
import re
import shutil
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import distributed_avel
from distributed_avel.version import VERSION
from tests.wheels import build_wheel

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "distributed_avel"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

NOT_BUILT = shutil.ignore_patterns("__pycache__")


def normal(name: str) -> str:
    """Normalize the name of a distribution as package indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in requirements}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in ("distributed_avel", "jobs", "tests/cloud"):
        shutil.copytree(ROOT / folder, source / folder, ignore=NOT_BUILT)
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_contains_every_file_of_the_package(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}

    assert {file for file in files if "__pycache__" not in file} <= wheel


def test_the_wheel_contains_only_the_package_and_its_licence(wheel):
    metadata = f"distributed_avel-{distributed_avel.__version__}.dist-info"

    assert {name.partition("/")[0] for name in wheel} == {"distributed_avel", metadata}
    assert f"{metadata}/licenses/LICENSE" in wheel


def test_every_import_is_a_declared_dependency():
    project = PROJECT["project"]
    extras = (project["optional-dependencies"][name] for name in ("hub", "onnx", "plot"))
    declared = names([*project["dependencies"], *(line for extra in extras for line in extra)])
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in [*PACKAGE.rglob("*.py"), *(ROOT / "jobs").glob("*.py")]
        for module in imported_modules(path)
        if module not in sys.stdlib_module_names and module != "distributed_avel"
        if not declared & {normal(name) for name in distributions.get(module, [])}
    }

    assert not undeclared


def imported_modules(path: Path) -> set[str]:
    """Return the top-level modules that a file imports, also inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.partition(".")[0])
    return modules


def test_every_declared_dependency_has_a_pinned_version():
    project = PROJECT["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = names([*project["dependencies"], *extras])
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", pin) for pin in pins)
    assert declared <= names(pins)


def test_the_import_contracts_cover_every_module():
    forbidden = [
        contract
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "forbidden" and contract["forbidden_modules"] == ["ray", "mlflow"]
    ]
    (below,) = [set(c["source_modules"]) for c in forbidden if "allow_indirect_imports" not in c]
    (above,) = [set(c["source_modules"]) for c in forbidden if "allow_indirect_imports" in c]
    modules = {
        f"distributed_avel.{path.stem}"
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    on_ray = (
        "__main__",
        "bulk_prediction",
        "checks",
        "commands",
        "doctor",
        "pipeline",
        "publish",
        "run",
        "stages",
        "startup",
        "studies",
    )
    assert above == {f"distributed_avel.{name}" for name in on_ray}
    assert below == modules - above - {"distributed_avel.__init__", "distributed_avel.cluster"}


PAGES = ["README.md", "CONTRIBUTING.md", "AGENTS.md"]
FILE, FOLDER = r"[\w./-]+\.(?:py|md|yaml|toml)", r"[\w./-]+/"
FILES_OF_THE_READER = {"best.yaml", "example.py", "my_model.py"}


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_the_layout_exists(page):
    paths = re.findall(rf"`({FILE}|{FOLDER})`", (ROOT / page).read_text())

    assert paths
    assert not [path for path in paths if not exists(path)]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_file_named_in_the_docs_exists(page):
    """Folders are not checked, because most of them belong to data sets."""
    paths = set(re.findall(rf"`({FILE})`", page.read_text()))

    assert not [path for path in paths - FILES_OF_THE_READER if not exists(path)]


def exists(path: str) -> bool:
    """Return True if a path exists in the repository or in the package."""
    return (ROOT / path).exists() or (PACKAGE / path).exists()


def test_the_changelog_begins_with_the_version_of_the_package():
    first, *_ = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert first == VERSION
