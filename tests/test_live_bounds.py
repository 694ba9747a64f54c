"""Nothing grows while a stream goes on: packets, frames, rows and threads are as many later as after a minute."""

from __future__ import annotations

import gc
import threading
from collections import Counter

from live_case import LONG, ManualClock, Station, codes, pieces, seen, times, until, watched

from aim_local import GenerateConfig, LoadConfig, VisionLLM

OURS = ("Arrived", "LiveFrame", "Packet", "VideoFrame", "_Taken", "_Tile", "_Held", "Recent", "Look", "Thread")
RATE, PART = 2, 15  # seconds of stream


def alive() -> Counter[str]:
    gc.collect()
    return Counter(name for o in gc.get_objects() if (name := type(o).__name__) in OURS)


def test_nothing_grows() -> None:
    """The short form of benchmarks/watch_hours.py: over a minute, asked every quarter, cut off once."""
    clock, found, n_asked = ManualClock(), list[Counter[str]](), 0
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as llm, Station(clock) as station:
        with watched(llm, station.url, clock) as live:
            for part in range(5):
                first = part * PART * RATE
                station.send(live, pieces(PART * RATE, RATE, first=first, stamp=first / RATE), lead=6)
                until(lambda at=first + PART * RATE - 4: codes(live)[-1] >= at, live)
                llm.generate("What appears?", [seen(live).item], generate=GenerateConfig(max_tokens=2))
                n_asked += 1
                found.append(alive())
                if part == 2:
                    station.hang_up()
            look = seen(live)
            assert [b - a for a, b in zip(codes(look), codes(look)[1:], strict=False)] == [RATE] * 7
            assert abs(times(look)[-1] - (clock.now() - 1000)) < LONG
        until(lambda: "aim-local live" not in str(threading.enumerate()))
    print(*(dict(count) for count in found), sep="\n")
    assert n_asked == 5
    for name in OURS:
        late = [count[name] for count in found[1:]]
        assert max(late) <= found[0][name] + 12, (name, late)
