"""A model as the engine sees it: text tower, vision tower, chat template.

It is loaded with its weights, or from the heads of its files alone: planning needs no weights.
"""

from __future__ import annotations

import gc
import platform
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol, Self

from .. import store
from ..config import LoadConfig
from ..media import MediaShape
from ..models.base import Tower
from ..models.prompt import ChatTemplate, Message
from ..models.registry import open_tower
from ..models.reuse import NOISE
from ..models.template_process import template_process
from ..models.text import TextModel
from ..native import kernels
from ..native.cpu import this_cpu
from ..native.devices import gpu_names, has_gpu
from ..native.heap import give_back
from ..native.installed import library_files
from ..paths import Name
from ..store.digests import known_digest
from ..store.encoded import EncodedStore
from ..store.manifest import check_contents
from ..store.toy import is_demo_clip, is_toy

_MANY = 4  # more contexts than are left by a collection: another one is due


class Closable(Protocol):
    def close(self) -> None: ...


class Contexts:
    """The native contexts made from a model: freed with it, or before, where nobody holds them any more.

    A context may be dropped in any thread, and is freed in the model's turn: at once where nobody has it, else at the
    turn's end. on_drop: asks for that; without it they are freed when the next context is made.
    """

    def __init__(self) -> None:
        self._all: set[Closable] = set()
        self._dropped: deque[Closable] = deque()
        self._n_left = 0  # after Python's collector ran
        self.on_drop: Callable[[], None] | None = None

    def add(self, holder: object, native: Closable) -> None:
        """native: what is to be freed when `holder` is gone."""
        self._all.add(native)
        weakref.finalize(holder, self._drop, native).atexit = False

    def _drop(self, native: Closable) -> None:
        self._dropped.append(native)
        if self.on_drop:
            self.on_drop()

    def before_next(self) -> None:
        """In the model's turn, when another one is to be made.

        A conversation in a circle of references waits for Python's collector, which does not know how much memory is
        behind it: where many have come since it last ran, it runs now.
        """
        if len(self._all) >= self._n_left + _MANY:
            gc.collect()
            self.free_dropped()
            self._n_left = len(self._all)
        self.free_dropped()

    def free_dropped(self) -> None:
        """In the model's turn."""
        if not self._dropped:
            return
        while self._dropped:
            native = self._dropped.popleft()
            native.close()
            self._all.discard(native)
        give_back()  # or glibc keeps tens of MB of each for others that do not come

    def close(self) -> None:
        for native in list(self._all):
            native.close()


