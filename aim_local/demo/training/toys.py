"""The two toys that are trained here: what they look at, and how many frames of it."""

from __future__ import annotations

from dataclasses import dataclass

from aim_local.demo.world import N_SAMPLED, PLAIN, VARIED, World

PATCH = 14  # pixels


@dataclass(frozen=True)
class Toy:
    """One toy. frames: how many a clip is shown in, drawn per batch, each equally often.

    spread: positions of the visual rows are stretched, squeezed and made uneven in most batches, so that the model
    reads from the rows, not from their positions, where something is.
    """

    name: str
    world: World
    frames: tuple[int, ...]
    spread: bool

    @property
    def side(self) -> int:
        """Pixels of a frame's side."""
        return self.world.side

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.side // PATCH

    @property
    def pooled(self) -> int:
        """Visual tokens along a side of a frame."""
        return self.grid // 2


BUNDLED = Toy("bundled", PLAIN, (N_SAMPLED,), spread=False)
UNTAUGHT = Toy("untaught", VARIED, (4, 6, 8, 8, 8, 10, 12, 16), spread=True)
TOYS = {toy.name: toy for toy in (BUNDLED, UNTAUGHT)}
