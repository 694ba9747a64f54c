"""Chat templates are programs of strangers: bounds on time, memory and text, one line for whatever they raise."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from thorough import few

from aim_local.errors import ModelError
from aim_local.models import template_process
from aim_local.models.prompt import ChatTemplate, Message, mark

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
SAID = "{{ messages[0].content }}"


def rendered(source: str, *messages: Message, structured: bool = False, bos: str = "<s>") -> str:
    template = ChatTemplate(
        source, bos=bos, eos="</s>", image_token="<image>", video_token="<video>", structured=structured
    )
    return template.render(messages or [Message("user", "hello")])


def refusal(source: str, *messages: Message, structured: bool = False, bos: str = "<s>") -> str:
    """The one line that says why not; afterwards another template is rendered as ever."""
    with pytest.raises(ModelError) as e:
        rendered(source, *messages, structured=structured, bos=bos)
    line = str(e.value)
    assert line.isprintable()
    assert len(line) < 500
    assert rendered(PLAIN) == "[user] hello\n"
    return line


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time than a user's template has."""
    monkeypatch.setattr(template_process, "CPU_SECONDS", 0.2)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "source",
    few([
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = 9 %}{{ (n ** (n ** n)) % 7 }}",  # one operation, which hears no signal of Python's
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% for i in range(99999) %}{{ '' if range(99999) | sort | first == 0 }}{% endfor %}",
    ], 2),
)  # fmt: skip
def test_what_never_ends_is_ended(source: str) -> None:
    assert "takes more than" in refusal(source + SAID)


@LINUX
@pytest.mark.parametrize(
    "source",
    few([
        "{{ ('a' * 10 ** 9) | length }}",  # while it is compiled
        "{% set ns = namespace(x='aaaa') %}{% for i in range(50) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set n = messages | length %}{{ ('%0' ~ n ~ '999999999d') | format(1) | length }}",
        "{% set ns = namespace(x=[0]) %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set n = 10 ** 9 %}{{ 'x' | center(n) | length }}",
    ], 2),
)  # fmt: skip
def test_memory_has_a_bound(source: str) -> None:
    assert "too much memory" in refusal(source + SAID)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'Today is ' ~ strftime_now('%Y-%m-%d at %H:%M:%S') }}",
        "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
        "{{ {'b': '<\u00e4>', 'a': [1]} | tojson }}",
        "{{ {'b': 1} | tojson(indent=2) }}{{ [1, 2] | tojson(separators=(',', ':'), ensure_ascii=True) }}",
    ],
)
def test_what_published_templates_use(source: str) -> None:
    """As transformers renders it, whose clock is stopped at midnight: a text is the same all day."""
    text = rendered(source + SAID)
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    theirs = utils.render_jinja_template([[{"role": "user", "content": "hello"}]], chat_template=source + SAID)[0][0]
    assert re.sub(r"\d\d:\d\d:\d\d", "00:00:00", theirs) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' | list | slice(10 ** 9) | list | length }}",
        "{% for part in 'x' | list | slice(slices=messages | length * 10 ** 7) %}{% endfor %}",
        "{{ 'x' | list | batch(linecount=10 ** 9, fill_with='-') | first | length }}",
    ],
)
def test_numbers_have_a_bound(source: str) -> None:
    assert "takes numbers up to 100000, and it is given 10000000" in refusal(source + SAID)


def test_numbers_within_it() -> None:
    source = "{{ 'abcde' | list | slice(2) | list }}{{ 'abc' | list | batch(2, '-') | list }}"
    assert rendered(source + SAID) == "[['a', 'b', 'c'], ['d', 'e']][['a', 'b'], ['c', '-']]hello"


def test_text_has_a_bound() -> None:
    assert "writes more than" in refusal("{% for i in range(99999) %}{{ i }}{% endfor %}" + SAID)
    assert "writes more than" in refusal("{{ '<|im_end|>' * 99999 }}" + SAID)
    assert "characters long" in refusal("a" * 10**7)


def test_bounds_grow_with_the_conversation() -> None:
    turns = [Message("user", "x" * 1000) for _ in range(2000)]
    assert len(rendered("{% for m in messages %}{{ '-' * 200 }}{{ m.content }}{% endfor %}", *turns)) == 2000 * 1200


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ 1 // (messages | length - 1) }}", "ZeroDivisionError"),
        ("{{ 2.0 ** (messages | length + 9999) }}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "RecursionError"),
        ("{{ cycler() }}", "RuntimeError"),
        ("{{ nothing.here }}", "'nothing' is undefined"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{% for m in messages %}", "not valid Jinja"),
        ("".join(f"{{% for i{n} in [1] %}}" for n in range(30)) + "{% endfor %}" * 30, "not valid Jinja (SyntaxError"),
        ("{{ raise_exception('first\n\x1b[31mred\x07' * 1000) }}", "first [31mred"),
        ("{% include 'other' %}", "no loader"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[0].content }}{{ '\\ud800' }}", "surrogate"),
        ("{{ messages[0].content }}{{ joiner }}{{ cycler(1) }}", "address of an object"),
        ("{{ messages[0].content }}{{ cycler(1) | urlencode }}", "address of an object"),
        ("{{ messages[0].content }}{{ joiner() | upper }}", "address of an object"),
    ],
)
def test_whatever_it_raises_is_one_line(source: str, told: str) -> None:
    assert told in refusal(source)


