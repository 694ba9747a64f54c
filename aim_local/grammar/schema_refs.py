"""The parts of a JSON schema, and what its references mean: `#`, `#/$defs/name` (RFC 6901) and `#anchor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from ..errors import UsageError
from .schema_sense import brief, shown

MAX_DEPTH, MAX_MERGED = 32, 50_000
_BY_NAME, _LISTS = ("properties", "$defs", "definitions"), ("oneOf", "anyOf", "allOf", "prefixItems")
_INNER = ("items", "additionalProperties", "additionalItems")
Schema = dict[str, Any] | bool


class Document:
    """A whole schema. Raises UsageError where a part of it is no schema, or it is too deep."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._n_merged = 0
        self._anchors: dict[str, tuple[Schema, str]] = {}
        self._read: dict[str, tuple[Schema, str]] = {"#": (root, "$")}
        for path, part in _parts(root, "$", 0):
            if isinstance(part.get("$anchor"), str):
                self._anchors[part["$anchor"]] = part, path

    def target(self, ref: str, path: str) -> tuple[Schema, str]:
        """The schema that a reference means, and where it stands. path: where the reference stands."""
        if ref not in self._read:
            self._read[ref] = self._found(ref, path)
        return self._read[ref]

    def count(self, path: str) -> None:
        """Schemas that are put together can be as many as ways through the references: twice as many with each."""
        self._n_merged += 1
        if self._n_merged > MAX_MERGED:
            raise UsageError(
                f"the JSON schema has too many parts that hold at once, at {shown(path)}; put them into fewer schemas"
            )

    def _found(self, ref: str, path: str) -> tuple[Schema, str]:
        if not ref.startswith("#"):
            raise UsageError(
                f"the JSON schema has the unsupported $ref {brief(ref)} at {shown(path)}, and only references into the "
                "same document are supported; put what it means into $defs"
            )
        way = unquote(ref[1:])
        if not way:
            return self._root, "$"
        if not way.startswith("/"):
            if way not in self._anchors:
                raise _lost(ref, path, f"no schema has the $anchor {brief(way)}")
            return self._anchors[way]
        found: Any = self._root
        steps = [step.replace("~1", "/").replace("~0", "~") for step in way[1:].split("/")]
        for step in steps:
            if isinstance(found, list) and step.isdecimal() and step.isascii() and int(step[:9]) < len(found):
                found = found[int(step[:9])]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                raise _lost(ref, path, f"{brief(step)} is not there")
        where = ".".join(["$", *steps])
        for _ in _parts(found, where, 0):
            pass
        return found, where


def _lost(ref: str, path: str, why: str) -> UsageError:
    return UsageError(f"the JSON schema has the $ref {brief(ref)} at {shown(path)}, and {why}; change it")


def _parts(schema: object, path: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all schemas in it, with where they stand."""
    if depth > MAX_DEPTH:
        raise UsageError(f"the JSON schema is more than {MAX_DEPTH} levels deep; give a flatter one")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise UsageError(f"the JSON schema has {brief(schema)} at {shown(path)}; a schema is an object")
    yield path, schema
    for name in _BY_NAME:
        inner = schema.get(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"the JSON schema has {brief(inner)} at {shown(path)}.{name}; give an object of schemas")
        for key, value in inner.items():
            yield from _parts(value, f"{path}.{name}.{key}", depth + 1)
    for name in _LISTS:
        several = schema.get(name, [])
        if not isinstance(several, list):
            raise UsageError(f"the JSON schema has {brief(several)} at {shown(path)}.{name}; give a list of schemas")
        for i, value in enumerate(several):
            yield from _parts(value, f"{path}.{name}[{i}]", depth + 1)
    for name in _INNER:
        if isinstance(schema.get(name), list) and name == "items":
            for i, value in enumerate(schema[name]):
                yield from _parts(value, f"{path}.{name}[{i}]", depth + 1)
        elif name in schema:
            yield from _parts(schema[name], f"{path}.{name}", depth + 1)
