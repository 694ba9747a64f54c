"""Texts that others wrote, before they are shown or become a path: a hub's answers, hub.json of a copied folder."""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, bidi and other format characters, lone surrogates, line ends


def is_visible(text: str) -> bool:
    """Whether no character of it does anything to a terminal or hides."""
    return not any(unicodedata.category(c) in _UNPRINTABLE for c in text)


def stays_inside(name: str) -> bool:
    """Whether a file's name, with / between its parts, leads to no place outside the folder it is read in."""
    return "\\" not in name and not any(part in ("", ".", "..") for part in name.split("/"))
