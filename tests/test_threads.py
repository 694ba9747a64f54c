"""One model, many threads: calls are served in turns, close and cancel end a running call with a clear error."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from thorough import few

import aim_local
from aim_local import FrameSampling, GenerateConfig, VisionLLM, VisualTokenConfig
from aim_local.engine.turns import Turns
from aim_local.errors import CancelledError, ClosedError, UsageError
from aim_local.native.stop import StopHook

CLIPS = sorted((Path(aim_local.__file__).parent / "data" / "clips").glob("*.mp4"))
QUESTION = "What appears in the middle?"
FEW = FrameSampling(n_frames=2)
SHORT = GenerateConfig(max_tokens=4)
SETTINGS = (VisualTokenConfig.off(), VisualTokenConfig.paper())
N_THREADS, N_REPEATS = 8, 20

Call = Callable[[VisionLLM], object]


@pytest.fixture(scope="module")
def llm() -> Iterator[VisionLLM]:
    with VisionLLM.load() as loaded:
        yield loaded


# --- the calls ------------------------------------------------------------------------------------------------------


def generated(i: int) -> Call:
    clip, tokens = CLIPS[i % len(CLIPS)], SETTINGS[i % 2]
    return lambda llm: llm.generate(QUESTION, [clip], tokens, SHORT, sampling=FEW).tokens


def prefilled(i: int) -> Call:
    clip, tokens = CLIPS[i % len(CLIPS)], SETTINGS[i % 2]

    def call(llm: VisionLLM) -> object:
        found = llm.prefill(QUESTION, [clip], tokens, sampling=FEW)
        return found.logits.tobytes(), [kept.tolist() for kept in found.trace.kept]

    return call


def chatted(i: int) -> Call:
    clip, tokens = CLIPS[i % len(CLIPS)], SETTINGS[i % 2]

    def call(llm: VisionLLM) -> object:
        with llm.chat(tokens, generate=SHORT, sampling=FEW) as chat:
            return chat.ask(QUESTION, [clip]).tokens, chat.ask("And then?").tokens

    return call


def drawn_calls(n: int, seed: int) -> list[Call]:
    draw = random.Random(seed)
    return [draw.choice((generated, prefilled, chatted))(draw.randrange(8)) for _ in range(n)]


@pytest.mark.parametrize("n_calls", few([3, 20], 1))
def test_many_threads_get_the_serial_answers(llm: VisionLLM, n_calls: int) -> None:
    """Guards against two threads in one native context: answers, logits and kept sets are those of calls one by one."""
    plans = [drawn_calls(n_calls, seed) for seed in range(N_THREADS)]
    serial = [[call(llm) for call in calls] for calls in plans]
    with ThreadPoolExecutor(N_THREADS) as pool:
        together = list(pool.map(lambda calls: [call(llm) for call in calls], plans))
    wrong = sum(a != b for one, other in zip(serial, together, strict=True) for a, b in zip(one, other, strict=True))
    print(f"\n  {N_THREADS} threads x {n_calls} calls: {wrong} differ from the serial answers")
    assert not wrong


def test_one_chat_from_many_threads(llm: VisionLLM) -> None:
    """Guards a conversation whose turns come from several threads: each turn is whole."""
    with llm.chat(generate=SHORT, sampling=FEW) as chat:
        chat.ask(QUESTION, [CLIPS[0]])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: chat.ask(f"And at {i}?"), range(8)))
        asked = [m["content"] for m in chat.messages if m["role"] == "user"]
    assert sorted(asked) == sorted([QUESTION, *(f"And at {i}?" for i in range(8))])
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 9


# --- ended from outside -----------------------------------------------------------------------------------------------


def errors_of(llm: VisionLLM, calls: Iterator[Call], ended: threading.Event) -> BaseException | None:
    """Calls until one fails, or the event is set."""
    for call in calls:
        if ended.is_set():
            return None
        try:
            call(llm)
        except BaseException as e:
            return e
    return None


def endless(seed: int) -> Iterator[Call]:
    while True:
        yield from drawn_calls(8, seed)


@pytest.mark.parametrize("repeat", few(range(N_REPEATS), 2))
def test_closed_under_load(repeat: int) -> None:
    """Guards against freeing a model that another thread computes with: each of them gets one clear error."""
    llm, draw = VisionLLM.load(), random.Random(repeat)
    never = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(errors_of, llm, endless(seed), never) for seed in range(4)]
        time.sleep(draw.uniform(0, 0.15))
        llm.close()
    for future in found:
        assert isinstance(future.result(), ClosedError), repr(future.result())
    with pytest.raises(ClosedError, match="load it again"):
        llm.generate(QUESTION)
    llm.close()


@pytest.mark.parametrize("repeat", few(range(N_REPEATS), 2))
def test_cancelled_under_load(llm: VisionLLM, repeat: int) -> None:
    """Guards what a cancelled call leaves behind: nothing; the others and the next ones answer as before."""
    draw, stop = random.Random(repeat), threading.Event()
    wanted = generated(repeat)(llm)

    def cancelled() -> object:
        try:
            answer = llm.generate(QUESTION, CLIPS[:2], should_stop=stop.is_set, generate=GenerateConfig(max_tokens=64))
        except CancelledError as e:
            return e
        return answer.stats.stop_reason

    with ThreadPoolExecutor(3) as pool:
        victim = pool.submit(cancelled)
        others = [pool.submit(generated(repeat), llm) for _ in range(2)]
        time.sleep(draw.uniform(0, 0.1))
        stop.set()
    ended = victim.result()
    assert isinstance(ended, CancelledError) or ended in ("cancelled", "eos")
    assert [other.result() for other in others] == [wanted, wanted]


def test_a_cancelled_turn_is_taken_back(llm: VisionLLM) -> None:
    """Guards a conversation against a turn that was cancelled before its answer."""
    with llm.chat(generate=SHORT, sampling=FEW) as chat:
        first = chat.ask(QUESTION, [CLIPS[0]]).tokens
        used = chat.used
        with pytest.raises(CancelledError, match="cancelled"):
            chat.ask("And then?", [CLIPS[1]], should_stop=lambda: True)
        assert (chat.used, len(chat.messages)) == (used, 2)
        again = chat.ask("And then?").tokens
    with llm.chat(generate=SHORT, sampling=FEW) as chat:
        assert [chat.ask(QUESTION, [CLIPS[0]]).tokens, chat.ask("And then?").tokens] == [first, again]


def test_cancelled_while_answering_keeps_the_beginning(llm: VisionLLM) -> None:
    """Guards the text that was there already: it is the answer, and the stats say why it ends."""
    heard: list[str] = []
    long = GenerateConfig(max_tokens=64, temperature=1.5, seed=1)
    answer = llm.generate("Count.", generate=long, on_text=heard.append, should_stop=lambda: len(heard) >= 1)
    assert (answer.stats.stop_reason, answer.text) == ("cancelled", "".join(heard))


def test_cancelled_in_the_middle_of_native_work(llm: VisionLLM) -> None:
    """Guards against cancelling between steps only: one frame of a large tower takes seconds."""
    polls, start = 0, time.perf_counter()

    def later() -> bool:
        nonlocal polls
        polls += 1
        return time.perf_counter() - start > 0.12

    frames = np.random.default_rng(0).integers(0, 256, (64, 112, 112, 3), np.uint8)
    with pytest.raises(CancelledError):
        llm.prefill(QUESTION, [frames], VisualTokenConfig.off(), should_stop=later)
    assert time.perf_counter() - start < 2
    assert polls > 1


def test_closing_in_a_callback_is_refused() -> None:
    """Guards against freeing the model under the call that is running."""
    with VisionLLM.load() as llm:
        with pytest.raises(UsageError, match="callback"):
            llm.generate(QUESTION, on_text=lambda _: llm.close())
        assert llm.generate(QUESTION, generate=SHORT).tokens


def test_a_callback_may_ask_the_model(llm: VisionLLM) -> None:
    """Guards against a deadlock of a thread with itself."""
    wanted, inner = llm.generate(QUESTION, generate=SHORT).tokens, []
    answer = llm.generate(
        QUESTION, generate=SHORT, on_text=lambda _: inner.append(llm.generate(QUESTION, generate=SHORT).tokens)
    )
    assert answer.tokens == wanted
    assert inner
    assert all(tokens == wanted for tokens in inner)


def test_a_chat_outlives_its_model() -> None:
    """Guards against freeing a context after its model: closing the model closes its conversations."""
    llm = VisionLLM.load()
    chat = llm.chat(generate=SHORT, sampling=FEW)
    chat.ask(QUESTION, [CLIPS[0]])
    llm.close()
    with pytest.raises(ClosedError):
        chat.ask("And then?")
    chat.close()


def test_turns_come_in_order() -> None:
    """Guards against starving: who came first is served first."""
    turns, served = Turns("m", StopHook()), list[int]()

    def serve(i: int) -> None:
        with turns.take():
            served.append(i)

    with turns.take():
        threads = []
        for i in range(5):
            threads.append(threading.Thread(target=serve, args=(i,)))
            threads[-1].start()
            time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
