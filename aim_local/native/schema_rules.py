"""The rules (GBNF) of the JSON that a schema allows: one for each schema in it, until all that they name are written.

White space, the order of properties (required ones first) and how numbers look are those of llama.cpp's own converter
(common/json-schema-to-grammar.cpp), whose faults made this one: rules whose names are the same after cleaning, patterns
and names that are no JSON in the answer, keywords that it drops.
"""

from __future__ import annotations

import json
import re
from collections import deque
from itertools import combinations
from typing import Any

from ..errors import UsageError
from .digits import whole_numbers
from .json_text import TextRules, gbnf_literal, simplified, times, within
from .pattern import PatternError, pattern_text
from .schema_merge import Part, merged
from .schema_refs import Document, Schema
from .schema_sense import BOUNDS, FORMATS, NothingError, brief, check_sense, integer_bounds, nothing, shown

MAX_RULES, MAX_APART = 10_000, 64
_HEX = "[0-9a-fA-F]"
_PAIR = rf'[89abAB] {_HEX}{{2}} "\\u" [dD] [c-fC-F] {_HEX}{{2}}'
_DAY = '"0" [1-9] | [1-2] [0-9] | "3" [0-1]'
_HOUR = '[01] [0-9] | "2" [0-3]'
_BUILT_IN = {
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
    "date": f'[0-9]{{4}} "-" ( "0" [1-9] | "1" [0-2] ) "-" ( {_DAY} )',
    "time": f'({_HOUR}) ":" [0-5] [0-9] ":" [0-5] [0-9] ( "." [0-9]{{3}} )? '
    f'( "Z" | ( "+" | "-" ) ( {_HOUR} ) ":" [0-5] [0-9] )',
    "date-string": r'"\"" date "\""',
    "time-string": r'"\"" time "\""',
    "date-time-string": r'"\"" date "T" time "\""',
}
_OF_KIND = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "integer": BOUNDS,
    "number": BOUNDS,
    "boolean": (),
    "null": (),
}


def schema_rules(document: Document, root: dict[str, Any]) -> dict[str, str]:
    """The body of each rule by its name. Raises UsageError for what allows nothing, or what a grammar cannot hold."""
    return _Rules(document).all(root)


