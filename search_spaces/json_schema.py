"""JSON Schema of the search space files, with every key of the configuration as a parameter to choose from."""

from __future__ import annotations

from configs.aliases import ALIASES, ALIASES_BY_KIND
from configs.json_schema import Json, file_schema
from configs.keys import known_keys
from configs.metrics import METRICS
from search_spaces.space import Space


def space_schema() -> Json:
    """Return the JSON Schema of a search space file."""
    schema = file_schema(Space, "spikebench search space")
    schema["required"] = [key for key in schema["required"] if key != "name"]  # the file's name by default
    descriptions = {key: info.description for key, info in known_keys().items()}
    descriptions |= {alias: f"same as {target}" for alias, target in ALIASES.items()}
    descriptions |= {alias: f"same as {' or '.join(targets.values())}" for alias, targets in ALIASES_BY_KIND.items()}
    parameters = schema["properties"]["parameters"]
    schema["$defs"]["Parameter"] = parameters.pop("additionalProperties")
    one = {"$ref": "#/$defs/Parameter"}
    parameters["properties"] = {key: {**one, "description": text} for key, text in descriptions.items()}
    parameters["additionalProperties"] = False
    keys = {key: {"description": text} for key, text in descriptions.items()}
    schema["properties"]["overrides"]["properties"] = keys
    for kind in ("FloatParameter", "IntParameter", "CategoricalParameter"):
        schema["$defs"][kind]["properties"]["when"]["propertyNames"] = {"enum": sorted(descriptions)}
    for item in ("Objective", "Constraint"):
        known = {"enum": sorted(METRICS)}
        schema["$defs"][item]["properties"]["metric"]["anyOf"] = [known, {"type": "string"}]
    return schema
