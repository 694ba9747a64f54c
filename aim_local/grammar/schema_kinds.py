"""Which keywords of a JSON schema speak of which types, and which values of an enum they leave."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from .schema_sense import BOUNDS, nothing, shown

Part = dict[str, Any]  # of a schema, with `type` and `enum` as lists (schema_merge.py)

OF_KIND = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "integer": BOUNDS,
    "number": BOUNDS,
    "boolean": (),
    "null": (),
}
_PYTHON: dict[str, Any] = {
    "boolean": bool, "number": (int, float), "string": str, "null": type(None), "array": list, "object": dict,
}  # fmt: skip


def kinds_of(part: Part) -> list[str]:
    """The types that are allowed: those that a schema without a type speaks of; none stands for all."""
    if "type" in part:
        return list(part["type"])
    if "properties" in part or part.get("additionalProperties", True) is not True or part.get("required"):
        return ["object"]
    for kind in ("array", "string"):
        if any(key in part for key in OF_KIND[kind]):
            return [kind]
    if any(key in part for key in BOUNDS):
        return ["number"]
    return []


def values_of(part: Part, path: str) -> list[Any]:
    """Those of an enum that the keywords beside it allow."""
    values = []
    for value in part["enum"]:
        kind = next(kind for kind, of_kind in _PYTHON.items() if isinstance(value, of_kind))
        others = [key for key in OF_KIND[kind] if key in part and key != "format"]
        if (others and kind not in ("string", "number")) or "pattern" in others:
            raise beside(others[0], "enum", path)
        if kind == "string" and not part.get("minLength", 0) <= len(value) <= part.get("maxLength", len(value)):
            continue
        if kind == "number" and not _is_within(value, part):
            continue
        values.append(value)
    if not values:
        raise nothing(path, "no value of its enum is within its bounds")
    return values


def _is_within(value: float, part: Part) -> bool:
    return (
        part.get("minimum", value) <= value <= part.get("maximum", value)
        and ("exclusiveMinimum" not in part or part["exclusiveMinimum"] < value)
        and ("exclusiveMaximum" not in part or value < part["exclusiveMaximum"])
    )


def beside(key: str, other: str, path: str) -> UsageError:
    """The error for two keywords that look at the same text."""
    return UsageError(
        f"the JSON schema has {key!r} beside {other!r} at {shown(path)}, and a grammar holds one of them; leave one out"
    )
