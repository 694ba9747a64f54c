"""Grammars with more ways to go on than can be counted or held: whoever asks is told, and the model goes on at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.errors import CancelledError, UsageError
from aim_local.native import sampler


def chain(n: int, *ways: str) -> str:
    """n rules, each of which may begin with the next one in these ways."""
    rules = [f"r{i} ::= " + " | ".join(way.format(f"r{i + 1}") for way in ways) for i in range(n)]
    return "\n".join(["root ::= r0", *rules, f'r{n} ::= "y"'])


ENDLESS = {
    "each rule in two ways": chain(16, "{}", '{} "x"'),
    "each rule in three ways": chain(10, "{}", '{} "x"', '{} "z"'),
    "each rule before one of two": chain(15, '{} "x"*', '{} ("b" | "c")'),
}
TOO_LARGE = {
    "a rule behind one that may be empty": 'root ::= a\na ::= b a "x" | "y"\nb ::= c\nc ::= "z" | ""',
    "three rules in a circle": 'root ::= a\na ::= n b "1"\nb ::= n c "2"\nc ::= n a "3"\nn ::= m\nm ::= "" | "z"',
    "every way twice as long": 'root ::= e root e e | "y"\ne ::= f\nf ::= ""',
}
REFUSED = {
    "a deep chain": (chain(20_000, '{} "x"'), "too many rules that begin with rules"),
    "a chain of twos": (chain(40, "{}", '{} "x"'), "too many rules that begin with rules"),
    "a chain of threes": (chain(30, "{}", '{} "x"', '{} "z"'), "too many rules that begin with rules"),
    "a long text, repeated": (
        'root ::= "' + "a" * 100_000 + '"{2000}',
        "200004000 characters long; give at most 1048576",
    ),
    "a long class, repeated": ("root ::= [" + "ab-" * 30_000 + "]{9,1999}", "characters long"),
    "many repetitions": ("root ::= " + '"a"{2000} ' * 1000, "6000000 characters long"),
    "repetitions of repetitions": ("root ::= " + '"aaaaaaa"{40}{50} ' * 100, "characters long"),
    "fewer than it asks for": ('root ::= "a"{5,3}', r"at least 5 and at most 3 times: \{5,3\}"),
    "fewer, with spaces": ('root ::= ("a" "b"){ 20 , 1 }', "at least 20 and at most 1"),
    "none of some": ("root ::= [a-z]{1,0}", "at least 1 and at most 0"),
    "itself first": ('root ::= root "a" | "a"', "left recursion: rule root may begin with itself"),
    "itself behind another": ('root ::= a\na ::= b "x"\nb ::= a "y" | "z"', "left recursion: rule"),
    "itself behind what may be empty": ('root ::= "" | e root "a"\ne ::= "" | "b"', "left recursion: rule root"),
    "no rule root": ('start ::= "a"', "has no rule root"),
    "a rule that is missing": ('root ::= "a" b', "does not parse: .*Undefined rule identifier 'b'"),
    "nothing": ("root ::= ", "the empty text alone"),
    "an empty text": ('root ::= "" | ""', "the empty text alone"),
    "rules of nothing": ('root ::= a b\na ::= "" | b b\nb ::= ""', "the empty text alone"),
    "a class of nothing": ("root ::= []", "the empty text alone"),
}
USED = {
    "optional parts": ("root ::= " + '("a"?)' * 30, ""),
    "stars of stars": ('root ::= (((("a"*)*)*)*)*', ""),
    "a chain": (chain(1000, '{} "x"'), "yxxxxxxx"),
    "signs that look like repetitions": ('root ::= "{5,3}" # {9,2} "', "{5,3}"),
    "words behind white space": ('root ::= ws "no"\nws ::= [ \\t]{0,0} | ""', "no"),
    "a class with all brackets": ('root ::= [{}()\\]"#] "n"', None),
}


@pytest.fixture(scope="module")
def demo() -> Iterator[VisionLLM]:
    with VisionLLM.load(config=LoadConfig(cache_media=False, n_threads=1)) as llm:
        yield llm


def ask(llm: VisionLLM, grammar: str = "", **options: object) -> str:
    with llm.chat() as chat:
        return chat.ask("Yes?", generate=GenerateConfig(grammar=grammar, max_tokens=8), **options).text


@pytest.mark.parametrize("name", ENDLESS)
def test_a_grammar_that_takes_too_long_is_refused_and_the_next_one_works(
    demo: VisionLLM, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "GRAMMAR_MS", 300)
    with pytest.raises(UsageError, match=r"^the grammar has more ways to go on than can be tried in 0\.3 s; write it "):
        ask(demo, ENDLESS[name])
    assert ask(demo, 'root ::= "no"') == "no"


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_grammar_that_takes_too_much_memory_is_refused(demo: VisionLLM, name: str) -> None:
    with pytest.raises(
        UsageError, match=r"^the grammar has more ways to go on than fit in 64 MiB; write it with fewer"
    ):
        ask(demo, TOO_LARGE[name])
    assert ask(demo, 'root ::= "no"') == "no"


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_not_come_to_an_end_with_is_refused(demo: VisionLLM, name: str) -> None:
    grammar, why = REFUSED[name]
    with pytest.raises(UsageError, match=f"^the grammar('s repetitions)? .*{why}") as raised:
        ask(demo, grammar)
    assert len(str(raised.value)) < 500
    assert ask(demo, 'root ::= "no"') == "no"


@pytest.mark.parametrize("grammar", ["root ::= . !<[3]>{3,}", "root ::= [^x] !<[5]>", "root ::= [a-z] !<[9]> !<[9]>"])
def test_tokens_that_begin_inside_of_another(demo: VisionLLM, grammar: str) -> None:
    """llama.cpp allows a text there that it does not accept then."""
    with pytest.raises(UsageError, match=r"cannot follow the grammar: .*; write it without tokens"):
        ask(demo, grammar)
    assert ask(demo, 'root ::= "no"') == "no"


@pytest.mark.parametrize("name", USED)
def test_grammars_that_only_look_so_are_used(demo: VisionLLM, name: str) -> None:
    grammar, answer = USED[name]
    text = ask(demo, grammar)
    assert text == answer if answer is not None else text[1:] == "n"


@pytest.mark.parametrize("error", [CancelledError, KeyboardInterrupt])
def test_a_wish_to_stop_is_heard_meanwhile(demo: VisionLLM, error: type[BaseException]) -> None:
    begin = time.monotonic()
    with pytest.raises(error):
        ask(demo, ENDLESS["each rule in two ways"], should_stop=after(0.2, error))
    assert time.monotonic() - begin < sampler.GRAMMAR_MS / 2000
    assert ask(demo, 'root ::= "no"') == "no"


def after(seconds: float, error: type[BaseException]) -> Callable[[], bool]:
    until = time.monotonic() + seconds

    def should_stop() -> bool:
        if time.monotonic() < until:
            return False
        if error is KeyboardInterrupt:
            raise KeyboardInterrupt
        return True

    return should_stop
