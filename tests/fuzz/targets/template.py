"""Chat templates: programs of strangers. Read as deep as a chat does: every form of conversation that it writes.

Seeds are templates of our own making, in the way of each family. A mutant is such a template with statements,
expressions, filters, operators, numbers and names that Jinja has, put where they may stand.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from aim_local.errors import ModelError
from aim_local.models.prompt import ChatTemplate, MediaKind, Message, split_marks

SUFFIXES = (".jinja",)
MEMORY_MIB = 64  # of this process: a template has its own

NUMBERS = ("0", "-1", "1", "7", "99999", "10**9", "9**9", "10**400", "2**63", "1e308", "1e-320", "0x7fffffff", "true")
STRINGS = ("''", "'a'", "'a b\\n'", "'%0999999d'", "'{:>99999999}'", "'\\x00'", "'\\x000\\x00'", "'\\x010\\x01'",
           "'\\ud800'", "'<image>'", "'<video>'", "'<|im_end|>'", "'\u202e'", "'\\x1b[31m'")  # fmt: skip
NAMES = ("messages", "messages[0]", "messages[-1].content", "m", "m.content", "m['role']", "loop", "loop.index",
         "loop.previtem", "ns.x", "bos_token", "eos_token", "add_generation_prompt", "nothing", "self", "cycler(1, 2)",
         "joiner()", "namespace(x=1)", "range(9)", "range(99999)", "dict(a=1)", "[]", "{}", "()")  # fmt: skip
FILTERS = ("abs", "attr('x')", "batch(N)", "capitalize", "center(N)", "default(E)", "dictsort", "escape",
           "filesizeformat", "first", "float", "forceescape", "format(E)", "groupby('role')", "indent(N)", "int",
           "items", "join(E)", "last", "length", "list", "lower", "map('string')", "map(attribute='role')", "max",
           "min", "pprint", "random", "reject('odd')", "replace('a',E)", "reverse", "round(N)", "safe", "select",
           "selectattr('role')", "slice(N)", "sort", "string", "striptags", "sum(start=E)", "title", "tojson",
           "tojson(indent=N)", "trim", "truncate(N)", "unique", "upper", "urlencode", "urlize", "wordcount",
           "wordwrap(N)", "xmlattr")  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "or", "is", "if true else")
TESTS = ("defined", "string", "mapping", "iterable", "divisibleby(N)", "sameas(E)", "none", "in E")
METHODS = (".upper()", ".split()", ".format(E)", ".join(E)", ".zfill(N)", ".ljust(N)", ".items()", ".append(E)",
           ".__class__", ".encode()", "[N]", "[::N]", "[E]", ".x.y.z", ".replace('', E)", ".expandtabs(N)")  # fmt: skip
STATEMENTS = (
    "{% for i in E %}B{% endfor %}",
    "{% for i in range(N) %}B{% endfor %}",
    "{% for m in messages recursive %}B{{ loop(messages) }}{% endfor %}",
    "{% for i in E if E %}B{% else %}B{% endfor %}",
    "{% if E %}B{% elif E %}B{% endif %}",
    "{% set ns = namespace(x=E) %}{% for i in range(N) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}B",
    "{% set ns = namespace(x=E) %}{% set ns.x = ns.x + E %}B",
    "{% set x = E %}B",
    "{% set x %}B{% endset %}{{ x * N }}",
    "{% macro f(n) %}{{ f(E) }}B{% endmacro %}{{ f(N) }}",
    "{% call(x) f(E) %}B{% endcall %}",
    "{% filter F %}B{% endfilter %}",
    "{% with x = E %}B{% endwith %}",
    "{% block b %}B{{ self.b() }}{% endblock %}",
    "{% include E %}",
    "{% import E as y %}",
    "{% extends E %}",
    "{% raw %}B{% endraw %}",
    "{% break %}{% continue %}",
    "{{ raise_exception(E) }}",
    "{# B #}",
)
SEEDS = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "parts": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}"
    "{{ m['content'] | trim }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% elif c['type'] == 'video' %}<video>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}",
    "macro": "{% macro parts(c) %}{% if c is string %}{{ c }}{% else %}{% for p in c if p.type in ('image', 'video') %}"
    "<{{ p.type }}>{% endfor %}{% for p in c if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}{% endmacro %}"
    "{% for m in messages %}{{ m.role | upper + ': ' + parts(m.content) + eos_token }}{% endfor %}",
    "namespace": "{{ bos_token }}{% set ns = namespace(head='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.head = m.content if m.content is string else m.content[0].text %}{% else %}[INST] {{ ns.head }}"
    "{% set ns.head = '' %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{{ c.text if c.type == 'text' else '<' ~ c.type ~ '>' }}{% endfor %}{% endif %} [/INST]{% endif %}{% endfor %}",
}


def seeds(folder: Path) -> list[Path]:
    found = []
    for name, source in SEEDS.items():
        path = folder / f"{name}.jinja"
        path.write_text(source, encoding="utf-8")
        found.append(path)
    return found


# --- mutants ---------------------------------------------------------------------------------------------------------


def expression(rng: random.Random, depth: int = 0) -> str:
    kind = rng.randrange(8) if depth < 4 else rng.randrange(3)
    if kind < 3:
        return rng.choice((NUMBERS, STRINGS, NAMES)[kind])
    inner = expression(rng, depth + 1)
    if kind == 3:
        return f"({inner} {rng.choice(OPERATORS)} {expression(rng, depth + 1)})"
    if kind == 4:
        return f"({inner} | {filled(rng.choice(FILTERS), rng, depth + 1)})"
    if kind == 5:
        return f"({inner} is {filled(rng.choice(TESTS), rng, depth + 1)})"
    if kind == 6:
        return inner + filled(rng.choice(METHODS), rng, depth + 1)
    return f"[{inner}, {expression(rng, depth + 1)}]"


def filled(text: str, rng: random.Random, depth: int = 0) -> str:
    """A pattern with its capitals filled: E an expression, N a number, F a filter, B a body."""
    fill: dict[str, Callable[[], str]] = {
        "E": lambda: expression(rng, depth + 1),
        "N": lambda: rng.choice(NUMBERS),
        "F": lambda: rng.choice([f for f in FILTERS if f.islower()]),
        "B": lambda: statement(rng, depth + 1),
    }
    return re.sub(r"\b[ENFB]\b|(?<=})B|B(?=[{ ])", lambda place: fill[place[0]](), text)


def statement(rng: random.Random, depth: int = 0) -> str:
    if depth > 3 or rng.random() < 0.4:
        return "{{ " + expression(rng, depth) + " }}"
    return filled(rng.choice(STATEMENTS), rng, depth)


def inside(text: str, rng: random.Random) -> str:
    """One expression, filter, number or name within a tag replaced or wrapped."""
    tags = list(re.finditer(r"{{(.*?)}}", text, flags=re.DOTALL))
    if not tags:
        return text + statement(rng)
    tag = rng.choice(tags)
    inner = tag[1].strip(" -")
    new = rng.choice(
        (
            expression(rng),
            f"({inner}) {rng.choice(OPERATORS)} {expression(rng)}",
            f"({inner}) | {filled(rng.choice(FILTERS), rng)}",
            f"({inner}) * {rng.choice(NUMBERS)}",
            f"({inner}){filled(rng.choice(METHODS), rng)}",
        )
    )
    return f"{text[: tag.start()]}{{{{ {new} }}}}{text[tag.end() :]}"


def beside(text: str, rng: random.Random) -> str:
    """A statement between two tags."""
    places = [0, len(text), *(m.end() for m in re.finditer(r"[%}]}", text))]
    at = rng.choice(places)
    return text[:at] + statement(rng) + text[at:]


def repeated(text: str, rng: random.Random) -> str:
    """A piece of it many times: deep nesting, long sources."""
    first, last = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return text[:first] + text[first:last] * rng.choice((2, 30, 500, 5000)) + text[last:]


def torn(text: str, rng: random.Random) -> str:
    first, last = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    return text[:first] + text[last:]


def nested(text: str, rng: random.Random) -> str:
    """Brackets and blocks within each other, as deep as Python's parser or deeper."""
    n = rng.choice((5, 25, 120, 3000))
    opening, closing = rng.choice((("(", ")"), ("[", "]"), ("{1:", "}"), ("not ", ""), ("-", ""), ("1+", "")))
    if rng.random() < 0.5:
        return text + "{{ " + opening * n + "1" + closing * n + " }}"
    return "{% for i in [1] %}" * n + text + "{% endfor %}" * n


