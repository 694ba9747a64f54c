"""What a conversion has written, opened as a user will open it: a picture and a clip planned, weights looked at.

What can be found by opening is found here, while the checkpoint is at hand, and not at the first question, which need
not look again then (store/seen.py). Knows nothing of what is in the files.
"""

from contextlib import closing
from pathlib import Path

from aim_local.config import LoadConfig
from aim_local.errors import AimError
from aim_local.media import MediaShape

from .errors import ConvertError

PICTURE = MediaShape("image", 1, 90, 160, "picture", "", (), (), float("nan"))
CLIP = MediaShape("video", 2, 90, 160, "clip", "", (0.0, 1.0), (0, 1), 2.0)


def look_through(model: Path | None = None, mmproj: Path | None = None) -> None:
    """Tries out files that were just written, weights too. Raises ModelError."""
    from aim_local.native.rehearsal import rehearse
    from aim_local.store.gguf_header import read_whole

    for kind, path in (("text", model), ("vision", mmproj)):
        if path is not None:
            rehearse([read_whole(path)], kind, weights=True)


def check_usable(src: Path, model: Path, mmproj: Path) -> None:
    """Raises ConvertError with the line that opening them, or asking about a picture or a clip, would end with."""
    from aim_local.engine.model import open_model
    from aim_local.engine.plan import plan_prompt
    from aim_local.models.prompt import Message, references

    try:
        with closing(open_model(model, mmproj, LoadConfig(), weights=False)) as opened:
            for shape in (PICTURE, CLIP):
                rendered = opened.render([Message("user", "What?", references([shape]))])
                plan_prompt(opened, rendered, [shape])
        look_through(model, mmproj)
    except AimError as e:
        raise unusable(src, "converts", model.parent, e) from e


def unusable(src: Path, does: str, folder: Path, e: AimError) -> ConvertError:
    """What is said of a `src` whose outputs, in `folder`, raised `e`. does: "converts" or the like."""
    told = str(e).replace(f"{folder}/", "")
    return ConvertError(f"{src}: what it {does} to could not be used: {told}")
