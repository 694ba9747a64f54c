"""Who may call when: callbacks that call back, slow ones, locks of the caller, Ctrl-C anywhere, forked processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from aim_local import GenerateConfig, VisionLLM
from aim_local.engine.turns import Turns
from aim_local.errors import ClosedError, UsageError
from aim_local.native.stop import StopHook

SHORT = GenerateConfig(max_tokens=2)


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load() as loaded:
        yield loaded


def held(turns: Turns, leave: threading.Event) -> threading.Thread:
    """Another thread that has the turn until `leave`."""
    taken = threading.Event()

    def hold() -> None:
        with turns.take():
            taken.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(10)
    return thread


def test_should_stop_may_not_call_the_model(llm: VisionLLM) -> None:
    """Guards the vision tower, which is computing when it asks, and a caller that waits for itself."""

    def should_stop() -> bool:
        return bool(llm.generate("Count.", generate=SHORT).tokens)

    with pytest.raises(UsageError, match="should_stop"):
        llm.generate("Count.", generate=SHORT, should_stop=should_stop)
    leave = threading.Event()
    thread = held(llm.turns, leave)
    with pytest.raises(UsageError, match="should_stop"):
        llm.generate("Count.", generate=SHORT, should_stop=should_stop)
    leave.set()
    thread.join()
    assert llm.generate("Count.", generate=SHORT).tokens


def test_should_stop_may_wait_for_the_running_call() -> None:
    """Guards against a deadlock: should_stop takes a lock that the running call's thread holds until it is done."""
    turns, lock, leave = Turns("m", StopHook()), threading.Lock(), threading.Event()

    def run() -> None:
        with lock, turns.take():
            leave.wait(10)

    def should_stop() -> bool:
        leave.set()
        with lock:
            return False

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.05)
    served = threading.Event()

    def wait() -> None:
        with turns.take(should_stop):
            served.set()

    threading.Thread(target=wait, daemon=True).start()
    assert served.wait(5)
    thread.join(5)


def test_a_slow_should_stop_delays_no_other() -> None:
    """Guards the running call against those that wait: it goes on and ends while they think."""
    turns, leave = Turns("m", StopHook()), threading.Event()
    thread, asked, go_on = held(turns, leave), threading.Event(), threading.Event()

    def should_stop() -> bool:
        asked.set()
        go_on.wait(10)
        return False

    def wait() -> None:
        with turns.take(should_stop):
            pass

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert asked.wait(5)
    leave.set()
    thread.join(5)
    assert not thread.is_alive()
    go_on.set()
    waiting.join(5)
    turns.close(lambda: None)
    with pytest.raises(ClosedError), turns.take():
        pass


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT to one process")
def test_ctrl_c_anywhere_gives_the_turn_back() -> None:
    """Guards against a turn that nobody has and nobody gets: Ctrl-C at every call and return."""
    turns, left, turns_file = Turns("m", StopHook()), [0], Turns._leave.__code__.co_filename

    def trace(frame: FrameType, event: str, _: object) -> object:
        code = frame.f_code  # a generator cannot be broken off where it yields
        if code.co_filename == turns_file and (event == "call" or (event == "return" and code.co_name != "take")):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
        return trace

    def call() -> None:
        for _ in turns.take.__wrapped__(turns):  # type: ignore[attr-defined]
            pass

    for at in range(1, 500):
        left[0], interrupted = at, False
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            call()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(None)
        with turns.take():
            assert len(turns._queue) == 1, f"after step {at}"
        if not interrupted and left[0] > 0:
            break
    else:
        pytest.fail("it never came to the end")
    assert at > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_is_refused(llm: VisionLLM) -> None:
    """Guards against waiting for threads that a fork does not copy, ours and OpenMP's."""
    leave = threading.Event()
    thread = held(llm.turns, leave)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        code = 1
        try:
            llm.generate("Count.", generate=SHORT)
        except UsageError as e:
            code = 0 if "fork" in str(e) else 2
        llm.close()
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    leave.set()
    thread.join()
    assert llm.generate("Count.", generate=SHORT).tokens