def mutate(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice((*[inside, beside] * 5, repeated, torn, nested))(text, rng)[: 1 << 19]
    return text.encode("utf-8", errors="replace")


# --- what a chat does with one ---------------------------------------------------------------------------------------


def shown(kind: MediaKind, index: int) -> Message:
    return Message("user", "What is it?", [(index, kind)])


CONVERSATIONS = (
    [Message("user", "Hi")],
    [Message("system", "Be brief."), shown("video", 0), Message("assistant", "A cat."), shown("image", 1)],
)


def read(path: Path) -> None:
    """Every prompt is whole: each text and each item once, and nothing besides that looks like one. Twice the same."""
    source = path.read_text(encoding="utf-8", errors="replace")
    template = ChatTemplate(source, bos="<s>", eos="</s>", image_token="<image>", video_token="<video>")
    refusals = []
    for messages in CONVERSATIONS:
        try:
            text = template.render(messages)
        except ModelError as e:
            refusals.append(e)
            if "takes" in str(e):
                break
            continue
        items = sorted(piece for piece in split_marks(text) if isinstance(piece, int))
        assert items == [index for m in messages for index, _ in m.media], "media that are not there"
        assert all(text.count(m.text) for m in messages), "a text was lost"
        assert "\x01" not in text, "the place of a text was left"
        text.encode()
        assert template.render(messages) == text, "another text the second time"
    assert all(str(e).isprintable() for e in refusals), "control characters in an error's line"
    if refusals:
        raise refusals[0]
