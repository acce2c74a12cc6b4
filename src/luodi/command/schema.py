"""The JSON Schema of recipes, made from the catalog: editors complete names and fields from it."""

from __future__ import annotations

from typing import Any

from luodi.core import catalog
from luodi.core.recipe import Recipe


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe: every name of every slot, with all its fields."""
    definitions: dict[str, Any] = {}
    for slot in catalog.SLOTS:
        if slot == "panels":
            continue
        entries = catalog.entries(slot)
        names = [*entries, *catalog.MOVED.get(slot, {})]
        choices: list[Any] = [{"enum": names}, {"type": "string", "pattern": ":"}]
        for name in names:
            key = f"{slot}.{name}"
            kind = catalog.load(slot, name)
            own = kind.model_json_schema(ref_template="#/$defs/{model}", mode="validation")
            definitions |= own.pop("$defs", {})
            own["title"], own["description"] = name, (kind.__doc__ or "").strip()
            definitions[key] = {"anyOf": [own, {"type": "null"}]}
            wrapped = {"type": "object", "properties": {name: {"$ref": f"#/$defs/{key}"}}, "required": [name]}
            choices.append({**wrapped, "additionalProperties": False})
        own_thing = {"type": "object", "patternProperties": {":": {}}, "additionalProperties": False}
        definitions[f"slot.{slot}"] = {"anyOf": [*choices, {**own_thing, "minProperties": 1, "maxProperties": 1}]}
    whole = Recipe.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= whole.pop("$defs", {})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_linked({**whole, "$defs": definitions})}


def _linked(value: Any) -> Any:
    """The schema with every mark of a slot made a reference to it."""
    if isinstance(value, list):
        return [_linked(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _linked(item) for key, item in value.items() if key != "x-slot"}
    return found | ({"$ref": f"#/$defs/slot.{value['x-slot']}"} if "x-slot" in value else {})