@pytest.mark.parametrize(
    "forged",
    [
        "{{ '\\x007\\x00' }}",
        "\x000\x00",
        "{{ '\\x00' ~ '=<|im_end|>' ~ '\\x00' }}",
        "\x00",
        "\x01",
        "\x011\x01",
        "\x0100\x01",
    ],
)
@pytest.mark.parametrize("structured", [False, True])
def test_marks_and_texts_that_are_not_there(forged: str, structured: bool) -> None:
    refusal(SAID + forged, structured=structured)
    refusal(forged + "{{ messages[0].content[0].text }}", structured=structured)


def test_media_that_are_not_there() -> None:
    shown = Message("user", "what?", [(0, "image")])
    listed = "{% for p in messages[0].content %}{{ p.text or '<image>' }}{% endfor %}"
    assert rendered(listed, shown, structured=True) == mark(0) + "what?"
    for source in (listed + "<image>", listed + "{{ '<im' ~ 'age>' }}", listed + "<video>", listed + "\x000\x00"):
        refusal(source, shown, structured=True)
    refusal(SAID + "<image>", structured=True)
    refusal(PLAIN, structured=True, bos="[user] \x01")  # a BOS that would take a text's place away


def test_turns_that_show_media_keep_their_order() -> None:
    turns = [Message("user", "first", [(0, "image")]), Message("user", "second", [(1, "image")])]
    listed = "{% for m in TURNS %}{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}{% endfor %}"
    expected = f"{mark(0)}first{mark(1)}second"
    assert rendered(listed.replace("TURNS", "messages"), *turns, structured=True) == expected
    expected = f"{mark(1)}\nsecond{mark(0)}\nfirst"  # written into the texts, which take them along
    assert rendered(listed.replace("TURNS", "messages | reverse"), *turns, structured=True) == expected


@LINUX
def test_the_text_depends_on_the_arguments_alone() -> None:
    """The order of a set: in processes of their own, whatever seed their parent has."""
    keys = "{% for k in ({'a': 1, 'b': 2, 'c': 3}.keys() - {}.keys()) %}{{ k }}{% endfor %}" + SAID
    code = (
        "from aim_local.models.prompt import ChatTemplate, Message\n"
        f"t = ChatTemplate({keys!r}, bos='', eos='', image_token='', video_token='')\n"
        "print(t.render([Message('user', '')]))"
    )
    run = [sys.executable, "-c", code]
    found = {subprocess.run(run, env={**os.environ, "PYTHONHASHSEED": s}, stdout=subprocess.PIPE).stdout for s in "12"}
    assert len(found) == 1
    for source in ("{{ [1, 2, 3] | random }}", "{{ lipsum() }}"):
        refusal(source + SAID)


# --- the process -----------------------------------------------------------------------------------------------------


def test_many_threads_at_once() -> None:
    found: dict[int, str] = {}

    def ask(n: int) -> None:
        for _ in range(10):
            found[n] = rendered(f"{n}: " + PLAIN, Message("user", f"text {n}"))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"{n}: [user] text {n}\n" for n in range(8)}


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_it_is_rendered() -> None:
    """The next text is the next template's, not the answer to the one before."""
    source = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        rendered(source)
    assert rendered(PLAIN) == "[user] hello\n"


def child_of(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@LINUX
def test_one_that_was_killed_from_outside_is_replaced() -> None:
    rendered(PLAIN)
    before = set(child_of(os.getpid()))
    template_process.template_process().close()
    rendered(PLAIN)
    (new,) = set(child_of(os.getpid())) - before
    os.kill(new, signal.SIGKILL)
    os.waitid(os.P_PID, new, os.WEXITED | os.WNOWAIT)  # of all its threads; whoever owns it still learns of it
    assert rendered(PLAIN) == "[user] hello\n"


@LINUX
def test_a_forked_process_has_its_own(tmp_path: Path) -> None:
    """And it does not keep its parent's alive."""
    code = f"""
import os, sys, time
from aim_local.models.prompt import ChatTemplate, Message
t = ChatTemplate({PLAIN!r}, bos="", eos="", image_token="", video_token="")
text = t.render([Message("user", "x")])
(child,) = open(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children").read().split()
if os.fork() == 0:
    os.setsid()
    ok = t.render([Message("user", "x")]) == text
    print(child, ok, flush=True)
    sys.stdin.read()
    os._exit(0)
os.wait3(os.WNOHANG)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child, ok = parent.stdout.readline().decode().split()
        assert ok == "True"
        parent.kill()
        status = Path(f"/proc/{child}/status")
        deadline = time.monotonic() + 20
        while status.exists() and "(zombie)" not in status.read_text():
            assert time.monotonic() < deadline, "the template's process outlived its parent"
            time.sleep(0.01)


@LINUX
@pytest.mark.parametrize("data", [None, "", "pages", "\n"])
def test_without_proc_there_is_no_bound_of_memory(data: str | None, tmp_path: Path) -> None:
    """One line, which the death of its process ends with; it was a FileNotFoundError's."""
    from aim_local.models.template_worker import _mapped_bytes

    statm = tmp_path / "statm"
    if data is not None:
        statm.write_text(data)
    with pytest.raises(SystemExit, match=r"statm cannot be read \(.*\), by which .* is bounded; mount /proc$"):
        _mapped_bytes(str(statm))
    assert _mapped_bytes() > 1 << 20
