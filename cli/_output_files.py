"""Where `explain` writes its pictures: checked before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from aim_local.errors import UsageError

DEFAULT_FOLDER = Path("explain")


def output_files(out: Path | None, png: Path | None, html: Path | None, json: bool) -> dict[str, Path]:
    """Where "png" and "html" go; makes nothing. Raises UsageError where they cannot go, before anything is computed."""
    if out is not None and (png is not None or html is not None):
        raise UsageError("--out names a folder for both files; give it, or --png and --html")
    if png is None and html is None:
        if out is None and json:
            return {}
        folder = out or DEFAULT_FOLDER
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise UsageError(f"{there} is a file; --out takes a folder")
        _check_writable(there)
        return {"png": folder / "explain.png", "html": folder / "explain.html"}
    files = {kind: path for kind, path in (("png", png), ("html", html)) if path is not None}
    for kind, path in files.items():
        _check_file(kind, path)
    return files


def _check_file(kind: str, path: Path) -> None:
    if path.suffix.lower() != f".{kind}":
        raise UsageError(f"--{kind} {path}: the name must end in .{kind}")
    if path.is_dir():
        raise UsageError(f"--{kind} {path} is a folder; give a file in it")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--{kind} {path}: the folder {path.parent} does not exist; make it first")
    _check_writable(path.absolute().parent)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: nothing can be written there; check its permissions, or give another folder")
