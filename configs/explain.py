"""Turn what pydantic says about a file into problems with dotted keys and lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from configs.annotations import kinds, literals, members, models
from configs.problems import Problem, Where, did_you_mean, shown

Find = Callable[[str], Where]
Hint = Callable[[str, Sequence[str]], str]
Path = tuple[str | int, ...]

MOST_LISTED = 8  # kinds that a message lists although it knows a near one
_EXPECTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "none_required": "null",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number >= {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number <= {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "model_attributes_type": "a section of keys and values",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


def nearest_sibling(key: str, siblings: Sequence[str]) -> str:
    """Return a hint naming the keys of the same section that are nearest to an unknown one."""
    return did_you_mean(key.rpartition(".")[2], siblings)


def problems_of(
    error: ValidationError, model: type[BaseModel], find: Find, hint: Hint = nearest_sibling
) -> list[Problem]:
    """Return one problem for each key that pydantic refused.

    Args:
        error: raised by `model.model_validate`.
        model: the schema that was applied.
        find: dotted key -> its place.
        hint: unknown dotted key, names of the keys its section has -> what to do instead.
    """
    return [problem for refusals in _by_key(error, model, find, hint).values() for problem in _told(refusals)]


@dataclass(frozen=True)
class _Refusal:
    """One of pydantic's errors, with its key, the model that the key stands in and the type the key has there."""

    detail: ErrorDetails
    key: str
    owner: type[BaseModel]
    annotation: Any
    find: Find
    hint: Hint

    def problem(self, message: str, hint: str = "", key: str | None = None) -> Problem:
        key = self.key if key is None else key
        return Problem(self.find(key), message, hint, key)

    @property
    def expected(self) -> str | None:
        if self.detail["type"] == "literal_error":
            return str(self.detail["ctx"]["expected"])
        template = _EXPECTED.get(self.detail["type"])
        return template.format(**self.detail.get("ctx", {})) if template else None


def _by_key(
    error: ValidationError, model: type[BaseModel], find: Find, hint: Hint, section: str = ""
) -> dict[str, list[_Refusal]]:
    """Return {dotted key: what was refused of it}; the keys begin with the section that the model is of."""
    by_key: dict[str, list[_Refusal]] = {}
    for detail in error.errors(include_url=False):
        path, owner, annotation = _locate(model, detail["loc"])
        key = ".".join(str(part) for part in ((section, *path) if section else path))
        by_key.setdefault(key, []).append(_Refusal(detail, key, owner, annotation, find, hint))
    return by_key


def _told(refusals: Sequence[_Refusal]) -> list[Problem]:
    first = refusals[0]
    special = _SPECIAL.get(first.detail["type"])
    if special is not None:
        return special(first)
    wanted = [refusal.expected for refusal in refusals]
    if None in wanted:
        message = first.detail["msg"].removeprefix("Value error, ")
        return [first.problem(f"{first.key}: {message}" if first.key else message)]
    given = first.detail["input"]
    expected = " or ".join(dict.fromkeys(text for text in wanted if text))
    words = re.findall(r"'([^']*)'", expected)
    hint = did_you_mean(given, words) if isinstance(given, str) else ""
    return [first.problem(f"{first.key}: expected {expected}, got {shown(given)}", _near_only(hint))]


def _near_only(hint: str) -> str:
    return hint if hint.startswith("did you mean") else ""  # the message lists the values already


def _extra(refusal: _Refusal) -> list[Problem]:
    section, _, last = refusal.key.rpartition(".")
    where = f" in '{section}'" if section else ""
    return [
        refusal.problem(f"unknown key '{last}'{where}", refusal.hint(refusal.key, sorted(refusal.owner.model_fields)))
    ]


def _missing(refusal: _Refusal) -> list[Problem]:
    last = refusal.detail["loc"][-1]
    if isinstance(last, int):  # an item of a list of fixed length
        key = refusal.key.rpartition(".")[0]
        given = shown(list(refusal.detail["input"]))
        return [refusal.problem(f"{key}: expected a longer list, got {given}", key=key)]
    field = refusal.owner.model_fields[last]
    held = models(field.annotation)
    names = [name for model in held for name in kinds(model)] or [str(value) for value in literals(field.annotation)]
    key = f"{refusal.key}.name" if held and names else refusal.key
    return [refusal.problem(f"missing key '{key}'", f"one of {_quoted(names)}" if names else field.description or "")]


