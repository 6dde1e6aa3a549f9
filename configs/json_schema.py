"""JSON Schema of the YAML files, so that an editor completes keys and marks mistakes while they are typed.

It describes the files, not the resolved configuration: a file may leave out what it inherits, refer to environment
variables and use aliases.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from configs.aliases import ALIASES, ALIASES_BY_KIND
from configs.annotations import kinds, models
from configs.schema import RunConfig

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE: Json = {"type": "string", "pattern": r"\$\{", "description": "${VARIABLE} or ${VARIABLE:-default}"}


def config_schema() -> Json:
    """Return the JSON Schema of a configuration file."""
    schema = file_schema(RunConfig, "spikebench configuration")
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)  # a file may inherit any key
    schema["properties"] = {
        "extends": {"type": "string", "description": "configuration that this file changes: a path or a shipped name"},
        **schema["properties"],
    }
    schema["patternProperties"] = {rf"^({'|'.join(RunConfig.model_fields)})\.": {"description": "a dotted key"}}
    _add_aliases(schema)
    return schema


def file_schema(model: type[BaseModel], title: str) -> Json:
    """Return a model's JSON Schema as a file may fill it: any value may be a reference to the environment.

    Args:
        model: the schema of a whole file.
        title: what editors call the file.
    """
    schema = model.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        for name, value in part["properties"].items():
            part["properties"][name] = _property(value)
    return {"$schema": DIALECT, **schema, "title": title}


def _property(value: Json) -> Json:
    """Return a property without pydantic's titles, with unions that several kinds may match and with references."""
    value = {key: inner for key, inner in value.items() if key not in ("title", "discriminator")}
    if "oneOf" in value:  # a section that leaves out its name fits several kinds
        value["anyOf"] = value.pop("oneOf")
    kept: Json = {key: value[key] for key in ("description", "default") if key in value}
    rest = {key: inner for key, inner in value.items() if key not in kept}
    if not _is_plain(rest):
        return value
    return {**kept, "anyOf": [*rest.get("anyOf", [rest]), REFERENCE]}


def _is_plain(schema: Json) -> bool:
    """Return whether a property is a number, a truth value or a choice, which a reference would not match as it is."""
    types = {"integer", "number", "boolean"}
    options = schema.get("anyOf", [schema])
    return any(option.get("type") in types or {"enum", "const"} & option.keys() for option in options)


def _add_aliases(schema: Json) -> None:
    """Let the sections have the other names of keys too, marked as deprecated."""
    for alias, target in ALIASES.items():
        section, _, name = alias.partition(".")
        for model in models(RunConfig.model_fields[section].annotation):
            _add_alias(schema, model, name, target)
    for alias, targets in ALIASES_BY_KIND.items():
        section, _, name = alias.partition(".")
        for model in models(RunConfig.model_fields[section].annotation):
            for kind in set(kinds(model)) & targets.keys():
                _add_alias(schema, model, name, targets[kind])


def _add_alias(schema: Json, model: type[BaseModel], name: str, target: str) -> None:
    properties = schema["$defs"][model.__name__]["properties"]
    properties[name] = {"deprecated": True, "description": f"same as {target}"}
