"""A constrained answer is what its grammar allows, in whole characters; a cut one ends behind one, and says so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_local import Answer, GenerateConfig, LoadConfig, VisionLLM
from aim_local.engine.generate import TextStream
from aim_local.errors import ModelError
from aim_local.native.constrained_text import unfinished

# The Unicode Standard, table 3-7: well-formed UTF-8 byte sequences
TAIL = range(0x80, 0xC0)
WELL_FORMED = (
    (range(0x00, 0x80),),
    (range(0xC2, 0xE0), TAIL),
    (range(0xE0, 0xE1), range(0xA0, 0xC0), TAIL),
    (range(0xE1, 0xED), TAIL, TAIL),
    (range(0xED, 0xEE), range(0x80, 0xA0), TAIL),
    (range(0xEE, 0xF0), TAIL, TAIL),
    (range(0xF0, 0xF1), range(0x90, 0xC0), TAIL, TAIL),
    (range(0xF1, 0xF4), TAIL, TAIL, TAIL),
    (range(0xF4, 0xF5), range(0x80, 0x90), TAIL, TAIL),
)
EDGES = sorted({edge for row in WELL_FORMED for part in row for edge in (part[0], part[-1], min(part[-1] + 1, 0xFF))})
HOT = {"temperature": 5.0, "top_k": 0, "top_p": 1.0}
SCHEMA = {"type": "string", "minLength": 6, "maxLength": 10}


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(cache_media=False, n_threads=1)) as loaded:
        yield loaded


def left_over(data: bytes) -> bytes | None:
    """As `unfinished`, by the table."""
    while data:
        rows = [row for row in WELL_FORMED if all(byte in part for byte, part in zip(data, row, strict=False))]
        if not rows:
            return None
        if len(data) < len(rows[0]):
            return data
        data = data[len(rows[0]) :]
    return b""


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_bytes_are_read_by_the_table(n: int) -> None:
    for data in map(bytes, itertools.product(EDGES, repeat=n)):
        assert unfinished(data) == left_over(data), data


@given(st.binary(max_size=12))
def test_any_bytes_are_read_by_the_table(data: bytes) -> None:
    assert unfinished(data) == left_over(data)


def spelled(llm: VisionLLM, answer: Answer) -> bytes:
    return b"".join(llm.text.llama.piece(token) for token in answer.tokens)


@pytest.mark.parametrize("seed", range(24))
def test_a_hot_answer_is_whole_characters(llm: VisionLLM, seed: int) -> None:
    """A toy's vocabulary has every byte; these draws had lead bytes of no character, and tokens that are not shown."""
    answer = llm.generate("x", generate=GenerateConfig(max_tokens=60, seed=seed, json_schema=SCHEMA, **HOT))
    assert answer.stats.stop_reason == "eos"
    assert spelled(llm, answer).decode() == answer.text
    assert jsonschema_rs.is_valid(SCHEMA, json.loads(answer.text)), answer.text


BROKEN = {
    "overlong, of two bytes": "[^\\U00000100-\\U0010FFFF]{4}",
    "overlong, of three bytes": "[\\u0100-\\u0800]{4}",
    "overlong, of four bytes": "[\\U00000800-\\U00010000]{4}",
    "surrogates": "[\\uD7C0-\\uE000]{4}",
    "beyond the last": "[\\U0010FFC0-\\U001FFFFF]{4}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_other_form_of_a_character(llm: VisionLLM, name: str) -> None:
    for seed in range(12):
        options = GenerateConfig(max_tokens=60, seed=seed, grammar=f"root ::= {BROKEN[name]}", **HOT)
        answer = llm.generate("x", generate=options)
        assert answer.stats.stop_reason == "eos"
        assert spelled(llm, answer).decode() == answer.text
        assert len(answer.text) == 4


def test_a_grammar_of_no_character(llm: VisionLLM) -> None:
    with pytest.raises(ModelError, match="no token of this model continues"):
        llm.generate("x", generate=GenerateConfig(grammar="root ::= [\\uD800-\\uDFFF]"))


def test_the_text_of_a_special_token_is_spelled(llm: VisionLLM) -> None:
    """The token itself reads so to a grammar, and shows nothing."""
    for seed in range(16):
        options = GenerateConfig(max_tokens=20, seed=seed, grammar='root ::= "<|im_start|>"', **HOT)
        assert llm.generate("x", generate=options).text == "<|im_start|>"


def test_a_special_token_that_a_grammar_names(llm: VisionLLM) -> None:
    answer = llm.generate("x", generate=GenerateConfig(grammar='root ::= <|im_start|> "no"'))
    assert answer.text == "no"
    assert llm.text.llama.token_text(answer.tokens[0]) == "<|im_start|>"


def test_an_answer_cut_within_a_character(llm: VisionLLM) -> None:
    whole, told = "a€😀", []
    for n in range(1, 9):
        text: list[str] = []
        options = GenerateConfig(max_tokens=n, grammar=f'root ::= "{whole}"')
        answer = llm.generate("x", generate=options, on_text=text.append)
        assert answer.stats.stop_reason == "length"
        assert "".join(text) == answer.text
        told.append(answer.text)
    assert told == ["a", "a", "a", "a€", "a€", "a€", "a€", whole]


@pytest.mark.parametrize(("is_cut", "text"), [(True, "a"), (False, "a\ufffd")])
def test_half_a_character_is_left_out_of_a_cut_answer(is_cut: bool, text: str) -> None:
    stream = TextStream((), None)
    stream.feed(b"a\xe2\x82")
    stream.end(is_cut=is_cut)
    assert stream.text == text


def test_nothing_comes_behind_a_stop_string() -> None:
    stream = TextStream(("stop",), None)
    stream.feed(b"a stop\xe2\x82")
    stream.end(is_cut=stream.stopped)
    assert (stream.text, stream.stopped) == ("a ", True)
