"""Python functions that native code calls: what they raise, a Ctrl-C too, comes out of the native call."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aim_local import VisionLLM, VisualTokenConfig
from aim_local.native import callbacks, log

KIND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@pytest.fixture(autouse=True)
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What gets past us to Python's own hook; pytest replaces that."""
    past: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: callbacks.take(lost, past.append))
    yield past
    assert past == []


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load() as loaded:
        yield loaded


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any) -> int:
        raise error

    return call


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), SystemExit(3)], ids=repr)
def test_what_a_callback_raises_comes_out_once(error: BaseException) -> None:
    native = callbacks.as_callback(KIND, raising(error), failed=-7)
    assert native(None, None) == -7
    with pytest.raises(type(error)) as found:
        callbacks.reraise()
    assert found.value is error
    callbacks.reraise()


def test_the_first_of_several_is_the_one() -> None:
    first, second = (callbacks.as_callback(KIND, raising(error), failed=0) for error in (OSError("1"), OSError("2")))
    first(None, None), second(None, None)
    with pytest.raises(OSError, match="1"):
        callbacks.reraise()
    callbacks.reraise()


def test_an_interrupt_is_not_lost_at_the_first_instruction_of_a_callback() -> None:
    """qsort's comparisons are callbacks; a timer's signal, which raises as Ctrl-C does, comes at any point of them."""
    libc = ctypes.CDLL(None)
    values = (ctypes.c_int * 400)(*range(400, 0, -1))
    compare = callbacks.as_callback(KIND, lambda a, b: 1, failed=0)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    caught = 0
    try:
        for i in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + i * 5e-6)
                until = time.monotonic() + 5
                while time.monotonic() < until:
                    libc.qsort(values, 400, 4, compare)
                    callbacks.reraise()
            except KeyboardInterrupt:
                caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught == 60


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_log_line_that_raises_ends_the_load(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Ctrl-C does that comes while a line is written to a terminal, or a terminal that is gone."""

    class Gone:
        def write(self, text: str) -> None:
            raise error

    monkeypatch.setattr(sys, "stderr", Gone())
    log.echo_native_log()
    try:
        with pytest.raises(error):
            VisionLLM.load()
    finally:
        log.echo_native_log(False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_users_importance_that_raises_ends_the_call(error: type[BaseException], llm: VisionLLM, mp4: Any) -> None:
    def importance(il: int, scores: Any, n_keep: int) -> Any:
        raise error

    with pytest.raises(error):
        llm.prefill("What?", [mp4], tokens=VisualTokenConfig(prune_layers=(1, 3), importance=importance))
    assert llm.generate("What?", []).text  # and the model goes on


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("on_text", LookupError), ("progress", LookupError), ("progress", KeyboardInterrupt),
        ("should_stop", LookupError), ("should_stop", KeyboardInterrupt),
    ],
)  # fmt: skip
def test_a_users_callback_that_raises_ends_the_answer(
    name: str, error: type[BaseException], llm: VisionLLM, mp4: Any
) -> None:
    with pytest.raises(error):
        llm.generate("What?", [mp4], **{name: raising(error())})
    assert llm.generate("What?", [mp4]).text


def test_an_interrupt_in_a_log_line_ends_the_answer(llm: VisionLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is logged while tokens are decoded."""
    from aim_local.native.library import llama

    decode = llama.llama_decode

    def logging_decode(*args: Any) -> Any:
        status = decode(*args)
        log.NATIVE(4, b"a line\n", None)
        return status

    class Gone:
        def write(self, text: str) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as here:
        here.setattr(llama, "llama_decode", logging_decode)
        here.setattr(sys, "stderr", Gone())
        log.echo_native_log()
        try:
            with pytest.raises(KeyboardInterrupt):
                llm.generate("What?", [])
        finally:
            log.echo_native_log(False)
    assert llm.generate("What?", []).text
