"""Checks on files named as video or picture, before any work is done with them. Decoding is aim_local.media's."""

from __future__ import annotations

from pathlib import Path


def check_video(path: Path) -> Path:
    """A file that can be read. Raises MediaError."""
    from aim_local.media.files import check_file

    return check_file(path)


def check_image(path: Path) -> Path:
    """A still picture. Raises MediaError."""
    from aim_local.errors import MediaError
    from aim_local.media.pictures import picture_kind

    kind = picture_kind(check_video(path))
    if kind is None:
        from aim_local.media import probe_video

        info = probe_video(path)  # its error is the right one for a file that is neither
        raise MediaError(f"{path}: is a video ({info.codec}, {info.duration:.1f} s), not a picture; give it as a video")
    if kind.animated:
        raise MediaError(f"{path}: is an animated picture; give it as a video")
    return path
