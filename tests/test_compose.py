"""The compose file holds together: no engine is here, so everything that it names is looked up."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from click.core import Command

from orchestrator.cli import add_command

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text(encoding="utf-8")
RAW: dict[str, Any] = yaml.safe_load(TEXT)
VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
# Console scripts of packages that pyproject.toml asks for, and where their commands are.
OTHERS_SCRIPTS = {"mlflow": "mlflow.cli", "ray": "ray.scripts.scripts"}
THE_WAY_IN = "proxy"
FILLED_IN = {  # what .env.example leaves empty
    "POSTGRES_PASSWORD": "a",
    "SPIKEBENCH_DB_PASSWORD": "b",
    "MLFLOW_DB_PASSWORD": "c",
    "PROXY_USER": "d",
    "PROXY_PASSWORD_HASH": "$2a$14$e",
}


class UnsetError(Exception):
    """A variable that must be set is not."""


def resolved(text: str, given: Mapping[str, str]) -> str:
    """Return a text with its variables as docker compose fills them in."""

    def value_of(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if given.get(name):
            return given[name]
        if operator == ":-":
            return str(rest)
        raise UnsetError(f"{name}: {rest}")

    return VARIABLE.sub(value_of, text)


def filled(value: Any, given: Mapping[str, str] = FILLED_IN) -> Any:
    if isinstance(value, dict):
        return {key: filled(entry, given) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, given) for entry in value]
    return resolved(value, given) if isinstance(value, str) else value


FILE: dict[str, Any] = filled(RAW)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]


def example() -> dict[str, str]:
    """Return the variables of .env.example, those in comments too."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(found.groups() for line in lines if (found := re.match(r"(?:# )?([A-Z_]+)=(.*)$", line)))


def test_the_schema_of_compose_files_is_kept() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", sorted(FILLED_IN))
def test_nothing_starts_without_its_secrets(name: str) -> None:
    with pytest.raises(UnsetError, match=rf"^{name}: set it in .env$"):
        filled(RAW, {**FILLED_IN, name: ""})


def test_the_example_names_every_variable_and_no_secret() -> None:
    used = {match[1]: match[3] for match in VARIABLE.finditer(TEXT)}
    shown = example()
    assert set(shown) == set(used)
    assert {name for name, value in shown.items() if not value} == set(FILLED_IN)
    assert {name: value for name, value in shown.items() if value and used[name] not in (value, "runs", "data")} == {}


def test_secrets_come_from_the_environment_alone() -> None:
    files = [COMPOSE, ROOT / "Dockerfile", *(ROOT / "deploy").iterdir()]
    shown = VARIABLE.sub("$", "".join(path.read_text(encoding="utf-8") for path in files))
    literals = re.findall(r"(?i)\w*(?:password|secret|token)\w*[ \t]*[:=](?!')[ \t]*(?!\$|[\"']\$)[^\s]+", shown)
    literals += re.findall(r"://[^\s/:@]+:(?!\$)[^\s/@]+@", shown)
    assert literals == []
    assert "--env-file" not in TEXT
    for secret in FILLED_IN:
        assert f"${{{secret}:?" in TEXT
        assert f"${{{secret}:-" not in TEXT
    commands = [word for service in RAW["services"].values() for word in service.get("command", [])]
    assert [word for word in commands if "PASSWORD" in word] == []  # every user of a machine reads command lines


def test_services_wait_for_what_is_there_and_can_be_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} depends on {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no", f"{name} waits for the end of {other}"
            # One that is started without a profile must not need one that is only started with it.
            assert set(SERVICES[other].get("profiles", [])) <= set(service.get("profiles", []))


def test_no_service_waits_for_itself() -> None:
    left = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    while ready := {name for name, others in left.items() if not others}:
        left = {name: others - ready for name, others in left.items() if name not in ready}
    assert left == {}


def test_every_server_has_a_health_check() -> None:
    servers = {"postgres", "dashboard", "mlflow", "proxy", "ray-head"}
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == servers


def test_volumes_and_networks_are_declared_and_files_exist() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            assert (ROOT / source).exists() if source.startswith("./") else source in FILE["volumes"], (name, source)
        assert service["networks"], name
        assert set(service["networks"]) <= set(FILE["networks"])
    mounted = {v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", [])}
    assert set(FILE["volumes"]) <= mounted


def test_a_folder_of_the_machine_can_stand_for_a_volume() -> None:
    services = filled(RAW, {**FILLED_IN, "RUNS_DIR": "/srv/runs", "DATA_DIR": "/srv/data"})["services"]
    volumes = services["worker"]["volumes"]
    assert volumes == ["/srv/runs:/work/runs", "/srv/data:/work/data"]


def test_whoever_shares_results_sees_them_at_the_same_path() -> None:
    runs = {name for name, service in SERVICES.items() if "runs:/work/runs" in service.get("volumes", [])}
    assert runs == {"controller", "worker", "worker-cpu", "dashboard", "ray-head", "ray-worker"}


def test_only_the_proxy_is_reached_from_other_machines() -> None:
    assert example()["PROXY_BIND"] == "127.0.0.1"
    for name, service in SERVICES.items():
        assert "network_mode" not in service
        for port in service.get("ports", []):
            assert name == THE_WAY_IN or port.startswith("127.0.0.1:"), f"{name}: {port}"
    assert set(SERVICES[THE_WAY_IN]["networks"]) == {"front"}  # it does not reach the database
    assert "ports" not in SERVICES["dashboard"]


def test_the_proxy_asks_for_a_password_before_each_service() -> None:
    text = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    sites = re.findall(r"^https://\{\$PROXY_HOST\}:(\d+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    inside = {port.split(":")[-1] for port in SERVICES[THE_WAY_IN]["ports"]}
    assert {port for port, _ in sites} == inside
    for _, block in sites:
        assert block.strip().startswith("import behind_a_login")
        (host, port), *_ = re.findall(r"reverse_proxy (\w+):(\d+)", block)
        assert "front" in SERVICES[host]["networks"]
        assert port in SERVICES[host]["command"]
    assert "basic_auth" in text
    assert set(re.findall(r"\{\$(\w+)\}", text)) <= set(SERVICES[THE_WAY_IN]["environment"])


def test_gpu_workers_reserve_gpus_and_the_cpu_profile_none() -> None:
    with_gpus = set()
    for name, service in SERVICES.items():
        for device in service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", []):
            assert device["capabilities"] == ["gpu"]
            assert device["driver"] == "nvidia"
            with_gpus.add(name)
    assert with_gpus == {"worker", "ray-worker"}
    assert SERVICES["worker"]["profiles"] == ["gpu"]
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert [name for name, service in SERVICES.items() if "container_name" in service] == []  # it would forbid --scale


def test_a_study_that_ended_is_not_started_again() -> None:
    assert SERVICES["controller"]["restart"] == "no"


def options(arguments: list[str]) -> Command:
    """Return a command of ours after it has read its arguments; nothing of it runs."""
    built = typer.Typer()
    add_command(built, arguments[0])
    command = typer.main.get_command(built)
    command.make_context(arguments[0], arguments[1:])
    return command


def test_every_command_exists_and_takes_its_arguments() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    seen = set()
    for name, service in SERVICES.items():
        if "spikebench:" not in service["image"]:
            assert "command" not in service, name
            continue
        script, *arguments = service["command"]
        seen.add(script)
        assert all(isinstance(word, str) for word in service["command"]), name
        if script in ours:
            options(arguments)
        else:
            assert script in OTHERS_SCRIPTS
            assert entry_points(group="console_scripts", name=script)
    assert seen == {"spikebench", *OTHERS_SCRIPTS}


@pytest.mark.parametrize("script", sorted(OTHERS_SCRIPTS))
def test_commands_of_other_packages_take_their_arguments(script: str) -> None:
    code = f"""
import json, sys
from {OTHERS_SCRIPTS[script]} import cli
for words in json.loads(sys.argv[1]):
    cli.get_command(None, words[0]).make_context(words[0], words[1:], ignore_unknown_options=False)
"""
    lines = [service["command"][1:] for service in SERVICES.values() if service.get("command", [""])[0] == script]
    checks = [s["healthcheck"]["test"] for s in SERVICES.values() if "healthcheck" in s]
    lines += [test[2:] for test in checks if test[:2] == ["CMD", script]]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_python_in_health_checks_compiles() -> None:
    for service in SERVICES.values():
        test = service.get("healthcheck", {}).get("test", [])
        if test[1:3] == ["python", "-c"]:
            ast.parse(test[3])


def test_the_dockerfile_copies_what_exists_and_is_let_in() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {source for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for source in line.split()[:-1]}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_in
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = re.findall(r"^ARG EXTRAS=(.+)$", text, re.MULTILINE)
    assert set(named.split(",")) <= set(extras)
    assert FILE["x-spikebench"]["build"]["args"]["EXTRAS"] == named
    assert "USER spikebench" in text


def test_secrets_stay_out_of_images_and_of_git() -> None:
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_databases_are_those_the_addresses_name() -> None:
    script = (ROOT / "deploy" / "create_databases.sh").read_text(encoding="utf-8")
    made = dict(re.findall(r'^create (\w+) "\$(\w+)"$', script, re.MULTILINE))
    assert made == {"spikebench": "SPIKEBENCH_DB_PASSWORD", "mlflow": "MLFLOW_DB_PASSWORD"}
    addresses = re.findall(r"postgresql\+psycopg://(\w+):\$\{(\w+):[^}]*\}@(\w+):5432/(\w+)$", TEXT, re.MULTILINE)
    assert {(user, secret, database) for user, secret, _, database in addresses} == {
        (name, secret, name) for name, secret in made.items()
    }
    assert {host for *_, host, _ in addresses} == {"postgres"}
    assert set(made.values()) <= set(SERVICES["postgres"]["environment"])
    assert subprocess.run(["bash", "-n", ROOT / "deploy" / "create_databases.sh"], check=False).returncode == 0
