"""Schemas and grammars that allow nothing, or that would be read as something else, are one line that says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import UsageError
from aim_local.grammar.schema import schema_grammar


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


def integer(**bounds: object) -> dict[str, Any]:
    return {"type": "integer", **bounds}


NOTHING = [
    (integer(minimum=5, maximum=3), r"allows nothing at \$: no integer is at least 5 and at most 3"),
    (integer(exclusiveMinimum=5, exclusiveMaximum=6), "no integer is at least 6 and at most 5"),
    (integer(minimum=1.2, maximum=1.8), "no integer is at least 2 and at most 1"),
    ({"type": "array", "minItems": 3, "maxItems": 1}, "'minItems' is 3 and 'maxItems' 1"),
    ({"type": "string", "minLength": 4, "maxLength": 1}, "'minLength' is 4 and 'maxLength' 1"),
    (
        {"properties": {"a": {"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 1}}}},
        r"allows nothing at \$\.properties\.a\.items: ",
    ),
    ({"enum": []}, "enum must be a non-empty array"),
    ({"type": []}, "type must not be empty"),
    ({"allOf": [{"enum": ["a"]}, {"enum": ["b"]}]}, "its enums have no value in common"),
]
BEYOND = [
    (integer(minimum=-(10**30)), r"has -100\.\.\. \(31 digits\) as 'minimum' at \$, which is beyond 64 bits"),
    (integer(maximum=2**63), "beyond 64 bits"),
    (integer(exclusiveMaximum=1e300), "beyond 64 bits"),
    (integer(minimum=10**16), "as the lowest number at .* 16 digits; give both bounds"),
    (integer(maximum=-(10**16)), "as the largest number"),
    ({"enum": [1, 10**30]}, "beyond 64 bits; write it as a text"),
    ({"const": {"a": [-(10**20)]}}, "beyond 64 bits"),
    ({"type": "string", "maxLength": 10**9}, "as 'maxLength' at .* counts to 2000"),
    ({"type": "array", "minItems": 10**30}, "as 'minItems' at .* counts to 2000"),
    ({"type": "string", "minLength": 10**400}, r"has 1000\.\.\. \(401 digits\) as 'minLength'"),
    (integer(maximum=-(10**4000)), r"has -100\.\.\. \(4001 digits\) as 'maximum'"),
    ({"type": "string", "minLength": 3, "maxLength": -(10**500)}, r"'maxLength' -100\.\.\. \(501 digits\)"),
]
LOST = [
    ({"enum": ["a", 1], "type": "integer"}, "has 'a' at .* its type 'integer' rules out"),
    ({"const": None, "type": ["string", "number"]}, "has None at"),
    ({"enum": [True], "type": "number"}, "has True at"),
    ({"properties": {"a": {}}, "required": ["a", "b"], "additionalProperties": False}, "'b' is required, and false"),
    ({"required": "b"}, "give a list of names"),
    ({"properties": False, "required": ["b"]}, "has False at .*properties; give an object of schemas"),
    ({"allOf": 5, "type": "object"}, "has 5 at .*allOf; give a list of schemas"),
    ({"$defs": [], "allOf": [{"$ref": "#/$defs/x"}]}, r"has \[\] at \$\.\$defs; give an object of schemas"),
]
SURROGATES = [
    {"enum": ["\ud800"]},
    {"const": {"a": "\udfff"}},
    {"properties": {"\ud800": {}}},
    {"type": "string", "pattern": "^\ud800$"},
    {"title": "\ud800"},
]


@pytest.mark.parametrize(("schema", "told"), [*NOTHING, *BEYOND, *LOST])
def test_a_schema_without_sense(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as e:
        schema_grammar(schema)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 300


@pytest.mark.parametrize("schema", SURROGATES)
def test_half_of_a_pair(schema: dict[str, Any]) -> None:
    """It was answered with a question mark."""
    with pytest.raises(UsageError, match="the JSON schema holds half of a surrogate pair; give text in UTF-8"):
        schema_grammar(schema)


@pytest.mark.parametrize(
    "schema",
    [
        integer(minimum=-(2**63), maximum=2**63 - 1),
        integer(minimum=0, maximum=2**63 - 1),
        integer(minimum=10**15),
        integer(minimum=-(10**18)),
        integer(minimum=1.5, maximum=2.5),
        {"enum": [2**64 - 1, -(2**63), 1.5, None, "a"]},
        {"enum": [5.0], "type": "integer"},
        {"type": "string", "minLength": 2, "maxLength": 2},
        {"type": ["string", "null"], "enum": ["a", None]},
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {
            "$defs": {"x": {"properties": {"a": {}}}},
            "allOf": [{"$ref": "#/$defs/x"}, {"properties": {"b": {}}, "required": ["b"]}],
        },
        {"allOf": [{"enum": ["a", "b"]}, {"enum": ["b"]}]},
    ],
)
def test_what_has_sense(schema: dict[str, Any]) -> None:
    grammar = schema_grammar(schema)
    assert all(int(low) <= int(high) for low, high in re.findall(r"\{(\d+),(\d+)\}", grammar))


@pytest.mark.parametrize(
    "grammar", ["root ::= ", 'root ::= ""', 'root ::= a | ""\na ::= "" b\nb ::= # "x"\n', 'root ::= ""\nother ::= "x"']
)
def test_a_grammar_of_nothing(llm: VisionLLM, grammar: str) -> None:
    """Its answer was empty, without a word."""
    for ask in (llm.generate, llm.chat().ask):
        with pytest.raises(UsageError, match="allows the empty text alone") as e:
            ask("What?", generate=GenerateConfig(grammar=grammar, max_tokens=4))
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("grammar", "told"),
    [
        ('\ufeffroot ::= "a"', "begins with a byte order mark; read its file as utf-8-sig"),
        ('root ::= "\u2028"', r"write it as \\u2028"),
        ('root ::= "\x1b"', r"write it as \\x1B"),
    ],
)
def test_characters_that_are_not_seen(llm: VisionLLM, grammar: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        llm.generate("What?", generate=GenerateConfig(grammar=grammar, max_tokens=4))


@pytest.mark.parametrize(
    "grammar",
    ['root ::= "a" | ""', "root ::= a\na ::= [a-b]", "root ::= .", 'root ::= "\\"" # x', 'root ::= "" | "#"'],
)
def test_a_grammar_of_something(llm: VisionLLM, grammar: str) -> None:
    assert llm.generate("What?", generate=GenerateConfig(grammar=grammar, max_tokens=4)).stats.stop_reason


@pytest.mark.parametrize(
    "options", [{"stop": ("\ud800",)}, {"stop": ("a", "b\udfff")}, {"grammar": 'root ::= "\ud800"'}]
)
def test_texts_that_utf8_cannot_hold(options: dict[str, Any]) -> None:
    """No answer could ever have ended with them."""
    with pytest.raises(UsageError, match=r"^(stop|grammar) holds half of a surrogate pair; give text in UTF-8"):
        GenerateConfig(**options)
