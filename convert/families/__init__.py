"""The registry: every family, and which of them a checkpoint is.

A new family is a file here and a line in FAMILIES; one that llama.cpp's own converter knows is an entry in upstream.py.
"""

from collections.abc import Mapping
from typing import Any

from ..checkpoint import Checkpoint
from ..errors import ConvertError, Unsupported
from .base import Family
from .known_fields import check_fields
from .layouts import architecture
from .llava import Llava
from .llava_next import LlavaNext
from .llava_onevision import LlavaOnevision, plain_model
from .llava_video import LlavaVideo
from .upstream import UPSTREAM, UpstreamFamily, upstream_family

# the first that recognises a config has it, so a variant stands before what it is a variant of
FAMILIES: tuple[type[Family], ...] = (
    LlavaVideo,
    LlavaOnevision,
    LlavaNext,
    Llava,
)

DEMO_FAMILY = LlavaOnevision  # demo/training builds a small model of it


def family_of(config: Mapping[str, Any]) -> type[Family]:
    """The family of a checkpoint with this config.json. Raises Unsupported."""
    for family in FAMILIES:
        if family.recognises(config):
            return family
    raise Unsupported(f"architecture {architecture(config)} is not supported")


def read_model(checkpoint: Checkpoint, tower: Checkpoint | None) -> Family:
    """The model of `checkpoint`; `tower` is the folder that --vision-tower names.

    Raises ConvertError with one line, which names the supported families where the checkpoint is of none.
    """
    try:
        family = family_of(checkpoint.config)
        check_fields(family.name, checkpoint, tower)
        return family.read(checkpoint, tower)
    except Unsupported as e:
        raise with_families(e) from e


def with_families(e: Unsupported) -> ConvertError:
    """The error with the list of what is supported."""
    *most, last = [*(family.title for family in FAMILIES), *(family.title for family in UPSTREAM)]
    return ConvertError(f"{e}; supported are {', '.join(most)} and {last}")


__all__ = [
    "DEMO_FAMILY",
    "FAMILIES",
    "UPSTREAM",
    "Family",
    "UpstreamFamily",
    "check_fields",
    "family_of",
    "plain_model",
    "read_model",
    "upstream_family",
    "with_families",
]
