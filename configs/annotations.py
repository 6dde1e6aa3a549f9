"""Read the types of a pydantic schema: the models a field can hold and the plain types it takes."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union without their `Annotated` wrappers; a plain type is its own only member."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return tuple(inner for member in get_args(annotation) for inner in members(member))
    return (annotation,)


def models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the models that an annotation can hold."""
    return tuple(member for member in members(annotation) if isinstance(member, type) and issubclass(member, BaseModel))


def kinds(model: type[BaseModel], discriminator: str = "name") -> tuple[str, ...]:
    """Return the values of a model's discriminator: the names by which a file chooses this model."""
    field = model.model_fields.get(discriminator)
    return tuple(str(value) for value in literals(field.annotation)) if field else ()


def literals(annotation: Any) -> tuple[Any, ...]:
    """Return the values that the `Literal` members of an annotation allow."""
    return tuple(value for member in members(annotation) if get_origin(member) is Literal for value in get_args(member))


def plain_types(annotation: Any) -> frozenset[type]:
    """Return the plain Python types (`int`, `float`, `bool`, `str`, `tuple`, `NoneType`) that an annotation takes."""
    found: set[type] = {type(value) for value in literals(annotation)}
    for member in members(annotation):
        if member is None:
            found.add(NoneType)
        elif get_origin(member) is tuple:
            found.add(tuple)
        elif member in (int, float, bool, str, NoneType):
            found.add(member)
    return frozenset(found)
