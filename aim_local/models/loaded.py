"""What every family of ours has: the file it is made from, loaded or not, and its tower, which encodes tile by tile."""

from __future__ import annotations

from typing import ClassVar

from ..errors import NativeError
from ..native.visual import TileEncoder
from .base import TowerFile
from .card import Card


class LoadedTower:
    """Base of both kinds of families, tiles.py and parts.py. `close()` frees it.

    chat_template: instead of the model's own, where a family has to replace it.
    """

    cards: ClassVar[tuple[Card, ...]] = ()
    sees_any_size = False
    chat_template: str | None = None

    def __init__(self, file: TowerFile) -> None:
        file.check_width()
        self.file = file
        self._context = file.open()
        loaded = self._context
        self._encoder = TileEncoder(loaded.owned, file.n_threads, loaded.stop) if loaded else None

    @property
    def projector(self) -> str:
        return self.file.projector

    @property
    def precision(self) -> str:
        return self.file.precision

    @property
    def encoder(self) -> TileEncoder:
        """Raises NativeError where the file was not loaded. What it does raises ClosedError when this is closed."""
        if self._encoder is None:
            raise NativeError(f"{self.file.path}: the vision tower is not loaded")
        return self._encoder

    def close(self) -> None:
        if self._context:
            self._context.close()