@dataclass(frozen=True, eq=False)
class Model:
    """Use `open`, and `close()`, which also closes the contexts that were made from it."""

    paths: store.ModelPaths
    config: LoadConfig
    text: TextModel
    tower: Tower | None
    template: ChatTemplate
    contexts: Contexts

    @classmethod
    def open(cls, paths: store.ModelPaths, config: LoadConfig, *, weights: bool = True) -> Self:
        """weights=False: what a plan needs, read from the heads of the files. Raises ModelError."""
        template_process().start()  # beside the loading
        with ExitStack() as stack:
            text = TextModel(paths.model, config, weights=weights)
            stack.callback(text.close)
            tower = open_tower(paths.mmproj, text, weights=weights) if paths.mmproj else None
            if tower:
                stack.callback(tower.close)
            if weights:  # after what is wrong with a head, which says more
                check_contents(paths)
            found = cls(paths, text.config, text, tower, make_template(text, tower), Contexts())
            stack.pop_all()
        return found

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def n_ctx_train(self) -> int:
        return self.text.n_ctx_train

    @property
    def default_frames(self) -> int:
        """Frames a video is sampled to when nothing is asked."""
        return self.tower.default_frames if self.tower else 0

    @cached_property
    def encoded_store(self) -> EncodedStore | None:
        """Where encoded media are kept on disk; None where that is off."""
        return EncodedStore() if self.config.cache_media and self.tower else None

    @cached_property
    def vision_facts(self) -> dict[str, Any]:
        """All that visual rows depend on beside the pixels, as plain values: another value, other rows."""
        tower, mmproj, config = self.tower, self.paths.mmproj, self.config
        assert tower is not None, "asked for media"
        assert mmproj is not None, "a tower has a file"
        return {
            "mmproj": known_digest(mmproj),
            "precision": tower.precision,
            "merging": [config.vision_merge, config.vision_merge_depth] if config.vision_merge < 1 else [],
            "n_embd": self.text.n_embd,
            "frame_tokens": config.frame_tokens,
            "flash_attn": config.flash_attn,
            "gpu": gpu_names() if config.n_gpu_layers != 0 else [],
            "n_threads": config.n_threads,
            "reuse": [config.reuse_frames, NOISE],
            "code": [version(name) for name in ("aim-local", "av", "pillow", "numpy")],
            "libraries": [known_digest(path) for path in library_files()],
            "cpu": str(this_cpu() or platform.machine()),
        }

    @property
    def warnings(self) -> list[str]:
        """What the load options asked for and this machine does not have. They stand beside every answer."""
        found, n, wanted = list[str](), self.config.n_gpu_layers, self.config.vision_precision
        if n != 0 and not self.config.rpc and not has_gpu():
            no_gpu = "no GPU is there for this build (see aim-local doctor); the CPU computes all"
            found.append(f"n_gpu_layers is {n}, but {no_gpu}")
        given = {"int8": ("int8",), "bf16": ("bf16", "int16")}.get(wanted)  # 16 bits are either
        if self.tower and given and not self.tower.precision.startswith(given):
            found.append(
                f"vision_precision is {wanted}, but the vision tower is computed in {self.tower.precision} here"
            )
        return found

    def beyond_toy(self, shapes: Sequence[MediaShape]) -> list[MediaShape]:
        """Media that the bundled toy model was not made for (store/toy.py); none with another model."""
        if not is_toy(self.text.header):
            return []
        return [shape for shape in shapes if not is_demo_clip(shape.digest)]

    @property
    def is_on_gpu(self) -> bool:
        """Whether layers are on a GPU of this machine."""
        return self.config.n_gpu_layers != 0 and not self.config.rpc and has_gpu()

    @property
    def vision_kernels(self) -> str:
        """Arithmetic and kernels of the vision tower, for people; "" without one."""
        return self.tower.precision if self.tower else ""

    @property
    def prefill_kernels(self) -> str:
        """Arithmetic and kernels of a prefill, for people; "" where layers are on a GPU. A server's CPU has its own."""
        return "" if self.is_on_gpu else kernels.described_prefill(self.config.prefill_precision)

    def render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        """A conversation as prompt text with media marks (models/prompt.py)."""
        return self.template.render(messages, answer_next=answer_next, specials=self.text.specials_in)

    def with_config(self, config: LoadConfig) -> Self:
        """The same model with other options of its contexts; it borrows this one's towers."""
        return replace(self, config=config, text=self.text.with_config(config))

    def with_tower(self, tower: Tower) -> Self:
        """The same text model with another vision tower; it borrows this one's text tower."""
        return replace(self, tower=tower, template=make_template(self.text, tower))

    def close(self) -> None:
        self.contexts.close()
        if self.tower:
            self.tower.close()
        self.text.close()


def open_model(
    model: Name | None = None,
    mmproj: Name | None = None,
    config: LoadConfig | None = None,
    *,
    weights: bool = True,
) -> Model:
    """The model that a name, a folder or a file means, see `VisionLLM.load`. Raises ModelError."""
    return Model.open(store.resolve(model, mmproj), config or LoadConfig(), weights=weights)


def make_template(text: TextModel, tower: Tower | None) -> ChatTemplate:
    """The model's chat template, with what it writes for media. Raises ModelError."""
    tokens = tower.media_tokens if tower else None
    image, video = tokens or ("<image>", "")
    replaced = tower.chat_template if tower else None
    return ChatTemplate(
        text.chat_template if replaced is None else replaced,
        bos=text.llama.bos_text,
        eos=text.llama.eos_text,
        adds_bos=text.llama.adds_bos,
        image_token=image,
        video_token=video,
        structured=tower is None or tokens is not None,
    )
