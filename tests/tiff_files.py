"""A writer of TIFF files of every kind, independent of Pillow and libtiff, and the colours that such a file shows.

https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf (TIFF 6.0), Adobe's technical note 3 on TIFF (predictor 3)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

GREY0, GREY, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8  # kinds of colour (PhotometricInterpretation)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat
PLAIN, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773  # Compression
_ROWS, _TILE = 8, 16  # of a strip, and of a tile in both directions
_SHORT, _LONG = 3, 4
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kind:
    """samples: of a pixel, the `extra` ones included. extra: ExtraSamples, one value for each. order: II or MM."""

    colour: int = GREY
    bits: int = 8
    format: int = UNSIGNED
    order: str = "II"
    compression: int = PLAIN
    is_planar: bool = False
    is_tiled: bool = False
    predictor: int = 1
    fill_order: int = 1
    extra: tuple[int, ...] = ()
    subsampling: int = 1  # of YCbCr, in both directions

    @property
    def n_samples(self) -> int:
        return {RGB: 3, CMYK: 4, YCBCR: 3, LAB: 3}.get(self.colour, 1) + len(self.extra)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a sample of whole bytes, in the file's order."""
        kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[self.format]
        return np.dtype(f"{'<' if self.order == 'II' else '>'}{kind}{max(8, self.bits) // 8}")


def samples_of(kind: Kind, height: int = 21, width: int = 37) -> Array:
    """Any samples [h, w, n], over the whole range of the kind: floats from 0 to 1; signed ones from 0 on."""
    shape, generator = (height, width, kind.n_samples), np.random.default_rng(1)
    if kind.format == FLOAT:
        return generator.random(shape).astype(kind.dtype)
    bits = kind.bits - (kind.format == SIGNED)
    found = generator.integers(0, 2**bits, shape, np.uint64)
    if kind.extra[:1] == (1,):  # multiplied by alpha
        n = kind.n_samples - len(kind.extra)
        found[..., :n] = np.round(found[..., :n] / 2**bits * found[..., n, None])
    if kind.colour == YCBCR and kind.subsampling > 1:
        n = kind.subsampling
        found[..., 1:] = found[::n, ::n, 1:].repeat(n, 0).repeat(n, 1)[:height, :width]
    return found.astype(kind.dtype)


def colour_map(kind: Kind) -> Array:
    """uint16 [3, 2**bits] of a palette."""
    found: Array = np.random.default_rng(2).integers(0, 65536, (3, 2**kind.bits)).astype(np.uint16)
    return found


def shown(kind: Kind, samples: Array) -> Array:
    """float [h, w, 3] from 0 to 255: alpha (1 or 2 in ExtraSamples) over white."""
    values = samples.astype(np.float64) * 255 / (1 if kind.format == FLOAT else 2**kind.bits - 1)
    n = kind.n_samples - len(kind.extra)
    if kind.colour == PALETTE:
        colours = np.moveaxis(colour_map(kind)[:, samples[..., 0]] / 257.0, 0, -1)
    else:
        colours = _colours(kind.colour, values[..., :n])
    if not {1, 2} & set(kind.extra):
        return colours
    alpha = values[..., n, None] / 255
    return (colours if kind.extra[0] == 1 else colours * alpha) + 255 * (1 - alpha)


def _colours(colour: int, values: Array) -> Array:
    if colour in (GREY0, GREY):
        return np.repeat(255 - values if colour == GREY0 else values, 3, axis=2)
    if colour == CMYK:
        return (255 - values[..., :3]) * (255 - values[..., 3:]) / 255
    if colour == YCBCR:  # ITU-R BT.601, as TIFF says where a file does not
        y, cb, cr = values[..., 0], values[..., 1] - 128, values[..., 2] - 128
        found = (y + 1.402 * cr, y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr, y + 1.772 * cb)
        return np.clip(np.stack(found, axis=2), 0, 255)
    assert colour == RGB
    return values


def encoded(kind: Kind, samples: Array) -> bytes:
    """The file."""
    height, width, n = samples.shape
    planes = np.split(samples, n, axis=2) if kind.is_planar else [samples]
    cells = [_stored(kind, _row_bytes(kind, cell)) for plane in planes for cell in _cells(kind, plane)]
    tags: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (_SHORT, (width,)), 257: (_SHORT, (height,)), 258: (_SHORT, (kind.bits,) * n),
        259: (_SHORT, (kind.compression,)), 262: (_SHORT, (kind.colour,)), 277: (_SHORT, (n,)),
        284: (_SHORT, (2 if kind.is_planar else 1,)), 317: (_SHORT, (kind.predictor,)),
        339: (_SHORT, (kind.format,) * n),
    }  # fmt: skip
    if kind.fill_order != 1:
        tags[266] = (_SHORT, (kind.fill_order,))
    if kind.extra:
        tags[338] = (_SHORT, kind.extra)
    if kind.colour == PALETTE:
        tags[320] = (_SHORT, tuple(colour_map(kind).ravel().tolist()))
    if kind.colour == YCBCR:
        tags[530] = (_SHORT, (kind.subsampling, kind.subsampling))
    if kind.is_tiled:
        tags |= {322: (_SHORT, (_TILE,)), 323: (_SHORT, (_TILE,))}
    else:
        tags[278] = (_SHORT, (_ROWS,))
    offsets, sizes = (324, 325) if kind.is_tiled else (273, 279)
    starts = np.cumsum([8, *map(len, cells)]).tolist()
    tags |= {offsets: (_LONG, tuple(starts[:-1])), sizes: (_LONG, tuple(map(len, cells)))}
    return _file(kind.order, b"".join(cells), tags)


