"""Who comes next: turns over clients and their users, first come first served within; and a full queue."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from server_case import PATIENCE_S, HeldLLM, question, running

from aim_local.config import GenerateConfig
from aim_local.server.failures import RequestError
from aim_local.server.jobs import Client, Event, Failed, Job
from aim_local.server.limits import Limits
from aim_local.server.queue import FairQueue
from aim_local.server.requests.asked import Asked

NOTHING = Asked((), None, GenerateConfig(), None, None)


def job(account: str, user: str = "", *, ready: bool = True, events: list[Event] | None = None) -> Job:
    made = Job(NOTHING, Client(account, user), (events if events is not None else []).append)
    made.found = () if ready else None
    return made


def names(queue: FairQueue, n: int) -> list[str]:
    """The accounts of the next n jobs."""
    return [found.client.account for _ in range(n) if (found := queue.take())]


def filled(*accounts: str, n_max: int = 100) -> FairQueue:
    queue = FairQueue(n_max)
    for account in accounts:
        queue.put(job(account))
    return queue


def test_clients_take_turns() -> None:
    assert names(filled("a", "a", "a", "a", "b", "c", "b"), 7) == ["a", "b", "c", "a", "b", "a", "a"]


def test_a_newcomer_waits_for_one_turn_of_each() -> None:
    queue = filled("a", "a", "a", "b", "b")
    assert names(queue, 2) == ["a", "b"]
    queue.put(job("c"))
    assert names(queue, 4) == ["a", "b", "c", "a"]


def test_first_come_first_served_within_a_client() -> None:
    queue, jobs = FairQueue(9), [job("a") for _ in range(4)]
    for one in jobs:
        queue.put(one)
    assert [queue.take() for _ in jobs] == jobs


def test_users_of_a_client_share_its_turns() -> None:
    queue = FairQueue(99)
    for user in ("x", "x", "x", "y"):
        queue.put(job("a", user))
    queue.put(job("b"))
    taken = [queue.take() for _ in range(5)]
    assert [f"{one.client.account}{one.client.user}" for one in taken if one] == ["ax", "b", "ay", "ax", "ax"]


def test_a_job_whose_media_are_not_there_is_passed_over_and_keeps_its_place() -> None:
    queue, slow = FairQueue(9), job("a", ready=False)
    for one in (slow, job("a"), job("b"), job("b")):
        queue.put(one)
    assert names(queue, 1) == ["b"]
    slow.found = ()
    assert queue.set_ready(slow)
    assert queue.take() is slow


def test_a_full_queue_refuses_with_an_estimate() -> None:
    queue = filled("a", "b", n_max=2)
    for seconds in (10, 20):
        queue.note_time(seconds)
    with pytest.raises(RequestError) as e:
        queue.put(job("c"))
    assert e.value.status == 429
    assert 15 <= int(e.value.headers["Retry-After"]) <= 30  # of three answers of 15 s, half
    assert len(queue) == 2


def test_one_client_cannot_fill_the_queue_for_the_others() -> None:
    queue, events = FairQueue(3), list[Event]()
    for one in (job("a"), job("a"), job("a", events=events)):
        queue.put(one)
    queue.put(job("b"))
    assert isinstance(events[0], Failed)
    assert events[0].error.status == 429
    with pytest.raises(RequestError):
        queue.put(job("a"))
    assert names(queue, 3) == ["a", "b", "a"]


def test_who_was_refused_comes_before_who_was_not() -> None:
    queue = filled("a", "b", "c", "d", n_max=4)
    for account in ("x", "y", "x"):
        with pytest.raises(RequestError):
            queue.put(job(account))
    names(queue, 1)
    for account in ("a", "y"):  # the one place is for x, who was refused first
        with pytest.raises(RequestError):
            queue.put(job(account))
    queue.put(job("x"))
    names(queue, 1)
    queue.put(job("y"))
    assert names(queue, 4) == ["c", "d", "x", "y"]


def test_nothing_is_held_in_a_queue_that_is_nearly_empty() -> None:
    queue = filled("a", "b", "c", "d", n_max=4)
    with pytest.raises(RequestError):
        queue.put(job("x"))
    names(queue, 3)
    for account in ("a", "b"):
        queue.put(job(account))


def test_a_job_that_leaves_is_not_taken() -> None:
    queue, one, other = FairQueue(9), job("a"), job("a")
    queue.put(one)
    queue.put(other)
    assert queue.remove(one)
    assert not queue.remove(one)
    assert queue.take() is other


def test_a_closed_queue_gives_back_who_waited() -> None:
    queue = filled("a", "b")
    taken: list[Any] = []
    assert [one.client.account for one in queue.close()] == ["a", "b"]
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    thread.join(PATIENCE_S)
    assert taken == [None]
    with pytest.raises(RequestError) as e:
        queue.put(job("a"))
    assert e.value.status == 503


def test_take_waits_for_a_job() -> None:
    queue, taken, one = FairQueue(9), list[Any](), job("a")
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.put(one)
    thread.join(PATIENCE_S)
    assert taken == [one]


def test_users_of_a_service_take_turns() -> None:
    """The whole way: three requests of one user, then one of another, which is second."""
    llm = HeldLLM()
    with running(llm.load, Limits(n_waiting=9)) as found:
        threads = []

        def ask(text: str, user: str) -> None:
            threads.append(threading.Thread(target=found.post, args=[{"messages": question(text), "user": user}]))
            threads[-1].start()

        ask("x1", "x")
        first = llm.next_call()
        for n, (text, user) in enumerate((("x2", "x"), ("x3", "x"), ("y1", "y"))):
            ask(text, user)
            found.wait(lambda n=n: len(found.service.queue) == n + 1)
        order = [first.question]
        first.release.set()
        for _ in range(3):
            call = llm.next_call()
            order.append(call.question)
            call.release.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert order == ["x1", "x2", "y1", "x3"]
