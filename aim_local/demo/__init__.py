"""The demo world of moving shapes: `held_out` yields clips with known answers, `write_clip` makes the video file."""

from aim_local.demo.clips import Clip, held_out, is_right, read_clip, write_clip
from aim_local.demo.world import (
    FAMILIES,
    PLAIN,
    WORLDS,
    Question,
    Scene,
    Shape,
    World,
    draw,
    make_scene,
    questions,
    sampled_frames,
)

__all__ = [
    "FAMILIES",
    "PLAIN",
    "WORLDS",
    "Clip",
    "Question",
    "Scene",
    "Shape",
    "World",
    "draw",
    "held_out",
    "is_right",
    "make_scene",
    "questions",
    "read_clip",
    "sampled_frames",
    "write_clip",
]
