"""The configurations that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from configs.problems import ConfigError, Problem, Where, did_you_mean

ROOT = Path(__file__).parent


def shipped_configs() -> list[Path]:
    """Return the YAML files of the shipped configurations, sorted."""
    return sorted(ROOT.rglob("*.yaml"))


def find_config(name: str | Path, where: Where | None = None) -> Path:
    """Return the file of a configuration.

    Args:
        name: a path, or the name of a shipped configuration with or without `.yaml` (`stal/srnn_digits`).
        where: the place that named it; a path in a file is looked up beside that file first.

    Raises:
        ConfigError: there is no such file and no such shipped configuration; with the nearest names.
    """
    return find_shipped(name, shipped_configs(), ROOT, "configuration", where)


def find_shipped(name: str | Path, shipped: list[Path], root: Path, what: str, where: Where | None) -> Path:
    """Return the path called `name`, else the shipped file of that name, else raise with the nearest names.

    Args:
        name: path or shipped name.
        shipped: the files that come with the package.
        root: their folder.
        what: what to call them in the message.
        where: the place that named it, or None for the command line.

    Raises:
        ConfigError: neither exists.
    """
    text = str(name)
    beside = where.file.parent if where is not None and where.file is not None else Path()
    for candidate in (beside / text, beside / f"{text}.yaml", root / text, root / f"{text}.yaml"):
        if candidate.is_file():
            return candidate
    names = [path.relative_to(root).with_suffix("").as_posix() for path in shipped]
    folder = (beside / text).parent
    there = [path for path in sorted(folder.glob("*.yaml")) if where is None or path != where.file]
    files = [str(Path(text).with_name(path.name)) for path in there]
    hint = did_you_mean(text, files) if text.endswith((".yaml", ".yml")) else ""
    hint = hint if hint.startswith("did") else did_you_mean(text.removesuffix(".yaml"), names)
    message = f"there is no file '{text}' and no shipped {what} of that name"
    raise ConfigError([Problem(where or Where(None), message, hint)])
