"""One JSON schema instead of several that hold at once: `$ref` and `allOf` with what stands beside them, put together.

The keywords of the result: `type` and `enum` as lists, `anyOf`, those of single types, and `apart`: lists of schemas
(of each `oneOf`) of which an answer may be of one only. An answer is written by one
schema; what would need two of them to look at the same text is refused.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import UsageError
from .schema_kinds import Part
from .schema_refs import MAX_DEPTH, Document, Schema
from .schema_sense import brief, nothing, said, shown, suits

MAX_WAYS = 256
_LARGER, _SMALLER = (
    ("minimum", "exclusiveMinimum", "minItems", "minLength"),
    ("maximum", "exclusiveMaximum", "maxItems"),
)


def merged(document: Document, schema: Schema, path: str, way: tuple[str, ...] = ()) -> Part:
    """What a schema says, in one. Raises NothingError where it allows nothing.

    way: the references and allOf that led here.
    """
    if isinstance(schema, bool):
        if not schema:
            raise nothing(path, "it is false")
        return {}
    document.count(path)
    if len(way) > MAX_DEPTH:
        raise UsageError(f"the JSON schema has more than {MAX_DEPTH} $ref and allOf in each other at {shown(path)}")
    own, others = said(schema, path), []
    if "$ref" in own:
        ref = own.pop("$ref")
        if ref in way:
            raise UsageError(
                f"the JSON schema has the $ref {brief(ref)} at {shown(path)}, which means itself; change it"
            )
        others.append(merged(document, *document.target(ref, path), (*way, ref)))
    for i, inner in enumerate(own.pop("allOf", [])):
        others.append(merged(document, inner, f"{path}.allOf[{i}]", (*way, "")))
    result: Part = {}
    for part in [*others, _plain(own, path)]:
        result = _both(result, part, path)
    if "enum" in result and "type" in result:
        result["enum"] = [value for value in result["enum"] if suits(value, result["type"])]
        if not result["enum"]:
            raise nothing(path, "no value of its enum is of its type")
    return result


def _plain(own: Part, path: str) -> Part:
    """With one keyword where JSON schema has two for the same."""
    part = dict(own)
    if "type" in part:
        kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
        part["type"] = list(dict.fromkeys([*kinds, *(["null"] if part.get("nullable") else [])]))
    part.pop("nullable", None)
    if "const" in part:
        part = _both({"enum": [part.pop("const")]}, part, path)
    if "oneOf" in part:
        ways = part.pop("oneOf")
        part = _both(part, {"anyOf": ways, "apart": [ways]}, path)
    if isinstance(part.get("items"), list):
        part["prefixItems"] = part.pop("items")
        if "additionalItems" in part:
            part["items"] = part.pop("additionalItems")
    return part


def _both(one: Part, other: Part, path: str) -> Part:
    """What both allow."""
    result: Part = {**one, **other}
    for key in one.keys() & other.keys():
        result[key] = _either(key, one[key], other[key], path)
    for key in ("prefixItems", "items"):
        if key in one and key in other and one[key] != other[key] and ("prefixItems" in one or "prefixItems" in other):
            raise _twice("prefixItems", path)
    if ("prefixItems" in one) != ("prefixItems" in other) and "items" in (other if "prefixItems" in one else one):
        raise _twice("prefixItems", path)
    if "properties" in one or "properties" in other:
        names = {**one.get("properties", {}), **other.get("properties", {})}
        result["properties"] = {name: _all([_property(part, name) for part in (one, other)]) for name in names}
    return result


def _either(key: str, one: Any, other: Any, path: str) -> Any:
    if one == other and key not in ("enum", "apart"):
        return one
    if key == "type":
        kinds = [kind for kind in one if kind in other or (kind == "integer" and "number" in other)]
        kinds += [kind for kind in other if kind == "integer" and "number" in one and kind not in kinds]
        if not kinds:
            raise nothing(path, f"the types {brief(one)} and {brief(other)} have nothing in common")
        return kinds
    if key == "enum":
        values = [value for value in one if any(is_same(value, v) for v in other)]
        if not values:
            raise nothing(path, "its enums have no value in common")
        return values
    if key == "apart":
        return [*one, *other]
    if key == "required":
        return list(dict.fromkeys([*one, *other]))
    if key == "anyOf":
        if len(one) * len(other) > MAX_WAYS:
            raise UsageError(
                f"the JSON schema has more than {MAX_WAYS} ways of several anyOf at {shown(path)}; have less"
            )
        return [{"allOf": [a, b]} for a in one for b in other]
    if key in _LARGER:
        return max(one, other)
    if key in (*_SMALLER, "maxLength"):
        return min(one, other)
    if key in ("items", "additionalProperties"):
        return _all([one, other])
    if key in ("properties", "prefixItems"):
        return other  # looked at as a whole
    raise _twice(key, path)


def _twice(key: str, path: str) -> UsageError:
    return UsageError(
        f"the JSON schema has {key!r} twice at {shown(path)}, and a grammar holds one of them; put both into one"
    )


def _property(part: Part, name: str) -> Schema:
    """What a schema says of a property's value."""
    own: Schema = part.get("properties", {}).get(name, part.get("additionalProperties", True))
    return own


def _all(schemas: list[Schema]) -> Schema:
    if any(schema is False for schema in schemas):
        return False
    known: dict[str, Schema] = {}  # each of them once, or parts that lead back to themselves would grow for ever
    for schema in schemas:
        inner = schema["allOf"] if isinstance(schema, dict) and schema.keys() == {"allOf"} else [schema]
        known |= {json.dumps(one): one for one in inner if one is not True}
    some = list(known.values())
    return {"allOf": some} if len(some) > 1 else some[0] if some else True


def is_same(one: object, other: object) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    return one == other
