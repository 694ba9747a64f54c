"""Packets that wait for the decoder: never more than said, and always from a key frame on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aim_local.live.packets import Arrived, PacketQueue


def packet(seconds: float, key: bool, size: int = 100) -> Arrived:
    fake: Any = SimpleNamespace(is_keyframe=key, size=size)
    return Arrived(fake, fake, 1, seconds, seconds, 0.0, True)


def all_of(queue: PacketQueue) -> list[Arrived]:
    found = list[Arrived]()
    while item := queue.get(0):
        found.append(item)
    return found


GROUPS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


@given(GROUPS, st.integers(1, 20))
def test_the_end_of_a_long_file(groups: list[int], seconds: int) -> None:
    """What the last seconds need, from their key frame on, and nothing before; ten packets a second."""
    queue, keys, n = PacketQueue(1, end=seconds), list[float](), 0
    for length in groups:
        keys.append(n / 10)
        for i in range(length):
            queue.put(packet(n / 10, i == 0))
            n += 1
    assert queue.get(0) is None
    queue.release()
    found = all_of(queue)
    last_key = keys[-1]
    begin = max((key for key in keys if key <= last_key - seconds), default=0.0)
    assert [item.seconds for item in found] == [i / 10 for i in range(round(begin * 10), n)]
    assert queue.n_skipped == 0


@given(GROUPS, st.integers(1, 20))
def test_a_decoder_that_is_too_slow(groups: list[int], seconds: int) -> None:
    """Guards the source: what waits spans no more than the limit, and begins with a key frame."""
    queue, n = PacketQueue(seconds), 0
    for length in groups:
        for i in range(length):
            queue.put(packet(n / 10, i == 0))
            n += 1
    found = all_of(queue)
    assert len(found) + queue.n_skipped == n
    if found:
        assert found[-1].seconds - found[0].seconds <= seconds
        assert found[0].is_key


def test_bytes_are_limited_too() -> None:
    queue = PacketQueue(100, max_bytes=1000)
    for i in range(40):
        queue.put(packet(i / 10, i % 5 == 0))
    assert sum(item.packet.size for item in all_of(queue)) <= 1000


def test_a_stream_without_key_frames_goes_on() -> None:
    """Pictures that are renewed part by part: waiting for a key frame would be for ever."""
    queue = PacketQueue(2)
    for i in range(450):
        queue.put(packet(i / 10, i == 0))
    assert all_of(queue)
    assert queue.n_skipped < 450


def test_after_the_end_was_given_all_that_waited_is_wanted() -> None:
    """The first new packet of a growing file must not push out the window that is being decoded."""
    queue = PacketQueue(1, end=5)
    for i in range(100):
        queue.put(packet(i / 10, i % 10 == 0))
    queue.release()
    queue.put(packet(10.0, True))
    assert len(all_of(queue)) == 61  # from the key frame of 4.0 s
    queue.close()
    assert queue.get(10) is None


def test_what_was_there_at_the_beginning() -> None:
    """It is gone when the decoder asks for more than the last of it."""
    queue = PacketQueue(1, end=5)
    assert queue.has_stock
    for i in range(3):
        queue.put(packet(i / 10, i == 0))
    queue.release()
    queue.put(packet(0.3, False))
    for _ in range(3):
        assert queue.has_stock
        assert queue.get(0)
    assert queue.has_stock  # the last one is being decoded
    assert queue.get(0)
    assert not queue.has_stock
