"""Cameras, streams and growing files: a rolling window of frames, encoded as they come, and asked about at any time.

    with VisionLLM.load("a-model") as llm, watch(llm, "rtsp://camera/stream") as live:
        for look in live.every(10):
            print(look.end, llm.generate("Is the door open?", [look.item]).text)

Knows: sources, their times, and which frames are taken. Leaves to others: encoding (engine/rolling.py) and answers.
"""

from aim_local.live.clock import Clock, FastClock, SystemClock
from aim_local.live.source import LiveSource, parse_source
from aim_local.live.watching import LiveVideo, Look, watch
from aim_local.live.window import WindowSize

__all__ = [
    "Clock",
    "FastClock",
    "LiveSource",
    "LiveVideo",
    "Look",
    "SystemClock",
    "WindowSize",
    "parse_source",
    "watch",
]
