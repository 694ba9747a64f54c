"""The rules (GBNF) that grammars of JSON share: values of any kind, white space, dates and numbers.

As llama.cpp's own converter has them (common/json-schema-to-grammar.cpp), but for what is no JSON or no day: halves of
surrogate pairs, bytes that are no UTF-8, exponents beyond a double, the 31st of November.
"""

from __future__ import annotations

import json
import re

from .text_rules import gbnf_literal

_HEX = "[0-9a-fA-F]"
_PAIR = rf'[89abAB] {_HEX}{{2}} "\\u" [dD] [c-fC-F] {_HEX}{{2}}'
_FOURTH = '"0" [48] | [2468] [048] | [13579] [26]'
_HOUR = '[01] [0-9] | "2" [0-3]'
_RULES = {
    "space": r'| " " | "\n"{1,2} [ \t]{0,20}',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" space ( string ":" space value ("," space string ":" space value)* )? space "}"',
    "array": '"[" space ( value ("," space value)* )? space "]"',
    "string": r'"\"" char* "\""',
    # not as "all but": llama.cpp would take bytes that are no UTF-8 for such characters
    "char": r'[ !#-\[\]-~\x80-\uD7FF\uE000-\U0010FFFF] | [\\] (["\\bfnrt] | "u" code)',
    # one character: half of a surrogate pair alone is none
    "code": rf"[0-9a-cA-CefEF] {_HEX}{{3}} | [dD] ([0-7] {_HEX}{{2}} | {_PAIR})",
    "number": '("-"? integral-part) ("." decimal-part)? ([eE] [-+]? exponent)?',
    "integer": '("-"? integral-part)',
    "integral-part": "[0] | [1-9] [0-9]{0,15}",
    "decimal-part": "[0-9]{1,16}",
    "exponent": '[0] | [1-9] [0-9]? | "1" [0-9]{2} | "2" [0-8] [0-9]',  # a double holds it behind 16 digits
    "boolean": '("true" | "false")',
    "null": '"null"',
    "uuid": " ".join([r'"\""', f"{_HEX}{{8}}", *[f'"-" {_HEX}{{4}}'] * 3, f'"-" {_HEX}{{12}}', r'"\""']),
    "date": 'year "-" month-day | leap-year "-02-29"',
    "year": '[1-9] [0-9]{3} | "0" ([1-9] [0-9]{2} | "0" ([1-9] [0-9] | "0" [1-9]))',
    "month-day": '("0" [13578] | "1" [02]) "-" (day | "29" | "30" | "31") | ("0" [469] | "11") "-" (day | "29" | "30") '
    '| "02-" day',
    "day": '"0" [1-9] | "1" [0-9] | "2" [0-8]',
    "leap-year": f'[0-9]{{2}} ({_FOURTH}) | ({_FOURTH}) "00"',
    "time": f'({_HOUR}) ":" [0-5] [0-9] ":" [0-5] [0-9] ( "." [0-9]{{3}} )? '
    f'( "Z" | ( "+" | "-" ) ( {_HOUR} ) ":" [0-5] [0-9] )',
    "date-string": r'"\"" date "\""',
    "time-string": r'"\"" time "\""',
    "date-time-string": r'"\"" date "T" time "\""',
}


def with_shared(rules: dict[str, str]) -> dict[str, str]:
    """The rules, and those of this file that they name."""
    result, new = dict(rules), list(rules.values())
    while new:
        words = {word for body in new for word in re.findall(r"[a-z-]+", body)} & (_RULES.keys() - result.keys())
        result |= {word: _RULES[word] for word in sorted(words)}
        new = [_RULES[word] for word in words]
    return result


def constant(value: object) -> str:
    """The literal that is this value."""
    return gbnf_literal(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
