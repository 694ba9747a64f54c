"""Places that a context can go back to, where its memory cannot forget its last rows alone.

A recurrent layer holds one state for all rows it has seen. A copy of that state, taken at a place, leads back there;
the KV caches of the other layers forget rows as ever. Knows marks and copies; when one is taken the context decides.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

_HEAD, _ENTRY = struct.Struct("<I"), struct.Struct("<IIIQ")  # how many; a mark and the bytes of its state


@dataclass(frozen=True)
class Mark:
    """A place in a context: next position, cells used in the first layer, and how many of them are visual tokens.

    M-RoPE media take more cells than positions.
    """

    n_past: int
    n_cells: int
    n_visual: int = 0


@dataclass(frozen=True, eq=False)
class Points:
    """Copies of a recurrent state by the place they were taken at."""

    states: Mapping[Mark, bytes] = field(default_factory=dict, repr=False)

    def with_one(self, mark: Mark, state: bytes, most: int) -> Points:
        """The last `most` of these with one more."""
        return Points(dict([*self.until(mark.n_cells - 1).states.items(), (mark, state)][-most:]))

    def until(self, n_cells: int) -> Points:
        """Those within the first n_cells."""
        return Points({mark: state for mark, state in self.states.items() if mark.n_cells <= n_cells})

    @property
    def n_bytes(self) -> int:
        return sum(map(len, self.states.values()))

    def packed(self) -> bytes:
        """All of it, to stand before the state of a context."""
        entries = [_ENTRY.pack(m.n_past, m.n_cells, m.n_visual, len(state)) for m, state in self.states.items()]
        return b"".join([_HEAD.pack(len(entries)), *entries, *self.states.values()])

    @classmethod
    def unpacked(cls, data: bytearray, most: int) -> tuple[Points, bytearray]:
        """What `packed` wrote of at most so many places, and what follows it. Raises ValueError."""
        try:
            (n,) = _HEAD.unpack_from(data)
            if n > most:
                raise ValueError(f"{n} places")
            entries = [_ENTRY.unpack_from(data, _HEAD.size + i * _ENTRY.size) for i in range(n)]
        except struct.error as e:
            raise ValueError("too short") from e
        at, states = _HEAD.size + n * _ENTRY.size, dict[Mark, bytes]()
        for *place, size in entries:
            states[Mark(*place)] = bytes(data[at : at + size])
            at += size
        if at > len(data):
            raise ValueError("too short")
        return cls(states), data[at:]
