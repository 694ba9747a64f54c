"""Names that others wrote, before they become a path: a hub's answers, hub.json of a copied folder, a manifest."""

from __future__ import annotations

import re

from ..visible import is_visible

_LONGEST, _LONGEST_PART, _MOST_PARTS = 1024, 255, 32  # bytes, of every common file system; folders within folders
_DRIVE = re.compile(r"[A-Za-z]:")


def fault_of(name: str) -> str:
    """Why a file's name, with / between its parts, is not taken, as "has control characters"; "" where it is.

    What is taken leads to no place outside the folder it is read in, on any system, and can be made and asked about.
    """
    if not is_visible(name):
        return "has control or invisible characters"
    parts = [part.encode() for part in name.split("/")]
    if len(name.encode()) > _LONGEST or max(map(len, parts)) > _LONGEST_PART or len(parts) > _MOST_PARTS:
        return "is longer than a file's name can be"
    if "\\" in name or _DRIVE.match(name) or any(part in (b"", b".", b"..") for part in parts):
        return "would lie outside its folder"
    return ""
