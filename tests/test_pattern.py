"""A schema's `pattern`: what its grammar takes is JSON of a text that the pattern is found in, and every such text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import jsonschema_rs
import pytest
from grammar_case import Grammars
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from thorough import examples

from aim_local import LoadConfig, VisionLLM
from aim_local.errors import UsageError
from aim_local.grammar.schema import schema_grammar

Both = tuple[str, str]  # a pattern as ECMA-262 has it, and the same for Python's re

SPACE = r"[\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"
ONES: list[Both] = [
    ("a", "a"), ("b", "b"), ('"', '"'), (r"\\", r"\\"), (r"\/", "/"), (r"\-", "-"), ("]", r"\]"), ("é", "é"),
    (".", r"[^\n\r\u2028\u2029]"), (r"\d", "[0-9]"), (r"\D", "[^0-9]"), (r"\w", "[0-9A-Za-z_]"), (r"\s", SPACE),
    (r"\S", SPACE.replace("[", "[^")), ("[^a]", "[^a]"), ("[^]", r"[\s\S]"), ("[]", "(?!)"), (r'["\\]', r'["\\]'),
    (r"[\b\]-]", r"[\x08\]\-]"), (r"[^\W1]", "[A-Za-z_02-9]"), (r"[\x00-\x1f]", r"[\x00-\x1f]"), (r"\cJ", r"\n"),
    (r"\u0041", "A"), (r"\uD83D\uDE00", "\U0001f600"), (r"[\u{1F600}-\u{1F601}]", "[\U0001f600\U0001f601]"),
    (r"\0", r"\x00"), ("[a-b]", "[ab]"), (r"\t", r"\t"), ("", ""),
]  # fmt: skip
COUNTS = ["*", "+", "?", "{2}", "{0,1}", "{1,3}", "{2,}", "{0}", "*?", "{1,3}?"]
TEXTS = st.text(st.sampled_from('ab"\\/-]é1_ \n\x00\x1f\x08\x7f\u2028A\U0001f600\ufeff'), max_size=5)


@pytest.fixture(scope="module")
def grammars() -> Iterator[Grammars]:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm:
        yield Grammars(llm.text.llama)


def larger(parts: st.SearchStrategy[Both]) -> st.SearchStrategy[Both]:
    def joined(sign: str) -> st.SearchStrategy[Both]:
        pairs = st.lists(parts, min_size=2, max_size=3)
        return pairs.map(lambda some: (sign.join(a for a, _ in some), sign.join(b for _, b in some)))

    def grouped(part: Both, ecma: str, count: str) -> Both:
        return f"{ecma}{part[0]}){count}", f"(?:{part[1]}){count}"

    groups = st.builds(grouped, parts, st.sampled_from(["(", "(?:"]), st.sampled_from(["", *COUNTS]))
    return joined("") | joined("|").map(lambda pair: grouped(pair, "(?:", "")) | groups


INNER = st.recursive(st.sampled_from(ONES), larger, max_leaves=5)
ENDS: list[Both] = [
    ("^{}$", r"\A(?:{})\Z"), ("^(?:{})", r"\A(?:{})"), ("(?:{})$", r"(?:{})\Z"), ("{}", "{}"),
    ("^(?:{})$|b", r"\A(?:{})\Z|b"), ("(?:^|a)(?:{})", r"(?:\A|a)(?:{})"), ("(?:(?:{})$)?", r"(?:(?:{})\Z)?"),
]  # fmt: skip


def grammar_or_error(pattern: str) -> tuple[str, str]:
    try:
        return schema_grammar({"type": "string", "pattern": pattern}), ""
    except UsageError as e:
        return "", str(e)


@settings(max_examples=examples(200), deadline=None)
@given(end=st.sampled_from(ENDS), inner=INNER, texts=st.lists(TEXTS, min_size=4, max_size=6), seed=st.integers(0, 99))
def test_a_grammar_takes_what_a_pattern_is_found_in(
    grammars: Grammars, end: Both, inner: Both, texts: list[str], seed: int
) -> None:
    if end[0] == "^{}$":
        inner = f"(?:{inner[0]})", inner[1]
    pattern, known = end[0].replace("{}", inner[0]), re.compile(end[1].replace("{}", inner[1]))
    grammar, said = grammar_or_error(pattern)
    if said:
        assert "allows nothing" in said, pattern
        assert not any(map(known.search, texts))
        return
    for text in texts:
        spelled = json.dumps(text, ensure_ascii=False)
        assert grammars.takes(grammar, spelled) == bool(known.search(text)), (pattern, text)
    drawn = grammars.drawn(grammar, seed, limit=60)
    if drawn is not None:
        assert known.search(json.loads(drawn)), (pattern, drawn)


FOUND = [
    (r'^a"b\\c$', ['a"b\\c'], ["abc", 'a"b']),
    ("^.{1,3}?$", ["a", 'a"\\'], ["", "aaaa", "\n"]),
    ("^a*?b$", ["b", "aab"], ["a", "bb"]),
    ("[a-z]+", ["a", "1a1"], ["", "1", "A"]),
    (r"^\d{4}-\d\d$", ["2024-12"], ["٢٠٢٤-12", "2024-1"]),
    (r"^(?<year>[0-9]{4})/$", ["2024/"], ["2024"]),
    (r"^[\w.+-]+@[\w-]+\.[a-z]{2,}$", ["a.b+c@d-e.org"], ["a@b", "a b@c.de"]),
    ("^((a|b*)c?){2,4}$", ["", "acac", "bbbbc"], ["d"]),
    ("^(a?b?){0,3}$", ["", "ababab", "ba"], ["abababa"]),
    ("^$", [""], ["a"]),
    ("", ["", "a"], []),
    ("a{,3}|x{", ["a{,3}", "x{"], ["a", "aaa"]),
    ("^(a{100}){3}$", ["a" * 300], ["a" * 299]),
    ("^[^\\u0000-\\u001f]$", ["\x7f", "\U0001f600"], ["\x1f"]),
]


@pytest.mark.parametrize(("pattern", "found", "others"), FOUND, ids=lambda value: str(value)[:20])
def test_patterns_of_people(grammars: Grammars, pattern: str, found: list[str], others: list[str]) -> None:
    grammar = schema_grammar({"properties": {"a": {"pattern": pattern}}, "required": ["a"]})
    for text in [*found, *others]:
        answer = json.dumps({"a": text}, ensure_ascii=False, separators=(",", ":"))
        assert grammars.takes(grammar, answer) == (text in found), answer


LONG = [
    ({"pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
    ({"pattern": "^[A-Z][a-z]*$", "maxLength": 2}, ["A", "Ab"], ["Abc", ""]),
    ({"pattern": "^(ab)+$", "minLength": 3, "maxLength": 5}, ["abab"], ["ab", "ababab"]),
    ({"pattern": "^(a|b{3,9}|c{20})$", "maxLength": 4}, ["a", "bbb", "bbbb"], ["bbbbb", "c" * 20]),
    ({"pattern": "^a{3}$", "minLength": 1, "maxLength": 10}, ["aaa"], ["a"]),
]


@pytest.mark.parametrize(("part", "taken", "others"), LONG, ids=str)
def test_a_pattern_and_lengths(
    grammars: Grammars, part: dict[str, object], taken: list[str], others: list[str]
) -> None:
    grammar = schema_grammar({"type": "string", **part})
    for text in [*taken, *others]:
        assert jsonschema_rs.is_valid(part, text) == (text in taken)
        assert grammars.takes(grammar, json.dumps(text)) == (text in taken)


REFUSED = {
    "(?=a)b": "looks ahead or behind, or sets flags",
    "(?<!a)b": "looks ahead or behind",
    "(?i)a": "sets flags",
    r"\bword": "a word boundary",
    r"(a)\1": "a back reference",
    r"(?<n>a)\k<n>": "a back reference",
    r"\p{L}": "a property of Unicode",
    "a^b": r"\^ or \$ in its middle",
    "(a$)*b": r"\^ or \$ in its middle",
    r"\Aa\Z": r"\\A; write \^",
    "a++": "a repetition right behind another",
    "*a": r"nothing that \* repeats",
    "(a": r"a \( without its \)",
    "a)": r"a \) without its \(",
    "[a": r"a \[ without its \]",
    "[b-a]": "no characters in order",
    "a{3,1}": "at least 3 and at most 1 times",
    "a{2001}": "more than 2000 times",
    "(" * 60 + ")" * 60: "more than 50 parentheses",
    "a\\": "a backslash at its end",
    r"\q": "which ECMA-262 does not know",
    "[]": "has the pattern",
}


@pytest.mark.parametrize("pattern", REFUSED)
def test_a_pattern_that_a_grammar_cannot_hold(pattern: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[pattern]) as e:
        schema_grammar({"properties": {"a" * 500: {"type": "string", "pattern": pattern}}})
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"pattern": "a", "maxLength": 3}, "'maxLength' beside 'pattern'"),
        ({"pattern": "^a+b+$", "minLength": 3}, "'minLength' beside 'pattern'"),
        ({"pattern": "^a$", "format": "date"}, "'format' beside 'pattern'"),
        ({"pattern": "^a$", "minLength": 3}, "allows nothing"),
        ({"allOf": [{"pattern": "^a"}, {"pattern": "b$"}]}, "'pattern' twice"),
    ],
    ids=str,
)
def test_what_a_grammar_cannot_hold_beside_a_pattern(part: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        schema_grammar({"type": "string", **part})


@given(pattern=st.text(st.sampled_from(r"ab^$.*+?{}[]()|\-,:<>=!01dDwWsSbBuxckpP/") | st.characters(), max_size=8))
@settings(max_examples=examples(300), deadline=None)
def test_any_text_is_a_pattern_or_an_error(pattern: str) -> None:
    assume(not re.search("[\ud800-\udfff]", pattern))
    grammar, said = grammar_or_error(pattern)
    assert "root ::=" in grammar or "pattern" in said
    assert "\n" not in said
