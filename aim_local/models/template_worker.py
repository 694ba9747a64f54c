"""The process that renders chat templates: `python -m aim_local.models.template_worker`, see template_process.py.

A template is a program of a stranger. It runs in Jinja's sandbox, and what the sandbox does not bound is bounded by the
system: the time that it computes, by a timer that ends this process, and the memory, by a limit of its addresses. Knows
Jinja and bounds; what messages and marks mean is elsewhere. The text of a template depends on its arguments alone, and
on the day where it writes that: nothing random is given to it, and an address in memory is no text.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, wraps

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment

from ..child import Message, Parent
from .template_process import MEMORY_MIB

_REASON = 160  # characters
_ADDRESS = re.compile(r"0x[0-9a-f]{9,}", re.I)  # whatever a filter has made of what is around it


class _Generation(Extension):
    """`{% generation %}` stands around answers, for those who train on them; here its contents are written."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja's own extensions have it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def environment() -> ImmutableSandboxedEnvironment:
    """As transformers renders, without what is random.

    ref: transformers, utils/chat_template_utils.py (_compile_jinja_template)
    """
    extensions = ["jinja2.ext.loopcontrols", _Generation]
    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    found.globals["raise_exception"] = _raise
    found.globals["strftime_now"] = _today
    found.filters["tojson"] = _json
    found.globals.pop("lipsum")
    found.filters.pop("random")
    for name in ("slice", "batch"):  # which make so many lists, or lists so long
        found.filters[name] = _bounded(name, found.filters[name])
    return found


def _bounded(name: str, filter_: Callable[..., object]) -> Callable[..., object]:
    """As the sandbox bounds `range`. What Jinja has noted on a filter stays."""

    @wraps(filter_)
    def bounded(*values: object, **named: object) -> object:
        for value in (*values, *named.values()):
            if isinstance(value, int | float) and value > MAX_RANGE:
                raise TemplateError(f"{name} takes numbers up to {MAX_RANGE}, and it is given {value}")
        return filter_(*values, **named)

    return bounded


def _raise(message: object) -> None:
    raise TemplateError(str(message))


def _today(form: str) -> str:
    """The day's beginning: so the texts of a conversation's turns are alike, but for one that goes on past midnight."""
    return datetime.now().replace(hour=0, minute=0, second=0, microsecond=0).strftime(form)


def _json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter spells out what HTML reserves, and sorts keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=8)
def compiled(source: str) -> Template:
    return environment().from_string(source)


def answer(message: Message) -> Message:
    """The text of a template, under "text", and the seconds of computing, under "spent".

    "invalid": why it is no template. "failed": why it has no text for these arguments. "bound": which bound it crossed.
    """
    before = time.process_time()
    start_clock(message["cpu_s"])
    found = said(message)
    start_clock(0)
    return {**found, "spent": time.process_time() - before}


def said(message: Message) -> Message:
    """A stranger's program raises what it likes: all of it is caught here, and told in a line."""
    template = None
    try:
        template = compiled(message["source"])
        return {"text": text_of(template, message)}
    except MemoryError:
        return {"bound": "memory"}
    except _TooLong:
        return {"bound": "text"}
    except Exception as e:
        return {"failed" if template else "invalid": reason(e)}


class _TooLong(Exception):
    pass


def text_of(template: Template, message: Message) -> str:
    """Piece by piece: what writes without an end is stopped. Raises TemplateError for what no prompt can hold."""
    parts, n = list[str](), 0
    for part in template.generate(**message["arguments"]):
        n += len(part)
        if n > message["most"]:
            raise _TooLong
        parts.append(part)
    text = "".join(parts)
    if _ADDRESS.search(text):
        raise TemplateError("it writes the address of an object, which is another one each time")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise TemplateError("it writes half of a surrogate pair, which is no text")
    return text


def reason(e: Exception) -> str:
    """One line: the template's own words, or Python's with the exception's name."""
    try:
        words = "".join(c if c.isprintable() else " " for c in str(e)[: 4 * _REASON])
    except Exception:  # an exception whose text cannot be made
        words = ""
    line = " ".join(words.split())[:_REASON]
    return line if isinstance(e, TemplateError) and line else f"{type(e).__name__}: {line}".removesuffix(": ")


# --- bounds ----------------------------------------------------------------------------------------------------------


def start_clock(seconds: float) -> None:
    """This process is ended after so many seconds of computing, even inside one operation; 0: it is not."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def bound() -> None:
    """Before anything is rendered: the clock ends this process, a crash leaves no file, and memory has a limit."""
    if sys.platform == "win32":
        return
    import resource

    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        wanted, (_, hard) = _mapped_bytes() + (MEMORY_MIB << 20), resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _mapped_bytes(statm: str = "/proc/self/statm") -> int:
    """What is mapped so far. Ends the process where nobody can say: a template's memory would have no bound."""
    try:
        with open(statm) as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError) as e:
        why = e.strerror if isinstance(e, OSError) else "it says something else"
        sys.exit(f"{statm} cannot be read ({why}), by which a template's memory is bounded; mount /proc")


def main() -> None:
    parent = Parent()
    inbox = parent.inbox()  # ends with the parent
    bound()
    parent.say(ready=True)
    for message in inbox:
        parent.say(**answer(message))


if __name__ == "__main__":
    main()
