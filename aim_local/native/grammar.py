"""From a JSON schema to a grammar (GBNF), by llama.cpp's own rules (patches/overlay/grammar/aim-grammar.h).

Knows what a schema may ask for, so that nothing of it is lost without a word; drawing by a grammar is sampler.py's.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Mapping
from ctypes import c_char_p, c_int32
from functools import cache
from typing import Any

from ..errors import NativeError, UsageError
from .binding import bind
from .installed import library_folder, library_name
from .outcome import Outcome
from .schema_sense import check_sense

MAX_DEPTH, MAX_BYTES = 32, 65536  # the converter is recursive, and so is what reads its grammar
_SAYS_NOTHING = {  # of what is allowed
    "$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly",
}  # fmt: skip
_KNOWN = {
    "$ref", "oneOf", "anyOf", "allOf", "type", "const", "enum", "properties", "required", "additionalProperties",
    "items", "prefixItems", "minItems", "maxItems", "pattern", "minLength", "maxLength", "format",
}  # fmt: skip
_OF_INTEGERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
_ALONE = (  # keyword, and what may stand beside it
    ("$ref", set[str]()),
    ("oneOf", set[str]()),
    ("anyOf", set[str]()),
    ("allOf", {"type"}),
    ("const", {"type"}),
    ("enum", {"type"}),
    ("prefixItems", {"type"}),
    ("pattern", {"type", "format"}),
    ("minimum", {"type", "maximum", "exclusiveMaximum"}),
    ("maximum", {"type", "minimum", "exclusiveMinimum"}),
)
_BY_NAME, _LISTS = ("properties", "$defs", "definitions"), ("oneOf", "anyOf", "allOf", "prefixItems")
_ANY_OBJECT = {"type": "object"}


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON that a schema allows. Raises UsageError for what is no schema, or has no grammar."""
    try:
        text = json.dumps(dict(schema), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise UsageError(f"the JSON schema is not JSON: {e}") from e
    try:
        data = text.encode()
    except UnicodeEncodeError as e:
        raise UsageError("the JSON schema holds half of a surrogate pair; give text in UTF-8") from e
    if len(data) > MAX_BYTES:
        raise UsageError(f"the JSON schema has more than {MAX_BYTES // 1024} KiB; give a smaller one")
    for path, part in list(_parts(dict(schema), "$", 0)):
        _check(path, part)
        check_sense(path, part, schema)
    return _converted(data)


def object_grammar() -> str:
    """Any JSON object."""
    return schema_grammar(_ANY_OBJECT)


def _parts(schema: object, path: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all schemas in it, with where they stand."""
    if depth > MAX_DEPTH:
        raise UsageError(f"the JSON schema is more than {MAX_DEPTH} levels deep; give a flatter one")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise UsageError(f"the JSON schema has {schema!r:.60} at {path}; a schema is an object")
    yield path, schema
    for name in _BY_NAME:
        inner = schema.get(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"the JSON schema has {inner!r:.60} at {path}.{name}; give an object of schemas")
        for key, value in inner.items():
            yield from _parts(value, f"{path}.{name}.{key}", depth + 1)
    for name in _LISTS:
        several = schema.get(name, [])
        if not isinstance(several, list):
            raise UsageError(f"the JSON schema has {several!r:.60} at {path}.{name}; give a list of schemas")
        for i, value in enumerate(several):
            yield from _parts(value, f"{path}.{name}[{i}]", depth + 1)
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from _parts(schema[name], f"{path}.{name}", depth + 1)


def _check(path: str, part: dict[str, Any]) -> None:
    """Raises UsageError for keywords that would be lost: the answer could then be what the schema forbids."""
    says = {key for key in part if key not in _SAYS_NOTHING}
    known = _KNOWN | (_OF_INTEGERS if part.get("type") == "integer" else set())
    for key in part:
        if key in says - known:
            raise UsageError(f"the JSON schema has {key!r} at {path}, which a grammar cannot hold; leave it out")
    for key, beside in _ALONE:
        lost = sorted(says - beside - {key}) if key in says else []
        if lost:
            raise UsageError(
                f"the JSON schema has {lost[0]!r} beside {key!r} at {path}, and a grammar holds one of them; "
                "put both into one schema"
            )


@cache
def _library() -> tuple[Any, Outcome]:
    path = library_folder() / library_name("aim-grammar")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as e:
        raise NativeError(f"{path} does not load ({e}); reinstall aim-local as a whole") from e
    convert = bind(library, "aim_json_schema_to_grammar", [c_char_p, c_char_p, c_int32])
    return convert, Outcome(library, "aim_grammar_last_error", "aim_grammar_last_status")


def _converted(data: bytes) -> str:
    convert, outcome = _library()
    buffer = ctypes.create_string_buffer(16384)
    n = convert(data, buffer, len(buffer))
    if n < 0:
        raise UsageError(" ".join(outcome.text().split()))
    if n >= len(buffer):
        buffer = ctypes.create_string_buffer(n + 1)
        outcome.checked(convert(data, buffer, len(buffer)))
    return buffer.value.decode()
