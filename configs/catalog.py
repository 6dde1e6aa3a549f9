"""The configurations that come with the package, by name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from configs.problems import ConfigError, Problem, Where, suggested

ROOT = Path(__file__).parent
MOST_LISTED = 8  # names in a message
MOST_SUGGESTED = 3


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
    raise ConfigError([absent(text, beside, names, what, where)])


def absent(text: str, beside: Path, names: Sequence[str], what: str, where: Where | None = None) -> Problem:
    """Return what to say of a name that is neither a file nor a shipped one.

    Args:
        text: the name.
        beside: folder in which it was looked for.
        names: shipped names.
        what: what to call them in the message.
        where: the place that named it, or None for the command line.
    """
    where = where or Where(None)
    folder = beside / text
    if folder.is_dir():
        there = [str(path) for path in sorted(folder.glob("*.yaml"))]
        hint = f"name one of {_listed(there)}" if there else "there is no .yaml file in it"
        return Problem(where, f"'{text}' is a folder, expected a file or the name of a shipped {what}", hint)
    if inside := [name for name in names if name.startswith(f"{text.rstrip('/')}/")]:
        return Problem(where, f"'{text}' is a group of shipped names, expected one of them", _listed(inside))
    bare = text.removesuffix(".yaml").removesuffix(".yml")  # endings are alike whatever the names are
    own = [str(Path(text).with_name(path.stem)) for path in sorted(folder.parent.glob("*.yaml")) if path != where.file]
    near = [f"{name}.yaml" for name in get_close_matches(bare, own)] if bare != text else []
    near += get_close_matches(bare, names)
    hint = suggested(near[:MOST_SUGGESTED]) or _groups(names)
    return Problem(where, f"there is no file '{text}' and no shipped {what} of that name", hint)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_LISTED]) + (f" and {len(names) - MOST_LISTED} more" * (len(names) > MOST_LISTED))


def _groups(names: Sequence[str]) -> str:
    """Return the groups of shipped names, for a name that is near to none of them."""
    groups = dict.fromkeys(name.partition("/")[0] + "/*" if "/" in name else name for name in names)
    return f"shipped: {', '.join(groups)}"
