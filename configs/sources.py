"""Read a YAML file so that every value knows its line.

The text is read by the core schema of YAML 1.2, not by PyYAML's 1.1: `1e-6` and `5e-4` are numbers, `off` and `no` are
texts, `010` is ten.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from configs.environment import expand, keeps_references
from configs.problems import ConfigError, Problem, Where, did_you_mean

_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NOTHING = object()


@dataclass(frozen=True)
class Source:
    """What one YAML file says, with the place of every key.

    Args:
        path: the file, or None for the command line.
        data: plain dictionaries, lists and scalars, keys as they are written.
        places: dotted path of a key or list item -> where it stands.
        problems: mistakes that do not keep the rest of the file from being read (a key given twice, an unset variable).
    """

    path: Path | None
    data: dict[str, object]
    places: dict[str, Where] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, key: str | Sequence[str | int]) -> Where:
        """Return the place of a key, or of the nearest section around it that the file has.

        Args:
            key: dotted (`training.epochs`) or as a path (`("objectives", 0, "metric")`).
        """
        dotted = key if isinstance(key, str) else ".".join(str(part) for part in key)
        while dotted:
            if dotted in self.places:
                return self.places[dotted]
            dotted = dotted.rpartition(".")[0]
        return Where(self.path)

    def section(self, key: str) -> Source:
        """Return one section as a source of its own; empty where the file has no such section."""
        data = self.data.get(key)
        inner = {
            place.removeprefix(f"{key}."): where for place, where in self.places.items() if place.startswith(f"{key}.")
        }
        return Source(self.path, data if isinstance(data, dict) else {}, inner)


def type_scalar(text: str) -> object:
    """Return the value of an unquoted YAML scalar by the core schema of YAML 1.2 (section 10.3.2)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse_value(text: str, where: Where, problems: list[Problem], key: str = "") -> object:
    """Return the value of a YAML text such as a command line holds: `3`, `1e-4`, `[0.9, 0.99]`, `null`, `lamb`.

    Text that is no YAML (`@home`, `[1,`) is kept as it is; the schema then says what it expected.

    Args:
        text: the text.
        where: its place, for a problem.
        problems: one is added for each mistake in it.
        key: whose value it is.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return text
    value = _Reader(where.file, problems, fixed=where).value(node, (key,)) if node is not None else None
    return None if value is _NOTHING else value


def load_yaml(path: str | Path) -> Source:
    """Read a YAML file whose top level is a section.

    Args:
        path: the file; UTF-8.

    Raises:
        ConfigError: the file cannot be read, is not YAML (with the line), or its top level is not a section.
    """
    path = Path(path)
    problems: list[Problem] = []
    reader = _Reader(path, problems)
    try:
        node = yaml.compose(_text_of(path), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(path, error)]) from None
    if node is None:
        return Source(path, {})
    data = reader.value(node, ())
    if not isinstance(data, dict):
        raise ConfigError([Problem(Where(path, 1), "expected `key: value` lines at the top level")])
    return Source(path, data, reader.places, problems)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without its YAML 1.1 guesses: every plain scalar stays text until `type_scalar` reads it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute


class _Reader:
    """Turn YAML nodes into plain data, noting the line of each key."""

    def __init__(self, file: Path | None, problems: list[Problem], fixed: Where | None = None) -> None:
        self.file = file
        self.problems = problems
        self.places: dict[str, Where] = {}
        self.fixed = fixed
        self.open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> object:
        where = self._where(node)
        self.places.setdefault(".".join(path), where)
        if any(node is outer for outer in self.open):
            self.problems.append(Problem(where, "an anchor refers to the section it stands in"))
            return _NOTHING
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._section(node, path)
            if isinstance(node, yaml.SequenceNode):
                items = [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
                return [item for item in items if item is not _NOTHING]
            assert isinstance(node, yaml.ScalarNode)  # the third and last kind of node
            return self._scalar(node, where, path[-1] if path else "")
        finally:
            self.open.pop()

    def _section(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, object]:
        section: dict[str, object] = {}
        for key_node, value_node in node.value:
            where = self._where(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(where, "expected a plain key, got a list or a section as key"))
                continue
            inner = (*path, key_node.value)
            if key_node.value in section:
                first = self.places[".".join(inner)]
                self.problems.append(Problem(where, f"'{'.'.join(inner)}' is given twice", f"first at {first}"))
                continue
            self.places[".".join(inner)] = where
            value = self.value(value_node, inner)
            if value is not _NOTHING:
                section[key_node.value] = value
        return section

    def _scalar(self, node: yaml.ScalarNode, where: Where, key: str) -> object:
        if node.tag not in ("tag:yaml.org,2002:str", "!"):
            self.problems.append(Problem(where, f"YAML tags such as '{node.tag}' are not supported", "remove the tag"))
            return _NOTHING
        text = expand(node.value, where, self.problems)
        if text is None:
            return _NOTHING
        if "${" in node.value and keeps_references(key):
            return node.value
        return type_scalar(text) if node.style is None else text

    def _where(self, node: yaml.Node) -> Where:
        return self.fixed or Where(self.file, node.start_mark.line + 1)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = [str(other) for other in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        raise ConfigError([Problem(Where(path), "there is no such file", did_you_mean(str(path), known))]) from None
    except IsADirectoryError:
        raise ConfigError([Problem(Where(path), "expected a YAML file, got a folder")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(Where(path), f"expected UTF-8 text: {error}")]) from None
    except OSError as error:
        raise ConfigError([Problem(Where(path), f"cannot be read: {error.strerror}")]) from None


def _syntax_problem(path: Path, error: yaml.YAMLError) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(Where(path), f"not YAML: {error}")
    mark = error.problem_mark or error.context_mark
    what = error.problem or error.context or "cannot be parsed"
    hint = "indent with spaces, not tabs" if "\\t" in what else error.context or ""
    return Problem(Where(path, mark.line + 1 if mark else None), f"not YAML: {what}", hint)