class _Rules:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._names: dict[str, str] = {}  # of the rules that schemas have, by the schemas' JSON
        self._todo: deque[tuple[str, Schema, str]] = deque()
        self._begins: dict[str, tuple[list[str], str]] = {}  # what a rule is one of, and where
        self._rules: dict[str, str] = {}
        self._texts = TextRules("part")

    def all(self, root: dict[str, Any]) -> dict[str, str]:
        self._rule(root, "$")
        while self._todo:
            name, schema, path = self._todo.popleft()
            self._rules[name] = self._body(name, schema, path)
            if len(self._names) > MAX_RULES:
                raise UsageError(f"the JSON schema makes more than {MAX_RULES} rules of a grammar; give a smaller one")
        self._check_circles()
        rules = self._rules | self._texts.rules
        new = list(rules.values())
        while new:
            words = {word for body in new for word in re.findall(r"[a-z-]+", body)} & (_BUILT_IN.keys() - rules.keys())
            rules |= {word: _BUILT_IN[word] for word in sorted(words)}
            new = [_BUILT_IN[word] for word in words]
        return rules

    def _rule(self, schema: Schema, path: str) -> str:
        """The name of a schema's rule."""
        key = json.dumps(schema)
        if key not in self._names:
            self._names[key] = f"r{len(self._names)}" if self._names else "root"
            self._todo.append((self._names[key], schema, path))
        return self._names[key]

    def _add(self, body: str) -> str:
        return self._texts.add(body)

    def _body(self, name: str, schema: Schema, path: str) -> str:
        part = merged(self._document, schema, path)
        for group in part.pop("apart", ()):
            self._check_apart(group, path)
        if "anyOf" in part:
            ways = self._ways(part, path)
            self._begins[name] = ways, path
            return " | ".join(ways)
        if "enum" in part:
            return f"({' | '.join(map(_constant, _values(part, path)))})"
        kinds = part.get("type") or _kinds(part)
        found, last = [], None
        for kind in kinds:
            try:
                found.append(self._typed(kind, part, path))
            except NothingError as e:
                last = e
        if last and not found:
            raise last
        return " | ".join(found) if kinds else "value"

    def _ways(self, part: Part, path: str) -> list[str]:
        rest, found = {key: value for key, value in part.items() if key != "anyOf"}, []
        for i, way in enumerate(part["anyOf"]):
            schema: Schema = {"allOf": [way, rest]} if rest else way
            if self._is_possible(schema, path):
                found.append(self._rule(schema, f"{path}.anyOf[{i}]"))
        if not found:
            raise nothing(path, "none of its anyOf is possible")
        return found

    def _check_apart(self, ways: list[Schema], path: str) -> None:
        """Raises UsageError for a oneOf where an answer that one way allows could be allowed by another one, too."""
        parts = []
        for way in ways[: MAX_APART + 1]:
            try:
                parts.append(merged(self._document, way, path))
            except NothingError:
                continue
        for part in parts:
            part.pop("apart", None)
        for one, other in combinations(parts, 2):
            if any(self._is_possible({"allOf": pair}, path) for pair in ([_closed(one), other], [one, _closed(other)])):
                raise UsageError(
                    f"the JSON schema has 'oneOf' at {shown(path)}, of which an answer may be more than one, and a "
                    "grammar cannot hold that; write anyOf"
                )
        if len(ways) > MAX_APART:
            raise UsageError(f"the JSON schema has a 'oneOf' of more than {MAX_APART} at {shown(path)}; write anyOf")

    def _is_possible(self, schema: Schema, path: str, depth: int = 3) -> bool:
        """Whether something is allowed, as far as types, enums, bounds and required properties say."""
        try:
            part = merged(self._document, schema, path)
            _check_possible(part, path)
        except NothingError:
            return False
        if depth == 0:
            return True
        if "anyOf" in part:
            rest = {key: value for key, value in part.items() if key not in ("anyOf", "apart")}
            return any(self._is_possible({"allOf": [way, rest]}, path, depth - 1) for way in part["anyOf"])
        if (part.get("type") or _kinds(part)) != ["object"]:
            return True
        known, other = part.get("properties", {}), part.get("additionalProperties", True)
        return all(self._is_possible(known.get(name, other), path, depth - 1) for name in part.get("required", ()))

    def _typed(self, kind: str, part: Part, path: str) -> str:
        own = {key: part[key] for key in _OF_KIND[kind] if key in part}
        check_sense({**own, "type": [kind]}, path)
        if kind == "object":
            return self._object(own, path)
        if kind == "array":
            return self._array(own, path)
        if kind == "string":
            return self._string(own, path)
        if not own:
            return kind
        if kind == "number":
            raise _unheld(next(iter(own)), path)
        return f"({whole_numbers(*integer_bounds(own))})"

    def _string(self, part: Part, path: str) -> str:
        least, most = int(part.get("minLength", 0)), part.get("maxLength")
        if "format" in part:
            return _format(part, least, most, path)
        if "pattern" in part:
            return self._pattern(part["pattern"], least, None if most is None else int(most), path)
        if not least and most is None:
            return "string"
        return rf'"\"" char{times(least, None if most is None else int(most))} "\""'

    def _pattern(self, pattern: str, least: int, most: int | None, path: str) -> str:
        try:
            text = simplified(pattern_text(pattern))
        except PatternError as e:
            raise UsageError(
                f"the JSON schema has the pattern {brief(pattern)} at {shown(path)}, with {e}, and a grammar cannot "
                "hold that; change it"
            ) from e
        if text and (least or most is not None):
            inside = within(text, least, most)
            if inside is None:
                raise _beside("minLength" if least else "maxLength", "pattern", path)
            text = simplified(inside)
        if text is None:
            raise nothing(path, f"no text has the pattern {brief(pattern)} and the length")
        return self._texts.string(text)

    def _array(self, part: Part, path: str) -> str:
        items: Schema = part.get("items", True)
        first = part.get("prefixItems", [])
        least, most = int(part.get("minItems", 0)), int(part["maxItems"]) if "maxItems" in part else None
        if not first and items is True and not least and most is None:
            return "array"
        if first and "minItems" not in part:
            least = len(first) if most is None else min(len(first), most)
        if items is False or (first and "items" not in part and least <= len(first)):
            most = len(first) if most is None else min(len(first), most)
        if most is not None and least > most:
            raise nothing(path, f"it has at least {least} and at most {most} items")
        rules = [self._rule(item, f"{path}.prefixItems[{i}]") for i, item in enumerate(first[:most])]
        return f'"[" space {self._items(rules, items, least, most, path)} space "]"'

    def _items(self, first: list[str], items: Schema, least: int, most: int | None, path: str) -> str:
        """Those in front with a rule for each, and others behind them."""
        n, tail = len(first), ""
        if most is None or most > n:
            other = self._rule(items, f"{path}.items")
            if n:
                tail = f'("," space {other}){times(max(least - n, 0), None if most is None else most - n)}'
            else:
                more = times(max(least - 1, 0), None if most is None else most - 1) if most != 1 else ""
                tail = f'{other} ("," space {other}){more}' if more else other
                return tail if least else f"({tail})?"
        for i in range(n - 1, -1, -1):
            tail = f"{chr(34)},{chr(34)} space {first[i]} {tail}" if i else f"{first[0]} {tail}"
            if i >= least:
                tail = self._add(tail) + "?"
        return tail

    def _object(self, part: Part, path: str) -> str:
        required, other = part.get("required", []), part.get("additionalProperties", True)
        known = part.get("properties", {}) | {
            name: other for name in required if name not in part.get("properties", {})
        }
        other = part.get("additionalProperties", "properties" not in part)
        if other is True and not known:
            return "object"
        pairs = {}
        for name, schema in known.items():
            if schema is not False:
                pairs[name] = f'{_constant(name)} space ":" space {self._rule(schema, f"{path}.properties.{name}")}'
            elif name in required:
                raise nothing(path, f"the property {brief(name)} is required, and false")
        fixed = [pair for name, pair in pairs.items() if name in required]
        free = [self._add(pair) for name, pair in pairs.items() if name not in required]
        if other is not False:
            key = self._add(self._texts.other_than(known)) if known else "string"
            free.append(self._add(f'{key} ":" space {self._rule(other, f"{path}.additionalProperties")}'))
        inner = ' "," space '.join(fixed)
        if free:
            some = self._some(free, is_last_repeated=other is not False)
            inner += f' ( "," space ( {some} ) )?' if fixed else f"({some})?"
        return f'"{{" space {inner} space "}}"' if inner else '"{" space "}"'

    def _some(self, pairs: list[str], is_last_repeated: bool) -> str:
        """One or more of them, in their order."""
        ways, rest = list[str](), ""
        for i, pair in reversed(list(enumerate(pairs))):
            is_many = is_last_repeated and i == len(pairs) - 1
            again = f'( "," space {pair} )'
            ways.insert(0, " ".join([pair, *([f"{again}*"] if is_many else []), *([rest] if rest else [])]))
            rest = self._add(f"{again}{'*' if is_many else '?'} {rest}".rstrip()) if i else ""
        return " | ".join(ways)

    def _check_circles(self) -> None:
        """Schemas that are one of themselves."""
        done: set[str] = set()
        for start in self._begins:
            way = [(start, iter(self._begins[start][0]))] if start not in done else []
            open_ones = {start}
            while way:
                name, below = way[-1]
                inner = next(below, None)
                if inner is None:
                    way.pop()
                    open_ones.discard(name)
                    done.add(name)
                elif inner in open_ones:
                    raise UsageError(
                        f"the JSON schema may be itself at {shown(self._begins[inner][1])}, by references without an "
                        "object or array between; change them"
                    )
                elif inner in self._begins and inner not in done:
                    way.append((inner, iter(self._begins[inner][0])))
                    open_ones.add(inner)


