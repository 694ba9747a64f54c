"""Whether a JSON schema allows anything, and whether no two ways of a `oneOf` allow the same answer.

Looks at types, enums, bounds and required properties, a few levels deep; where it cannot tell, something is possible.
"""

from __future__ import annotations

from itertools import combinations

from ..errors import UsageError
from .schema_kinds import OF_KIND, Part, kinds_of, values_of
from .schema_merge import merged
from .schema_refs import Document, Schema
from .schema_sense import NothingError, check_sense, shown

MAX_APART = 64


def check_apart(document: Document, ways: list[Schema], path: str) -> None:
    """Raises UsageError for a oneOf where an answer that one way allows could be allowed by another one, too."""
    parts = []
    for way in ways[: MAX_APART + 1]:
        try:
            parts.append(merged(document, way, path))
        except NothingError:
            continue
    for part in parts:
        part.pop("apart", None)
    for one, other in combinations(parts, 2):
        if any(is_possible(document, {"allOf": pair}, path) for pair in ([_closed(one), other], [one, _closed(other)])):
            raise UsageError(
                f"the JSON schema has 'oneOf' at {shown(path)}, of which an answer may be more than one, and a "
                "grammar cannot hold that; write anyOf"
            )
    if len(ways) > MAX_APART:
        raise UsageError(f"the JSON schema has a 'oneOf' of more than {MAX_APART} at {shown(path)}; write anyOf")


def is_possible(document: Document, schema: Schema, path: str, depth: int = 3) -> bool:
    """Whether something is allowed, as far as types, enums, bounds and required properties say."""
    try:
        part = merged(document, schema, path)
        _check_possible(part, path)
    except NothingError:
        return False
    except UsageError:  # whoever writes the answer tells it
        return True
    if depth == 0:
        return True
    if "anyOf" in part:
        rest = {key: value for key, value in part.items() if key not in ("anyOf", "apart")}
        return any(is_possible(document, {"allOf": [way, rest]}, path, depth - 1) for way in part["anyOf"])
    if kinds_of(part) != ["object"]:
        return True
    known, other = part.get("properties", {}), part.get("additionalProperties", True)
    return all(is_possible(document, known.get(name, other), path, depth - 1) for name in part.get("required", ()))


def _check_possible(part: Part, path: str) -> None:
    if "enum" in part:
        values_of(part, path)
    elif len(part.get("type", ())) == 1:
        check_sense({key: part[key] for key in ("type", *OF_KIND[part["type"][0]]) if key in part}, path)


def _closed(part: Part) -> Part:
    """As its answers are written: without properties of which it does not speak."""
    if "properties" not in part:
        return part
    known = {name: part.get("additionalProperties", True) for name in part.get("required", ())} | part["properties"]
    return {"additionalProperties": False, **part, "properties": known}