def _no_kind(refusal: _Refusal) -> list[Problem]:
    discriminator, names = _kinds_at(refusal)
    return [refusal.problem(f"missing key '{refusal.key}.{discriminator}'", f"one of {_quoted(names)}")]


def _wrong_kind(refusal: _Refusal) -> list[Problem]:
    discriminator, names = _kinds_at(refusal)
    given = refusal.detail["input"][discriminator]
    key = f"{refusal.key}.{discriminator}"
    hint = did_you_mean(given, names) if isinstance(given, str) else ""
    near = _near_only(hint)
    if near and len(names) > MOST_LISTED:
        wrong = refusal.problem(f"{key}: unknown kind {shown(given)}", near, key)
    else:
        wrong = refusal.problem(f"{key}: expected one of {_quoted(names)}, got {shown(given)}", near, key)
    return [wrong, *_wrong_in_any_kind(refusal, discriminator)]


def _wrong_in_any_kind(refusal: _Refusal, discriminator: str) -> Iterator[Problem]:
    """Yield what is wrong with a section whatever its kind shall be: keys no kind knows, values none takes."""
    given = refusal.detail["input"]
    candidates = models(refusal.annotation)
    known = sorted({name for model in candidates for name in model.model_fields})
    for name in given:
        if name not in known:
            key = f"{refusal.key}.{name}"
            yield refusal.problem(f"unknown key '{name}' in '{refusal.key}'", refusal.hint(key, known), key)

    def takes(model: type[BaseModel], key: str) -> bool:
        name = key.removeprefix(f"{refusal.key}.").partition(".")[0]
        return name in given and name in model.model_fields

    refused: dict[str, list[list[_Refusal]]] = {}
    for model in candidates:
        try:
            model.model_validate({**given, discriminator: kinds(model, discriminator)[0]})
        except ValidationError as error:
            for key, refusals in _by_key(error, model, refusal.find, refusal.hint, refusal.key).items():
                if takes(model, key):
                    refused.setdefault(key, []).append(refusals)
    for key, by_kind in refused.items():
        if len(by_kind) == sum(takes(model, key) for model in candidates):
            yield from _told(by_kind[0])


def _kinds_at(refusal: _Refusal) -> tuple[str, list[str]]:
    discriminator = str(refusal.detail["ctx"]["discriminator"]).strip("'")
    return discriminator, [name for model in models(refusal.annotation) for name in kinds(model, discriminator)]


def _misfit(refusal: _Refusal) -> list[Problem]:
    found = refusal.detail["ctx"]["misfits"]
    section = f"{refusal.key}." if refusal.key else ""
    return [
        refusal.problem(f"{section}{misfit.key}: {misfit.message}", key=f"{section}{misfit.key}") for misfit in found
    ]


_SPECIAL: dict[str, Callable[[_Refusal], list[Problem]]] = {
    "extra_forbidden": _extra,
    "missing": _missing,
    "union_tag_not_found": _no_kind,
    "union_tag_invalid": _wrong_kind,
    "misfit": _misfit,
}


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _locate(model: type[BaseModel], loc: Path) -> tuple[Path, type[BaseModel], Any]:
    """Return a location without pydantic's union tags, the model its last part stands in and the type it has there."""
    path: list[str | int] = []
    annotation: Any = model
    owner = model
    for part in loc:
        held = models(annotation)
        if len(held) > 1:
            annotation = next(member for member in held if _has_tag(member, part))
            owner = annotation
            continue
        if held:
            owner = held[0]
            path.append(part)
            field = owner.model_fields.get(str(part))
            annotation = field.annotation if field else None
            continue
        inner = next((member for member in members(annotation) if get_origin(member) in (dict, tuple, list)), None)
        if inner is None:
            continue  # the name of a plain type inside a union
        path.append(part)
        annotation = _item(inner, part)
    return tuple(path), owner, annotation


def _item(container: Any, part: str | int) -> Any:
    arguments = [argument for argument in get_args(container) if argument is not Ellipsis]
    if get_origin(container) is dict or not isinstance(part, int):
        return arguments[-1]
    return arguments[min(part, len(arguments) - 1)]


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return tag in kinds(model, "name") or tag in kinds(model, "type")