def _check_possible(part: Part, path: str) -> None:
    if "enum" in part:
        _values(part, path)
    elif len(part.get("type", ())) == 1:
        check_sense({key: part[key] for key in ("type", *_OF_KIND[part["type"][0]]) if key in part}, path)


def _closed(part: Part) -> Part:
    """As its answers are written: without properties of which it does not speak."""
    return {"additionalProperties": False, **part} if "properties" in part else part


def _kinds(part: Part) -> list[str]:
    """What a schema without a type speaks of; anything, if of nothing."""
    if "properties" in part or part.get("additionalProperties", True) is not True or part.get("required"):
        return ["object"]
    for kind in ("array", "string"):
        if any(key in part for key in _OF_KIND[kind]):
            return [kind]
    if any(key in part for key in BOUNDS):
        return ["number"]
    return []


def _format(part: Part, least: int, most: float | None, path: str) -> str:
    low, high = FORMATS[part["format"]]
    if "pattern" in part:
        raise _beside("format", "pattern", path)
    if (most is not None and low > most) or high < least:
        raise nothing(path, f"{part['format']!r} has {low} to {high} characters")
    if least > low or (most is not None and most < high):
        raise _beside("minLength" if least > low else "maxLength", "format", path)
    return "uuid" if part["format"].startswith("uuid") else f"{part['format']}-string"


def _constant(value: object) -> str:
    return gbnf_literal(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _values(part: Part, path: str) -> list[Any]:
    """Those of an enum that the keywords beside it allow."""
    values = []
    for value in part["enum"]:
        kind = next(kind for kind, of_kind in _PYTHON.items() if isinstance(value, of_kind))
        beside = [key for key in _OF_KIND[kind] if key in part and key != "format"]
        if (beside and kind not in ("string", "number")) or "pattern" in beside:
            raise _beside(beside[0], "enum", path)
        if kind == "string" and not part.get("minLength", 0) <= len(value) <= part.get("maxLength", len(value)):
            continue
        if kind == "number" and not _is_within(value, part):
            continue
        values.append(value)
    if not values:
        raise nothing(path, "no value of its enum is within its bounds")
    return values


_PYTHON: dict[str, Any] = {
    "boolean": bool, "number": (int, float), "string": str, "null": type(None), "array": list, "object": dict,
}  # fmt: skip


def _is_within(value: float, part: Part) -> bool:
    return (
        part.get("minimum", value) <= value <= part.get("maximum", value)
        and ("exclusiveMinimum" not in part or part["exclusiveMinimum"] < value)
        and ("exclusiveMaximum" not in part or value < part["exclusiveMaximum"])
    )


def _beside(key: str, other: str, path: str) -> UsageError:
    return UsageError(
        f"the JSON schema has {key!r} beside {other!r} at {shown(path)}, and a grammar holds one of them; leave one out"
    )


def _unheld(key: str, path: str) -> UsageError:
    return UsageError(
        f"the JSON schema has {key!r} at {shown(path)}, which a grammar cannot hold of numbers that are not whole; "
        "leave it out, or give the type integer"
    )
