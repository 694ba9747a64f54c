"""From tensors a tower needs to tensors that will be written. Pure: nothing is read but headers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from .checkpoint import DTYPES, TensorRef
from .errors import ConvertError, some
from .types import n_bytes

Transform = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Need:
    """A tensor that must be there: our name (names.py) and its shape. optional: it is written where it is there."""

    name: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Planned:
    """A tensor to write: its name in the GGUF, where it comes from, its type.

    `transform` works on any multiple of `row_group` rows.
    """

    name: str
    source: TensorRef
    type: GGMLQuantizationType
    transform: Transform | None = None
    row_group: int = 1

    @property
    def n_bytes(self) -> int:
        return n_bytes(self.source.shape, self.type)


def fulfil(needs: list[Need], tensors: Mapping[str, TensorRef]) -> list[tuple[Need, TensorRef]]:
    """Each need with its tensor. One error names what is missing, one what is misshapen."""
    needs = [need for need in needs if not need.optional or need.name in tensors]
    missing = [need.name for need in needs if need.name not in tensors]
    if missing:
        raise ConvertError(
            f"the checkpoint lacks {len(missing)} of {len(needs)} tensors ({some(missing)}); "
            "download it again, or check that config.json belongs to it"
        )
    pairs = [(need, tensors[need.name]) for need in needs]
    wrong = [
        f"{ref.name} is {list(ref.shape)}, not {list(need.shape)}" for need, ref in pairs if ref.shape != need.shape
    ]
    if wrong:
        raise ConvertError(
            f"{len(wrong)} tensors have another shape than config.json says ({some(wrong)}); "
            "check that it belongs to these weights"
        )
    packed = [f"{ref.name} is {ref.dtype}" for _, ref in pairs if ref.dtype not in DTYPES]
    if packed:
        raise ConvertError(
            f"{len(packed)} tensors are not plain numbers ({some(packed)}); allowed are {', '.join(DTYPES)}: "
            "convert the unquantised checkpoint"
        )
    return pairs
