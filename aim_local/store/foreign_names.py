"""Names that others wrote, before they become a path: a hub's answers, hub.json of a copied folder."""

from __future__ import annotations

_LONGEST_PART, _MOST_PARTS = 255, 32  # bytes of a name on every common file system; folders within folders


def stays_inside(name: str) -> bool:
    """Whether a file's name, with / between its parts, leads to no place outside the folder it is read in.

    A name that no file system would take leads nowhere: asking about it raises OSError, so it is none either.
    """
    parts = [part.encode("utf-8", "surrogatepass") for part in name.split("/")]
    if "\\" in name or any(part in (b"", b".", b"..") for part in parts):
        return False
    return max(map(len, parts)) <= _LONGEST_PART and len(parts) <= _MOST_PARTS
