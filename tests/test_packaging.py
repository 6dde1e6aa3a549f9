"""What is shipped: the wheel, its YAML files, and the pins."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "search_spaces", "trainers", "orchestrator")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# They come only with the CUDA build of torch, which asks for exact versions itself; constraints.txt says so.
PINNED_BY_TORCH = {"triton"}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def asked_for() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]]


def test_every_requirement_is_pinned_inside_its_range() -> None:
    pinned = pins()
    for requirement in asked_for():
        name = canonicalize_name(requirement.name)
        if name not in PINNED_BY_TORCH:
            assert name in pinned, f"{name} is not in constraints.txt: run `make constraints`"
            assert requirement.specifier.contains(pinned[name]), (
                f"{name}=={pinned[name]} is outside {requirement.specifier}"
            )


def test_pins_fit_gpu_machines() -> None:
    pinned = pins()
    assert pinned["torch"] == "2.13.0"
    assert [f"{name}=={version}" for name, version in pinned.items() if "+" in version] == []
    assert [name for name in pinned if re.match(r"nvidia-(?!ml-py)|cuda-|triton$", name)] == []


@pytest.mark.system
def test_wheel_carries_every_module_and_yaml_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            tmp_path,
            source,
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("spikebench-*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.suffix in {".py", ".yaml", ".c"} or path.name == "py.typed"
    }
    assert wanted - shipped == set()
    assert {name.split("/")[0] for name in shipped if ".dist-info" not in name} == set(PACKAGES)
