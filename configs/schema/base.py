"""What every section of a configuration has in common: strict keys and types, and the usual ranges."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from configs.annotations import plain_types

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: unknown keys and wrong types are refused and a resolved configuration never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_plain_data(cls, values: Any) -> Any:
        """Take 3.0 where an integer is meant and a list where a tuple is; everything else must have its own type."""
        if not isinstance(values, dict):
            return values
        return {key: _fitted(value, cls, key) for key, value in values.items()}


def _fitted(value: object, model: type[BaseModel], key: str) -> object:
    if not isinstance(value, float | list) or key not in model.model_fields:
        return value
    types = plain_types(model.model_fields[key].annotation)
    if isinstance(value, list):
        return tuple(value) if tuple in types else value
    return int(value) if int in types and float not in types and value.is_integer() else value
