"""Who looks for media: a client with many slow addresses holds up itself alone."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from server_case import PATIENCE_S

from aim_local.server.fetchers import N_EACH, Fetchers


def test_one_client_holds_a_few_threads_and_its_work_is_done_in_order() -> None:
    fetchers, gate, done = Fetchers(), threading.Event(), list[int]()
    ended = threading.Semaphore(0)
    try:

        def slow(i: int) -> None:
            assert gate.wait(PATIENCE_S)
            done.append(i)
            ended.release()
            assert i != 1, "a fault of one does not lose the others"

        for i in range(5 * N_EACH):
            fetchers.submit("a", partial(slow, i))
        quick = threading.Event()
        fetchers.submit("b", quick.set)
        assert quick.wait(PATIENCE_S)
        assert done == []
        gate.set()
        for _ in range(5 * N_EACH):
            assert ended.acquire(timeout=PATIENCE_S)
        assert sorted(done) == list(range(5 * N_EACH))
    finally:
        fetchers.close()


@pytest.mark.parametrize("n", [1, 10, 100])
def test_work_of_clients_that_have_gone_is_not_held(n: int) -> None:
    """Guards against large requests that are sent and given up, over and over, behind a few slow ones."""
    fetchers, gate = Fetchers(), threading.Event()
    try:
        for _ in range(N_EACH):
            fetchers.submit("a", lambda: assert_waited(gate))
        for _ in range(n):
            fetchers.submit("a", gate.set, lambda: False)
        fetchers.submit("a", gate.clear, lambda: True)
        assert fetchers.n_waiting("a") == 1
    finally:
        gate.set()
        fetchers.close()


def assert_waited(gate: threading.Event) -> None:
    assert gate.wait(PATIENCE_S)


def test_after_the_end_nothing_begins() -> None:
    fetchers, gate, late = Fetchers(), threading.Event(), list[int]()
    began, over = threading.Semaphore(0), threading.Semaphore(0)

    def held() -> None:
        began.release()
        assert gate.wait(PATIENCE_S)
        over.release()

    for _ in range(N_EACH):
        fetchers.submit("a", held)
    for _ in range(N_EACH):
        assert began.acquire(timeout=PATIENCE_S)
    fetchers.submit("a", partial(late.append, 1))
    fetchers.close()
    gate.set()
    for _ in range(N_EACH):
        assert over.acquire(timeout=PATIENCE_S)
    assert late == []
    with pytest.raises(RuntimeError):
        fetchers.submit("b", partial(late.append, 2))
