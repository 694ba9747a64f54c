"""How tokens are drawn: logprobs, penalties, grammars and JSON schemas, against logits that are computed anew."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local import GenerateConfig, LoadConfig, TokenLogprob, VisionLLM, VisualTokenConfig
from aim_local.errors import UsageError
from aim_local.grammar.schema import schema_grammar
from aim_local.grammar.schema_refs import MAX_DEPTH

QUESTION = "What moves, and where to?"


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


def picture() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)


# --- logprobs --------------------------------------------------------------------------------------------------------


def test_logprobs_are_those_of_the_logits(llm: VisionLLM) -> None:
    told: list[TokenLogprob] = []
    options = GenerateConfig(max_tokens=12, temperature=1.5, seed=5, logprobs=3)
    answer = llm.generate(QUESTION, [picture()], generate=options, on_token=told.append)
    assert answer.logprobs == told
    logits = llm.score(QUESTION, [picture()], answer.tokens).logits.astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    expected -= logits.max(1, keepdims=True)
    worst = 0.0
    for row, token, found in zip(expected, answer.tokens, told, strict=False):
        assert found.id == token
        assert [other.id for other in found.top] == list(np.argsort(-row, kind="stable")[:3])
        worst = max(
            worst, abs(found.logprob - row[token]), *(abs(other.logprob - row[other.id]) for other in found.top)
        )
    print(f"largest difference {worst:.1e}")
    assert worst < 1e-5
    assert b"".join(found.data for found in told).decode() == answer.text


def test_no_logprobs_unless_asked(llm: VisionLLM) -> None:
    told: list[TokenLogprob] = []
    assert llm.generate(QUESTION, generate=GenerateConfig(max_tokens=2), on_token=told.append).logprobs is None
    assert told == []


# --- penalties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("each", "once"), [(2.0, 0.0), (0.0, 2.0), (0.7, 1.1), (-2.0, -2.0)])
def test_penalties_of_tokens_drawn_before(llm: VisionLLM, each: float, once: float) -> None:
    """Greedy over the logits less the penalties, computed here."""
    grammar = 'root ::= ("red" | "blue" | "a" | " ")+'  # leaves few tokens, which come again
    options = GenerateConfig(max_tokens=20, frequency_penalty=each, presence_penalty=once, grammar=grammar)
    answer = llm.generate(QUESTION, generate=options)
    rows = llm.score(QUESTION, answer_tokens=answer.tokens).logits
    pieces = {token: llm.text.llama.piece(token).decode("utf-8", "replace") for token in range(llm.text.n_vocab)}
    said, counts = "", Counter[int]()
    assert len(answer.tokens) >= 6
    for row, token in zip(rows, answer.tokens, strict=False):
        allowed = [t for t, piece in pieces.items() if piece and begins(said + piece)]
        weighed = {t: row[t] - np.float32(each) * counts[t] - np.float32(once) * (counts[t] > 0) for t in allowed}
        assert weighed[token] == pytest.approx(max(weighed.values()), abs=1e-4)
        counts[token] += 1
        said += pieces[token]


def begins(text: str) -> bool:
    """Whether the penalties' grammar can go on from here, or end."""
    return re.fullmatch("(red|blue|a| )*(r|re|b|bl|blu)?", text) is not None


def test_min_p_of_one_is_greedy(llm: VisionLLM) -> None:
    greedy = llm.generate(QUESTION, generate=GenerateConfig(max_tokens=8))
    hot = GenerateConfig(max_tokens=8, temperature=5, seed=1, min_p=1, top_k=0, top_p=1)
    assert llm.generate(QUESTION, generate=hot).tokens == greedy.tokens


@pytest.mark.parametrize(
    "wrong",
    [{"min_p": 2}, {"frequency_penalty": 3}, {"presence_penalty": float("nan")}, {"logprobs": 21}, {"logprobs": -1}],
)
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        GenerateConfig(**wrong)


# --- grammars and schemas --------------------------------------------------------------------------------------------

LEAVES = st.sampled_from(
    [
        {"type": "integer", "minimum": -3, "maximum": 120},
        {"type": "string", "maxLength": 4},
        {"type": "boolean"},
        {"enum": ["red", "blue", 'a "b" \\', None, 3]},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        {"type": ["null", "boolean"]},
        {"type": "string", "pattern": "^[a-c]{2,3}x$"},
        {"const": {"a": [1, 2]}},
    ]
)


def objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def made(parts: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}

    return st.dictionaries(st.sampled_from("abc"), parts, min_size=1, max_size=2).map(made)


def any_of(schemas: list[Any]) -> dict[str, Any]:
    return {"anyOf": schemas}


