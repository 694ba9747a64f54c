"""Colours: an importance ramp that is even to the eye, one hue per token, and what a dropped patch looks like."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# sRGB, low to high; lightness rises evenly (CIE L* 15 to 90 in steps of about 12), hue from blue over green to yellow,
# so that the order survives colour blindness and print
RAMP = ((68, 1, 84), (68, 57, 131), (49, 104, 142), (33, 145, 140), (53, 183, 121), (144, 215, 67), (253, 231, 37))

FOG = 104  # grey that dropped patches fade into: a dark picture's patches become lighter, a bright one's darker
FOG_SHARE = 0.72
HEAT_SHARE = 0.78  # of the ramp's colour over the grey picture
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

_GOLDEN = 0.618034  # neighbours in number are far apart in hue


def ramp(levels: NDArray[np.floating]) -> Pixels:
    """[...] in [0, 1] -> uint8 [..., 3], linear between the anchors."""
    anchors = np.array(RAMP, np.float64)
    places = np.linspace(0, 1, len(anchors))
    channels = [np.interp(levels, places, anchors[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def hues(first: int, n: int) -> Pixels:
    """uint8 [n, 3]: outline colours of n tokens from number `first` on, the same in every picture."""
    colours = [colorsys.hls_to_rgb(i * _GOLDEN % 1, 0.62, 0.95) for i in range(first, first + n)]
    return (np.array(colours).reshape(n, 3) * 255).round().astype(np.uint8)


def grey(pixels: Pixels) -> NDArray[np.float64]:
    """[h, w, 3] -> luma [h, w, 1]"""
    return np.asarray((pixels @ np.array(LUMA))[..., None])


def fogged(pixels: Pixels) -> Pixels:
    """What a dropped patch looks like: no colour, little contrast."""
    mixed = FOG_SHARE * FOG + (1 - FOG_SHARE) * grey(pixels)
    return np.broadcast_to(mixed.round().astype(np.uint8), pixels.shape).copy()


def heated(pixels: Pixels, levels: NDArray[np.floating]) -> Pixels:
    """A picture [h, w, 3] under its heat map [h, w]."""
    mixed = HEAT_SHARE * ramp(levels) + (1 - HEAT_SHARE) * grey(pixels)
    return np.asarray(mixed.round().astype(np.uint8))
