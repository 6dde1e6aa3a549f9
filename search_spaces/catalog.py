"""The search spaces that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from configs.catalog import find_shipped

ROOT = Path(__file__).parent


def shipped_spaces() -> list[Path]:
    """Return the YAML files of the shipped search spaces, sorted."""
    return sorted(ROOT.glob("*.yaml"))


def find_space(name: str | Path) -> Path:
    """Return the file of a search space.

    Args:
        name: a path, or the name of a shipped space with or without `.yaml` (`stal_loss`).

    Raises:
        ConfigError: there is no such file and no such shipped space; with the nearest names.
    """
    return find_shipped(name, shipped_spaces(), ROOT, "search space", None)
