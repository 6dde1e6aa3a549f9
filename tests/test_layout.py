"""The shape of the code: who may import whom, how long a module may be, what every module must have."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "search_spaces", "trainers", "orchestrator")
MAY_IMPORT = {
    "configs": set(),
    "search_spaces": {"configs"},
    "trainers": {"configs"},
    "orchestrator": {"configs", "search_spaces", "trainers"},
}
FORBIDDEN_LIBRARIES = {
    "configs": {"torch", "torchvision", "timm", "spikingjelly", "optuna", "sqlalchemy", "mlflow", "ray"},
    "search_spaces": {"torch", "torchvision", "timm", "spikingjelly", "sqlalchemy", "mlflow", "ray"},
    "trainers": {"optuna", "sqlalchemy", "alembic", "psycopg", "mlflow", "ray", "typer", "rich"},
    "orchestrator": {"spikingjelly", "timm"},
}
# Kinds that are plain building blocks take keyword arguments; they must not see a configuration object.
CONFIG_FREE = ("trainers/models", "trainers/encoders", "trainers/losses", "trainers/neurons.py")
LONGEST_MODULE = 450
MENDING = {"trainers.torchvision_ops", "trainers.models"}  # either makes torchvision importable

TOP_FOLDERS = {f"{package}/" for package in PACKAGES}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_PRINT = {path for path in MODULES if path.is_relative_to(ROOT / "orchestrator" / "commands")}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import in a file, those inside functions included."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


def test_there_are_modules_to_check() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    refused = set(PACKAGES) - {package} - MAY_IMPORT[package] | FORBIDDEN_LIBRARIES[package] | {"tests", "benchmarks"}
    wrong = [
        f"{named(path)}:{line} imports {module}"
        for path in MODULES
        if path.is_relative_to(ROOT / package)
        for line, module in imports(path)
        if module.split(".")[0] in refused
    ]
    assert wrong == []


def test_building_blocks_see_no_configuration() -> None:
    wrong = [
        f"{named(path)}:{line} imports {module}"
        for path in MODULES
        if named(path).startswith(CONFIG_FREE)
        for line, module in imports(path)
        if module.split(".")[0] == "configs" and module != "configs.problems"
    ]
    assert wrong == []


def test_torchvision_is_mended_before_it_is_imported() -> None:
    """timm and spikingjelly import torchvision, which fails beside a CPU-only torch without this."""
    wrong = []
    for path in MODULES:
        found = list(imports(path))
        mended = min((line for line, module in found if module in MENDING), default=math.inf)
        wrong += [
            f"{named(path)}:{line} imports {module}"
            for line, module in found
            if module.split(".")[0] in {"timm", "torchvision", "spikingjelly"}
            and line < mended
            and path.name != "torchvision_ops.py"
        ]
    assert wrong == []


def test_only_commands_print() -> None:
    wrong = [
        f"{named(path)}:{node.lineno}"
        for path in MODULES
        if path not in MAY_PRINT
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


def test_modules_are_short() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_folders_are_one_level_deep() -> None:
    assert [named(path) for path in MODULES if len(path.relative_to(ROOT).parts) > 3] == []


def test_every_module_says_what_it_is_for() -> None:
    assert [named(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in MODULES}
    assert sorted(named(folder) for folder in folders if not (folder / "__init__.py").exists()) == []


@pytest.mark.parametrize("light", ["configs.schema", "search_spaces.space", "trainers.protocol", "orchestrator.cli"])
def test_light_modules_load_nothing_heavy(light: str) -> None:
    """`--help`, a typing mistake in a space and shell completion must answer at once."""
    heavy = {"torch", "timm", "spikingjelly", "mlflow", "ray", "optuna", "pandas", "plotly"}
    code = f"import sys, {light}; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_console_scripts_resolve() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(scripts) == {"spikebench", "spikebench-search"}
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function))


def readme_tree() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").partition("## Files")[2].partition("\n## ")[0]


def test_readme_shows_every_module() -> None:
    """A module is named in the README's tree, or the folder it lies in is."""
    named_there = set(re.findall(r"[\w./*]+", readme_tree())) - TOP_FOLDERS
    missing = [
        named(path)
        for path in MODULES
        if path.name != "__init__.py" and not {path.name, f"{path.parent.name}/"} & named_there
    ]
    assert missing == []


def test_readme_shows_no_module_that_is_gone() -> None:
    known = {path.name for path in MODULES}
    assert {name for name in re.findall(r"\w+\.py\b", readme_tree()) if name not in known} == set()
