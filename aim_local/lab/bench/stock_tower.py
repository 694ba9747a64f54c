"""A vision tower's file as the unpatched library reads it: the same weights under a projector that it knows.

Our tile towers are plain ViTs with two matrices behind them. Upstream runs such a file as "mlp", one picture one tile,
once the keys that cut pictures into tiles are gone and the last layer is named as the one to read.
"""

from __future__ import annotations

from pathlib import Path

import gguf

from ...errors import UsageError
from ...models.base import Tower
from ...models.tiles import TileTower

PROJECTOR, PROJECTOR_KEY = "mlp", "clip.projector_type"
LAYER_KEY = "clip.vision.feature_layer"
TILE_KEYS = ("clip.vision.image_grid_pinpoints", "clip.vision.mm_patch_merge_type")


def stock_mmproj(tower: Tower | None, path: Path, folder: Path) -> Path:
    """The file itself where upstream knows its projector, else a copy in `folder`.

    Raises UsageError for a tower that does not run tile by tile: upstream would be given other work than ours.
    """
    if tower is None or tower.facts is None:
        raise UsageError(
            f"{path}: its tower takes whole pictures, stock and ours cannot be paired; take skip_vision=True"
        )
    if not isinstance(tower, TileTower) or tower.projector == PROJECTOR:
        return path
    target = folder / "stock-mmproj.gguf"
    write_stock_mmproj(path, target)
    return target


def write_stock_mmproj(source: Path, target: Path) -> None:
    """Raises OSError."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "clip")
    left_out = (PROJECTOR_KEY, LAYER_KEY, "general.architecture", *TILE_KEYS)
    for name, field in reader.fields.items():
        if name not in left_out and not name.startswith("GGUF."):
            writer.add_key_value(name, field.contents(), field.types[0], field.types[1] if field.types[1:] else None)
    writer.add_string(PROJECTOR_KEY, PROJECTOR)
    writer.add_array(LAYER_KEY, [int(reader.fields["clip.vision.block_count"].contents())])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
