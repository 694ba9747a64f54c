"""The rules (GBNF) of the JSON that a schema allows: one for each schema in it, until all that they name are written.

White space, the order of properties (required ones first) and how numbers look are those of llama.cpp's own converter
(common/json-schema-to-grammar.cpp), whose faults made this one: rules whose names are the same after cleaning, patterns
and names that are no JSON in the answer, keywords that it drops.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from ..errors import UsageError
from .digits import decimal_numbers, whole_numbers
from .json_rules import constant, with_shared
from .json_text import simplified, within
from .pattern import PatternError, pattern_text
from .schema_apart import check_apart, is_possible
from .schema_kinds import OF_KIND, Part, beside, kinds_of, values_of
from .schema_merge import merged
from .schema_refs import Document, Schema
from .schema_sense import FORMATS, NothingError, brief, check_sense, integer_bounds, nothing, number_bounds, shown
from .text_rules import TextRules, times

MAX_RULES = 10_000


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
        return with_shared(self._rules | self._texts.rules)

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
            check_apart(self._document, group, path)
        if "anyOf" in part:
            ways = self._ways(part, path)
            self._begins[name] = ways, path
            return " | ".join(ways)
        if "enum" in part:
            return f"({' | '.join(map(constant, values_of(part, path)))})"
        kinds = kinds_of(part)
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
            if is_possible(self._document, schema, path):
                found.append(self._rule(schema, f"{path}.anyOf[{i}]"))
        if not found:
            raise nothing(path, "none of its anyOf is possible")
        return found

    def _typed(self, kind: str, part: Part, path: str) -> str:
        own = {key: part[key] for key in OF_KIND[kind] if key in part}
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
            return _number(own, path)
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
                raise beside("minLength" if least else "maxLength", "pattern", path)
            text = simplified(inside)
        if text is None:
            raise nothing(path, f"no text of the length has the pattern {brief(pattern)}")
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
                pairs[name] = f'{constant(name)} space ":" space {self._rule(schema, f"{path}.properties.{name}")}'
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


def _format(part: Part, least: int, most: float | None, path: str) -> str:
    low, high = FORMATS[part["format"]]
    if "pattern" in part:
        raise beside("format", "pattern", path)
    if (most is not None and low > most) or high < least:
        raise nothing(path, f"{part['format']!r} has {low} to {high} characters")
    if least > low or (most is not None and most < high):
        raise beside("minLength" if least > low else "maxLength", "format", path)
    return "uuid" if part["format"].startswith("uuid") else f"{part['format']}-string"


def _number(part: Part, path: str) -> str:
    low, high = number_bounds(part)
    ways = decimal_numbers(low, high)
    if ways is None and low and high and low[0] >= high[0]:
        raise nothing(path, f"no number is within {low[0]} and {high[0]}")
    if ways is None:
        raise UsageError(
            f"the JSON schema has bounds at {shown(path)} that no number of a few digits is within; give wider ones"
        )
    return f"({ways})"