SCHEMAS = st.recursive(LEAVES, lambda parts: objects(parts) | st.lists(parts, min_size=2, max_size=2).map(any_of))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 1.0, 3.0]))
def test_an_answer_is_what_the_schema_allows(
    llm: VisionLLM, schema: dict[str, Any], seed: int, temperature: float
) -> None:
    options = GenerateConfig(max_tokens=150, temperature=temperature, seed=seed, top_k=0, top_p=1, json_schema=schema)
    answer = llm.generate(QUESTION, generate=options)
    if answer.stats.stop_reason == "eos":
        assert jsonschema_rs.is_valid(schema, json.loads(answer.text)), answer.text


def test_any_object_and_pruned_prompts(llm: VisionLLM) -> None:
    options = GenerateConfig(max_tokens=200, temperature=1, seed=4, json_schema={})
    answers = [
        llm.generate(QUESTION, [picture()], VisualTokenConfig.paper(), generate=options),
        llm.chat(VisualTokenConfig.paper()).ask(QUESTION, [picture()], options),
    ]
    for answer in answers:
        assert answer.text.lstrip().startswith("{")
        assert answer.stats.stop_reason == "length" or isinstance(json.loads(answer.text), dict)


def test_a_grammar_holds_the_answer(llm: VisionLLM) -> None:
    options = GenerateConfig(grammar='root ::= "left" | "right " [0-9]{2}', temperature=2)
    said = {llm.generate(QUESTION, generate=options).text for _ in range(12)}
    assert all(re.fullmatch(r"left|right \d\d", text) for text in said), said


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(MAX_DEPTH + 1):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "number", "multipleOf": 3}, "'multipleOf' at \\$"),
        ({"not": {}}, "'not'"),
        ({"type": "object", "properties": {"a": {"type": "string", "contains": 1}}}, r"\$\.properties\.a"),
        ({"type": "string", "pattern": "(?=a)"}, "looks ahead"),
        ({"type": "colour"}, "unrecognized type colour"),
        ({"$ref": "http://x/y"}, "only references into the same document"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "'maxLength' beside 'pattern'"),
        ({"properties": []}, "an object of schemas"),
        ({"items": 3}, "a schema is an object"),
        ({"anyOf": {"type": "null"}}, "a list of schemas"),
        ({"enum": [float("nan")]}, "not JSON"),
        ({"enum": ["x" * 70000]}, "more than 64 KiB"),
        (DEEP, "levels deep"),
    ],
)
def test_a_schema_that_a_grammar_cannot_hold(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        schema_grammar(schema)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ("root ::= foo", "does not parse: Undefined rule identifier 'foo'"),
        ("nothing", "does not parse: expecting ::= at"),
        ("x\nPOST /v1/chat/completions 200\n", "does not parse: expecting ::= at POST"),
        ('root ::= "a"{9999999}', "does not parse: number of repetitions"),
        ('rot ::= "a"', "has no rule root"),
        ("root ::= root", "left recursion"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "parentheses deep"),
        ('root ::= "\x1b[31m"', "control character"),
        ('root ::= "' + "a" * (1 << 20) + '"', "characters"),
    ],
)
def test_what_is_no_grammar(llm: VisionLLM, grammar: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Told before anything is computed, in a conversation too, which stays as it was; and nothing on the terminal."""
    options = GenerateConfig(grammar=grammar)
    chat = llm.chat()
    for ask in (llm.generate, chat.ask):
        with pytest.raises(UsageError, match=says) as error:
            ask(QUESTION, generate=options)
        assert "\n" not in str(error.value)
    assert chat.messages == []
    assert capfd.readouterr() == ("", "")


def test_a_schema_and_a_grammar() -> None:
    with pytest.raises(UsageError, match="give one"):
        GenerateConfig(grammar='root ::= "a"', json_schema={})


KEYS = (
    "type", "items", "anyOf", "properties", "enum", "required", "minItems", "maxLength", "pattern", "const", "$ref",
    "allOf", "oneOf", "prefixItems", "additionalProperties", "minimum", "format", "nullable", "uniqueItems", "a",
)  # fmt: skip
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["object", "array", "string", "integer", "date", "#", "#/items"])
)


def lists_and_objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(KEYS), parts, max_size=4)


@settings(max_examples=examples(100), deadline=None)
@given(schema=st.dictionaries(st.sampled_from(KEYS), st.recursive(LEAF, lists_and_objects), max_size=4))
def test_any_json_is_a_schema_or_an_error(schema: dict[str, Any]) -> None:
    said = ""
    try:
        grammar = schema_grammar(schema)
    except UsageError as e:
        grammar, said = "", str(e)
    assert "root ::=" in grammar or said
    assert "\n" not in said
