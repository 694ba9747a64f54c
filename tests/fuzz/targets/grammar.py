"""Grammars (GBNF) and JSON schemas of whoever asks, as deep as an answer goes: parsed, looked at, and drawn by.

A mutant of a grammar gets repetitions, alternatives, groups, rules in a row, tokens and classes where they may stand,
so that most of them still parse; one of a schema gets keywords and values of other kinds.
"""

from __future__ import annotations

import functools
import json
import random
import re
from pathlib import Path
from typing import Any

from aim_local import GenerateConfig, LoadConfig, VisionLLM
from aim_local.native import sampler
from fuzz.damage import damage_bytes, damage_json

SUFFIXES = (".gbnf", ".schema.json")
MEMORY_MIB = 384  # a step of a grammar may take sampler.GRAMMAR_BYTES, and lists of lists several times that
SHORT = 40
_STEP_MS = 1000  # in place of GRAMMAR_MS: what is endless is so after this, too

_GRAMMARS = {
    "words": 'root ::= ("yes" | "no") ws\nws ::= [ \\t\\n]*',
    "list": 'root ::= item ("," item){0,9}\nitem ::= [a-z]+ | "\\"" [^"\\\\]* "\\""',
    "sum": 'root ::= term (("+" | "-") term)*\nterm ::= num | "(" root ")"\nnum ::= [0-9]{1,3}',
    "tokens": 'root ::= <[11]> | "yes" | !<[3]> !<[4]>',
    "chain": "root ::= a\n" + "\n".join(f'{a} ::= {b} | {b} "{a}"' for a, b in zip("abcdef", "bcdefg", strict=True))
    + '\ng ::= "z" | ""',
}  # fmt: skip
_SCHEMAS: dict[str, Any] = {
    "any": {},
    "object": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 30}, "b": {}},
               "required": ["a"], "additionalProperties": False},
    "array": {"type": "array", "items": {"enum": ["x", 1, None]}, "minItems": 1, "maxItems": 4},
    "text": {"type": "string", "minLength": 1, "maxLength": 5},
    "pattern": {"type": "string", "pattern": "^[a-c]{1,3}(-[0-9]+)?$"},
    "ways": {"$defs": {"n": {"type": "number"}}, "anyOf": [{"$ref": "#/$defs/n"}, {"const": "no"}, {"type": "null"}]},
}  # fmt: skip
_PARTS = ('"a"', '"no"', '""', "[a-z]", "[^x]", "[]", ".", "<[3]>", "!<[3]>", '("a" | )', '("x"? "y"?)', "root", "ws",
          "item", "b", '"\\x00"', '"é"', '"\\U0001F600"', "# c\n")  # fmt: skip
_TIMES = (
    "*",
    "+",
    "?",
    "{2}",
    "{0,3}",
    "{3,}",
    "{0}",
    "{0,0}",
    "{5,3}",
    "{200}",
    "{2000}",
    "{0,1999}",
    "{99999999999999999999}",
)
_PLACE = re.compile(r"(?<=[\w\]\")}*+?>]) |(?<=::=) ")  # behind a part


def seeds(folder: Path) -> list[Path]:
    texts = {f"{name}.gbnf": text for name, text in _GRAMMARS.items()}
    texts |= {f"{name}.schema.json": json.dumps(schema) for name, schema in _SCHEMAS.items()}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def mutate(data: bytes, rng: random.Random) -> bytes:
    if data.lstrip()[:1] in (b"{", b"["):
        return damage_json(data, rng)
    text = data.decode("utf-8", "replace")
    places = [found.start() for found in _PLACE.finditer(text)]
    if not places or rng.random() < 0.05:
        return damage_bytes(data, rng)
    at = rng.choice(places)
    match rng.randrange(8):
        case 0:
            text = text[:at] + rng.choice(_TIMES) + text[at:]
        case 1:
            text = f"{text[:at]} {rng.choice(_PARTS)}{text[at:]}"
        case 2:
            text = f"{text[:at]} | {rng.choice(_PARTS)}{text[at:]}"
        case 3:
            text = f"{text[:at]} ({rng.choice(_PARTS)} {rng.choice(_PARTS)}){rng.choice(_TIMES)}{text[at:]}"
        case 4:
            text += f"\n{rng.choice('abcdefg')} ::= {rng.choice(_PARTS)} | {rng.choice(_PARTS)} {rng.choice('abcdefg')}"
        case 5:
            text = _repeated(text, rng)
        case 6:
            text = text.replace(rng.choice(_PARTS), rng.choice(_PARTS))
        case _:
            text = text[:at] + text[rng.choice(places) :]
    return text.encode("utf-8", "surrogatepass")


def _repeated(text: str, rng: random.Random) -> str:
    """A rule as a row of rules, each of which begins with the next one."""
    n, how = rng.choice((3, 12, 30, 5000)), rng.choice(('{} "x"', "{} | {}", '{} | {} "x"', '"" | {}', "{} {}"))
    rules = [f"q{i} ::= {how.replace('{}', f'q{i + 1}')}" for i in range(n)]
    return f"{text} | q0\n" + "\n".join(rules) + f'\nq{n} ::= "z" | ""'


@functools.cache
def _model() -> VisionLLM:
    sampler.GRAMMAR_MS = _STEP_MS
    return VisionLLM.load(config=LoadConfig(n_threads=1))


def read(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    if path.suffix == ".gbnf":
        _answered(grammar=text)
        return
    answer = _answered(json_schema=_schema(text))
    if answer is not None:
        json.loads(answer)


def _schema(text: str) -> Any:
    from aim_local.errors import UsageError

    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UsageError("no JSON") from e
    if found is None:  # asks for no schema
        raise UsageError("null")
    return found


def _answered(**form: Any) -> str | None:
    """None where the answer was cut at its most tokens."""
    with _model().chat() as chat:
        answer = chat.ask("Yes?", generate=GenerateConfig(max_tokens=8, temperature=1.0, seed=1, **form))
        return answer.text if answer.stats.stop_reason == "eos" else None
