"""Names that others wrote, before they become a path: a hub's answers, hub.json of a copied folder."""

from __future__ import annotations


def stays_inside(name: str) -> bool:
    """Whether a file's name, with / between its parts, leads to no place outside the folder it is read in."""
    return "\\" not in name and not any(part in ("", ".", "..") for part in name.split("/"))
