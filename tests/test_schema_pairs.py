"""Keywords of JSON schemas beside one another: a validator agrees with what their grammar lets through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import combinations
from typing import Any

import jsonschema_rs
import pytest
from grammar_case import Grammars
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local import LoadConfig, VisionLLM
from aim_local.errors import UsageError
from aim_local.grammar.schema import schema_grammar

Schema = dict[str, Any]

PARTS: list[Schema] = [
    {"type": "string"}, {"type": ["integer", "null"]}, {"type": "object"}, {"type": "array"}, {"const": "abc"},
    {"enum": ["abc", 3, None, [1], {"a": 1}]}, {"pattern": "^[a-c]+$"}, {"minLength": 2}, {"maxLength": 3},
    {"format": "date"}, {"minimum": 3.5}, {"minimum": 3, "type": "integer"},
    {"maximum": 105.0, "type": ["integer", "string"]},
    {"items": {"type": "integer"}}, {"prefixItems": [{"const": 1}, {"type": "boolean"}]}, {"minItems": 2},
    {"maxItems": 1}, {"items": False}, {"properties": {"a": {"type": "integer"}, '"]\\': {"const": "x"}}},
    {"properties": {"a": True, "b": False}, "required": ["a"]}, {"required": ["a"]},
    {"additionalProperties": {"type": "boolean"}}, {"additionalProperties": False}, {"additionalProperties": True},
    {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer"}, {"type": "object", "required": ["c"]}]},
    {"oneOf": [{"type": "boolean"}, {"type": "string"}, {"type": "array"}]}, {"allOf": [{"minimum": 10}]},
    {"allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]}]}, {"$ref": "#/$defs/a"}, {"x-more": 1},
]  # fmt: skip
DEFS = {"a": {"type": "object", "properties": {"a": {"type": ["integer", "string"]}, "c": {}}, "required": ["c"]}}


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:
        yield Grammars(llm.text.llama)


def together(one: Schema, other: Schema) -> Schema:
    return ({"allOf": [one, other]} if one.keys() & other.keys() else {**one, **other}) | {"$defs": DEFS}


def grammar_or_error(schema: Schema) -> tuple[str, str]:
    try:
        return schema_grammar(schema), ""
    except UsageError as e:
        return "", str(e)


@settings(max_examples=examples(400), deadline=None)
@given(pair=st.sampled_from(list(combinations(PARTS, 2))), seed=st.integers(0, 999))
def test_two_keywords(grammars: Grammars, pair: tuple[Schema, Schema], seed: int) -> None:
    schema = together(*pair)
    grammar, said = grammar_or_error(schema)
    answer = grammars.drawn(grammar, seed, limit=100) if grammar else None
    assert answer is None or jsonschema_rs.is_valid(schema, json.loads(answer)), (schema, answer)
    assert len(said) < 400
    assert "\n" not in said


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
HELD: list[tuple[Schema, list[Any], list[Any]]] = [  # taken, and not taken
    ({"allOf": [{"anyOf": [{"type": "string"}, {"type": "integer"}]}]}, ["a", 1], [{}, None]),
    ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"enum": ["a", "b"]}}}, ["a"], ["c"]),
    ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"type": "integer"}}, "title": "X"}, [1], ["c", 1.5]),
    ({"allOf": [{"type": "string"}, {"maxLength": 2}, {"minLength": 2}]}, ["ab"], ["a", "abc"]),
    ({"allOf": [{"enum": ["a", 1]}, {"type": "string"}]}, ["a"], [1]),
    ({"allOf": [OBJECT, {"properties": {"b": {"type": "null"}}}]}, [{"a": 1, "b": None}, {"a": 1}], [{"b": None}]),
    ({"allOf": [OBJECT, {"properties": {"a": {"minimum": 3}}}]}, [{"a": 3}], [{"a": 2}]),
    ({"allOf": [OBJECT, {"additionalProperties": False, "properties": {"b": {}}}]}, [], [{"a": 1}, {"b": 1}]),
    ({**OBJECT, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]}, [{"a": 1, "b": 2}, {"a": 1, "c": 2}], [{"a": 1}]),
    ({"type": "string", "format": "date", "maxLength": 10}, ["2024-12-31"], ["2024"]),
    ({"type": "string", "format": "email", "maxLength": 3}, ["abc"], ["abcd"]),
    ({"type": "string", "maxLength": 3.0}, ["abc"], ["abcd"]),
    ({"type": "string", "enum": ["a", "abc"], "maxLength": 2}, ["a"], ["abc"]),
    ({"type": "string", "minLength": 2}, ["\U0001f600a"], ["\U0001f600"]),
    ({"type": "integer", "minimum": 100}, [100, 999, 1000], [99, 10, 19]),
    ({"type": "integer", "maximum": -100}, [-100, -1000], [-99, -10, 0]),
    ({"type": "integer", "minimum": 105.0}, [105, 1000], [104, 15]),
    ({"type": "integer", "minimum": 3, "exclusiveMinimum": 5}, [6], [5, 3]),
    ({"type": ["integer", "null"], "minimum": 3, "maximum": 5}, [3, None], [2, 6, "a"]),
    ({"type": ["string", "null"], "minimum": 3, "maxLength": 1}, ["a", None], ["ab", 4]),
    ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, [[1, 2]], [[2, 1]]),
    ({"prefixItems": [{"const": 1}, {"const": 2}], "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3], [2]]),
    ({"prefixItems": [{"const": 1}], "items": False, "minItems": 0}, [[1], []], [[1, 1]]),
    ({"prefixItems": [{"const": 1}], "items": {"const": 3}, "maxItems": 3}, [[1], [1, 3], [1, 3, 3]], [[1, 1]]),
    ({"prefixItems": [{"const": 1}], "minItems": 2, "maxItems": 3}, [[1, "a"], [1, 2, 3]], [[1]]),
    ({"$schema": DRAFT_7, "items": [{"const": 1}], "additionalItems": False}, [[1]], [[1, 2]]),
    ({"items": True, "minItems": 1}, [[1, "a"]], [[]]),
    ({"items": False}, [[]], [[1]]),
    ({"properties": {"a": True, "b": False}, "required": ["a"]}, [{"a": [1]}], [{"a": 1, "b": 1}, {}]),
    ({"properties": {"a": {"const": 1}}, "additionalProperties": True}, [{"a": 1, "b": 2}, {"ab": 1}], [{"a": 2}]),
    ({"properties": {'"]\\^': {"const": 1}}, "additionalProperties": True}, [{'"]\\^': 1, '"': 0}], [{'"]\\^': 2}]),
    ({"properties": {"*": {"const": 1}}}, [{"*": 1}, {}], [{"*": 2}]),
    ({"required": ["a"]}, [{"a": 1}], [{}]),
    ({"type": "object", "required": ["a"], "additionalProperties": {"const": 1}}, [{"a": 1, "b": 1}], [{"b": 1}]),
    ({"minItems": 1}, [[1]], [[]]),
    ({"type": "array", "uniqueItems": False, "items": {"const": 1}}, [[1, 1]], [[2]]),
    ({"properties": {"date_time": {"const": 1}, "at": {"format": "date-time"}}, "required": ["at"]},
     [{"at": "2024-01-01T00:00:00Z", "date_time": 1}], [{"at": 1}]),
    ({"prefixItems": [{"$ref": "#/$defs/a.b"}, {"$ref": "#/$defs/a-b"}],
      "$defs": {"a.b": {"const": 1}, "a-b": {"const": 2}}}, [[1, 2]], [[1, 1]]),
    ({"properties": {"next": {"$ref": "#"}}, "additionalProperties": False}, [{"next": {"next": {}}}], [{"next": 1}]),
    ({"anyOf": [{"type": "null"}, {"items": {"$ref": "#"}}]}, [None, [None, [None]]], [[1]]),
    ({"$defs": {"x": {"$anchor": "here", "const": 1}}, "$ref": "#here"}, [1], [2]),
    ({"$defs": {"a/b~c d": {"const": 1}}, "$ref": "#/$defs/a~1b~0c%20d"}, [1], [2]),
    ({"$ref": "#/$defs/x", "maxLength": 2, "$defs": {"x": {"type": "string", "minLength": 1}}}, ["ab"], ["", "abc"]),
    ({"anyOf": [{"$ref": "#/properties/a"}, False], "properties": {"a": {"type": "object"}}}, [{}], [1]),
    ({"enum": ["\u2028", "\x7f", 'a"\\\n']}, ["\u2028", "\x7f", 'a"\\\n'], ["a"]),
    ({"discriminator": {"propertyName": "a"},
      "oneOf": [{**OBJECT, "properties": {"a": {"const": kind}}} for kind in "xy"]},
     [{"a": "x"}, {"a": "y"}], [{"a": "z"}]),
    ({"x-order": 3, "example": 1, "externalDocs": {}, "type": "null", "nullable": False}, [None], [1]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "taken", "others"), HELD, ids=lambda value: str(value)[:40])
def test_what_is_held(grammars: Grammars, schema: Schema, taken: list[Any], others: list[Any]) -> None:
    grammar, said = grammar_or_error(schema)
    assert grammar or ("allows nothing" in said and not taken), said
    for value in [*taken, *others] if grammar else []:
        spelled = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert grammars.takes(grammar, spelled) == (value in taken), value
        assert value not in taken or jsonschema_rs.is_valid(schema, value)
    drawn = [grammars.drawn(grammar, seed, limit=80) for seed in range(3)] if grammar else []
    for answer in drawn:
        assert answer is None or jsonschema_rs.is_valid(schema, json.loads(answer)), answer


def test_null_where_openapi_says_so(grammars: Grammars) -> None:
    """To JSON schema the keyword is nothing; who writes it means OpenAPI 3.0."""
    for schema in ({"type": "string", "nullable": True}, {"enum": ["a", None], "type": "string", "nullable": True}):
        assert grammars.takes(schema_grammar(schema), "null")
        assert grammars.takes(schema_grammar(schema), '"a"')
    assert not grammars.takes(schema_grammar({"enum": ["a"], "type": "string", "nullable": True}), "null")


@settings(max_examples=examples(200), deadline=None)
@given(low=st.none() | st.integers(-2000, 2000), high=st.none() | st.integers(-2000, 2000), n=st.integers(-3000, 3000))
def test_integers_within_bounds(grammars: Grammars, low: int | None, high: int | None, n: int) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    bounds = {"minimum": low, "maximum": high}
    schema = {"type": "integer", **{key: value for key, value in bounds.items() if value is not None}}
    grammar = schema_grammar(schema)
    for value in {n, low or 0, (low or 0) - 1, high or 0, (high or 0) + 1}:
        assert grammars.takes(grammar, str(value)) == jsonschema_rs.is_valid(schema, value), (schema, value)


PLACES = (
    st.decimals(-120, 120, places=0) | st.decimals(-3, 3, places=2) | st.sampled_from([Decimal("1e9"), Decimal("0.1")])
)
BOUNDS = st.dictionaries(
    st.sampled_from(["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]), PLACES, max_size=3
)


@settings(max_examples=examples(300), deadline=None)
@given(bounds=BOUNDS, number=PLACES, seed=st.integers(0, 99))
def test_numbers_within_bounds(grammars: Grammars, bounds: dict[str, Decimal], number: Decimal, seed: int) -> None:
    schema = {"type": "number", **{name: float(bound) for name, bound in bounds.items()}}
    step = Decimal("0.001")
    near = [number, *(value for bound in bounds.values() for value in (bound, bound - step, bound + step))]
    grammar, said = grammar_or_error(schema)
    for value in near:
        is_valid = jsonschema_rs.is_valid(schema, float(value))
        assert (grammars.takes(grammar, f"{value:f}") if grammar else False) == is_valid, (schema, value, said)
    drawn = grammars.drawn(grammar, seed, limit=60) if grammar else None
    assert drawn is None or jsonschema_rs.is_valid(schema, json.loads(drawn)), (schema, drawn)


@settings(max_examples=examples(300), deadline=None)
@given(
    year=st.integers(0, 9999) | st.sampled_from([4, 1900, 2000, 2024]), month=st.integers(0, 13), day=st.integers(0, 32)
)
def test_days_of_the_calendar(grammars: Grammars, year: int, month: int, day: int) -> None:
    grammar = schema_grammar({"type": "string", "format": "date"})
    for numbers in ((year, month, day), (year, 2, 29), (year, month, 31), (year, month, 30)):
        said = "{:04}-{:02}-{:02}".format(*numbers)
        try:
            is_day = bool(date.fromisoformat(said))
        except ValueError:
            is_day = False
        assert grammars.takes(grammar, f'"{said}"') == is_day, said


KEYS = {"a": True, '"]\\': {"const": 1}, "ab": {"const": 1}, "é": {"const": 1}}


@settings(max_examples=examples(200), deadline=None)
@given(key=st.text(st.sampled_from('ab"]\\é^-\x00\n'), max_size=3))
def test_names_of_other_properties(grammars: Grammars, key: str) -> None:
    """Those that the schema speaks of are not among them, however they are spelled."""
    grammar = schema_grammar({"properties": KEYS, "additionalProperties": {"const": 2}})
    answer = json.dumps({key: 2}, ensure_ascii=False, separators=(",", ":"))
    assert grammars.takes(grammar, answer) == (key not in KEYS or key == "a")
    assert not grammars.takes(grammar, '{"\\u0061b":2}')


REFUSED = [
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "'oneOf' at .* an answer may be more than one.*write anyOf"),
    ({"oneOf": [{"const": i} for i in range(99)]}, "'oneOf' of more than 64"),
    ({"oneOf": [{"const": "a"}, {"type": "string", "pattern": "^b"}]}, "'oneOf' at"),
    ({"oneOf": [{"properties": {name: {}}, "required": ["b"]} for name in "ab"]}, "'oneOf' at"),
    ({"type": "number", "minimum": 1.5, "maximum": 1.4}, r"no number is within 1\.5 and 1\.4"),
    ({"type": "number", "minimum": 1e-12, "maximum": 1.5e-12}, "no number of a few digits is within; give wider"),
    ({"type": "number", "minimum": 10**17}, "as the lowest number at .* give both bounds"),
    ({"anyOf": [{"type": "string"}], "nullable": True}, "'nullable' without a type at"),
    ({"uniqueItems": True}, "'uniqueItems'"),
    ({"type": "string", "format": "time", "maxLength": 12}, "'maxLength' beside 'format'"),
    ({"type": "string", "format": "date", "maxLength": 3}, "allows nothing .*10 to 10 characters"),
    ({"enum": ["a"], "pattern": "b"}, "'pattern' beside 'enum'"),
    ({"allOf": [{"format": "date"}, {"format": "time"}]}, "'format' twice"),
    ({"allOf": [{"prefixItems": [{}]}, {"items": {"type": "null"}}]}, "'prefixItems' twice"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "allows nothing"),
    ({"allOf": [{"const": 1}, {"const": True}]}, "allows nothing"),
    ({"properties": {"a": False}, "required": ["a"]}, "the property 'a' is required, and false"),
    ({"required": ["a"], "additionalProperties": False}, "the property 'a' is required, and false"),
    ({"anyOf": [False]}, "none of its anyOf is possible"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "which means itself"),
    ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "may be itself"),
    ({"$ref": "#where"}, "no schema has the .anchor 'where'"),
    ({"$ref": "other.json#/a"}, "only references into the same document"),
    ({"type": "integer", "exclusiveMinimum": True}, "must be a number"),
    ({"type": "string", "maxLength": "3"}, "must be a non-negative integer"),
    ({"type": "string", "pattern": 3}, "must be a text"),
    ({"type": "array", "items": 3}, "a schema is an object"),
    ({"type": "colour" * 200}, "unrecognized type colour"),
    ({"$ref": "#/" + "x" * 2000}, "is not there"),
    ({"x" * 2000: 1}, "leave it out"),
    ({"properties": {"y" * 2000: {"type": "string", "x" * 2000: 1}}}, "leave it out"),
    ({"properties": {"a" * 40000: {}}, "additionalProperties": True}, "the JSON schema is too large"),
    (
        {"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}, "$ref": "#/$defs/d0"},
        r"more than 32 \$ref and allOf",
    ),
    ({"$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 99} for i in range(9)}
      | {"d9": {}}, "$ref": "#/$defs/d0"}, "too many parts that hold at once"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "told"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_held(schema: Schema, told: str) -> None:
    with pytest.raises(UsageError, match=told) as e:
        schema_grammar(schema)
    assert len(str(e.value)) < 300
    assert "\n" not in str(e.value)