def _file(order: str, data: bytes, tags: dict[int, tuple[int, tuple[int, ...]]]) -> bytes:
    """Head, pixels, the tags behind them."""
    mark = "<" if order == "II" else ">"
    data += bytes(len(data) % 2)
    at = 8 + len(data)
    entries, lists, behind = b"", b"", at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        body = struct.pack(f"{mark}{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(body) > 4:
            lists, body = lists + body, struct.pack(mark + "I", behind + len(lists))
        entries += struct.pack(mark + "HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    head = order.encode() + struct.pack(mark + "HI", 42, at)
    return head + data + struct.pack(mark + "H", len(tags)) + entries + bytes(4) + lists


def _cells(kind: Kind, plane: Array) -> Iterator[Array]:
    """Strips or tiles, left to right, top to bottom; tiles are filled up."""
    height, width, _ = plane.shape
    for top in range(0, height, _TILE if kind.is_tiled else _ROWS):
        if not kind.is_tiled:
            yield plane[top : top + _ROWS]
            continue
        for left in range(0, width, _TILE):
            cell = plane[top : top + _TILE, left : left + _TILE]
            yield np.pad(cell, ((0, _TILE - cell.shape[0]), (0, _TILE - cell.shape[1]), (0, 0)))


def _row_bytes(kind: Kind, cell: Array) -> list[bytes]:
    if kind.colour == YCBCR and kind.subsampling > 1:
        return [bytes(row) for row in _units(cell, kind.subsampling)]
    if kind.bits < 8 or kind.bits == 12:
        places = np.arange(kind.bits - 1, -1, -1)
        flat = cell.reshape(len(cell), -1).astype(np.int64)
        bits = ((flat[..., None] >> places) & 1).reshape(len(cell), -1).astype(np.uint8)
        return [row.tobytes() for row in np.packbits(bits, axis=1)]
    if kind.predictor == 2:
        whole = cell.view(f"{kind.dtype.byteorder if kind.bits > 8 else '|'}u{kind.bits // 8}").astype(np.uint64)
        whole[:, 1:] -= whole[:, :-1].copy()
        cell = whole.astype(f"{kind.dtype.str[0]}u{kind.bits // 8}")
    elif kind.predictor == 3:
        return [_float_row(row) for row in cell]
    return [row.tobytes() for row in cell]


def _float_row(row: Array) -> bytes:
    """[w, n] of floats: all first bytes, then all second bytes, as differences to those n before."""
    n = row.shape[1]
    flat = np.frombuffer(row.astype(row.dtype.newbyteorder(">")).tobytes(), np.uint8)
    shuffled = flat.reshape(-1, row.dtype.itemsize).T.ravel().astype(np.int64)
    shuffled[n:] -= shuffled[:-n].copy()
    return (shuffled % 256).astype(np.uint8).tobytes()


def _units(cell: Array, n: int) -> Iterator[list[int]]:
    """Rows of YCbCr's data units: n x n values of Y, and one each of Cb and Cr."""
    height, width = (-(-side // n) * n for side in cell.shape[:2])
    whole = np.pad(cell, ((0, height - cell.shape[0]), (0, width - cell.shape[1]), (0, 0)), mode="edge")
    for top in range(0, height, n):
        row = list[int]()
        for left in range(0, width, n):
            row += [*whole[top : top + n, left : left + n, 0].ravel().tolist(), *whole[top, left, 1:].tolist()]
        yield row


# --- compression -----------------------------------------------------------------------------------------------------


def _stored(kind: Kind, rows: list[bytes]) -> bytes:
    data = _compressed(kind, rows)
    if kind.fill_order == 1:
        return data
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()


def _compressed(kind: Kind, rows: list[bytes]) -> bytes:
    if kind.compression == DEFLATE:
        return zlib.compress(b"".join(rows))
    if kind.compression == LZW:
        return _lzw(b"".join(rows))
    if kind.compression == PACKBITS:
        return b"".join(map(_packbits, rows))
    return b"".join(rows)


def _lzw(data: bytes) -> bytes:
    """Codes of 9 bits alone: the table is cleared before it needs more."""
    clear, end, most = 256, 257, 200
    codes = list[int]()
    for at in range(0, len(data), most):
        codes += [clear, *data[at : at + most]]
    bits = ((np.array([*codes, end])[:, None] >> np.arange(8, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(bits.ravel()).tobytes()


def _packbits(row: bytes) -> bytes:
    """Literal bytes, up to 128 at a time."""
    pieces = (row[at : at + 128] for at in range(0, len(row), 128))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
