"""The JSON Schema of a topology file, for editors."""

from __future__ import annotations

from typing import Any

from broker.topology.model import Topology


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `load` accepts."""
    schema = Topology.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    queue = schema["$defs"]["Queue"]
    # `type` comes from the virtual host where a queue does not say it.
    queue["required"] = [key for key in queue.get("required", []) if key != "type"]
    if not queue["required"]:
        del queue["required"]
    properties = schema["properties"]
    # Files are put together before the model sees them: see `broker.topology.files`.
    name = {"type": "string", "minLength": 1}
    properties["include"] = {
        "description": "Further files, relative to this one, whose names are added to it.",
        "anyOf": [name, {"type": "array", "items": name}, {"type": "null"}],
    }
    properties["queues"]["additionalProperties"] = {
        "anyOf": [properties["queues"]["additionalProperties"], {"type": "null"}]
    }
    for name, section in properties.items():
        # An empty section is a section without content.
        if section.get("type") == "object" and name not in schema.get("required", []):
            section["type"] = ["object", "null"]
    return schema
