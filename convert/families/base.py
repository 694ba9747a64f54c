"""What a family of vision-language models is to the converter: the protocol that one file per family fulfils.

A family is a class; an instance of it is one model, read from a checkpoint. The class knows which checkpoints are its
own and how their configs are read, the instance which tensors and keys its mmproj file needs. Everything that families
share (containers, tensor names, towers, tokenizers, writing) is in the other files of the converter, which know no
family by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gguf

from ..checkpoint import Checkpoint
from ..plan import Need
from ..preprocess import Preprocess
from ..text import TextSpec
from ..vision_towers import VisionSpec


@dataclass(frozen=True)
class Family(ABC):
    """A model of one family: everything but the weights. Subclasses add the fields that only their family has."""

    name: ClassVar[str]  # in aim.json and in messages
    title: ClassVar[str]  # for the line that says what is supported
    projector: ClassVar[str]  # clip.projector_type: the graph that runs tower and projector
    pictures: ClassVar[str]  # aim.preprocess: how pictures become tiles
    chat_template: ClassVar[str]  # for checkpoints whose own template cannot place media

    text: TextSpec
    vision: VisionSpec
    preprocess: Preprocess
    image_token: str
    video_token: str | None

    @classmethod
    @abstractmethod
    def recognises(cls, config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is of the family. Says nothing about variants."""

    @classmethod
    @abstractmethod
    def read(cls, checkpoint: Checkpoint, tower: Checkpoint | None) -> "Family":
        """The model of `checkpoint`, which the family recognises; `tower` is the folder that --vision-tower names.

        Raises Unsupported for a variant that cannot be converted, ConvertError for configs that contradict themselves.
        """

    @abstractmethod
    def vision_needs(self) -> Iterator[tuple[Need, str]]:
        """Every tensor of tower and projector, in the order of the file, with its name in the GGUF."""

    @abstractmethod
    def metadata(self, writer: gguf.GGUFWriter) -> None:
        """Write the keys that only this family has. Those of vision.py are written by it."""

    def notes(self) -> list[str]:
        """Lines for the user about this model, beside those every model gets."""
        return []
