"""Which files a model name means: the bundled model, the local store, a converted folder, a GGUF path.

Knows folders and file names, and the heads of GGUF files for the listing. Loads no native library.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError

BUNDLED = "demo"  # the bundled model's name; no model in the store can have it
HOME_VARIABLE = "AIM_LOCAL_HOME"
MODEL, MMPROJ, MANIFEST = "model.gguf", "mmproj.gguf", "aim.json"
_SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class ModelPaths:
    """The files of one model. mmproj: vision tower and projector; None for a model that takes text only."""

    name: str
    model: Path
    mmproj: Path | None


@dataclass(frozen=True)
class ModelEntry:
    """One line of the listing. types: tensors per weight type and file; problem: why it cannot be used, or None."""

    name: str
    path: Path
    bundled: bool
    architecture: str = ""
    projector: str = ""
    n_params: int = 0
    n_bytes: int = 0
    quantisation: str = ""
    vision_quantisation: str = ""
    types: dict[str, dict[str, int]] | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "path": str(self.path), "types": self.types or {}}


def data_folder() -> Path:
    """Where models live: AIM_LOCAL_HOME, or the platform's folder for application data."""
    return _user_folder("user_data_path")


def state_folder() -> Path:
    """Where the prompt's history lives: AIM_LOCAL_HOME, or the platform's folder for application state."""
    return _user_folder("user_state_path")


def cache_folder() -> Path:
    """Where things live that can be made again: AIM_LOCAL_HOME/cache, or the platform's cache folder."""
    folder = _user_folder("user_cache_path")
    return folder / "cache" if os.environ.get(HOME_VARIABLE) else folder


def _user_folder(kind: str) -> Path:
    override = os.environ.get(HOME_VARIABLE)
    if override:
        return Path(override).expanduser()
    import platformdirs

    folder: Path = getattr(platformdirs, kind)("aim-local", appauthor=False)
    return folder


def models_folder() -> Path:
    """The local store: one folder per model."""
    return data_folder() / "models"


def bundled_folder() -> Path | None:
    """The bundled model's folder in the package; None where this installation has none."""
    import aim_local

    # an editable install has its sources and its compiled files in different folders of __path__
    for folder in aim_local.__path__:
        candidate = Path(folder) / "data" / "model"
        if (candidate / MODEL).is_file():
            return candidate
    return None


def store_path(name: str) -> Path:
    """The folder in the store for a model called `name`. Raises UsageError for what cannot be a name."""
    if not re.fullmatch(r"\w[\w.+-]*", name) or name.endswith((".gguf", ".")):
        raise UsageError(
            f"model name {name!r} is not allowed; use letters, digits and . _ + - (a folder goes to --out)"
        )
    if name.lower() == BUNDLED:
        raise UsageError(f"model name {name!r} belongs to the bundled model; choose another")
    return models_folder() / name


def store_names() -> list[str]:
    """Names of the folders in the local store, sorted."""
    try:
        found = [p.name for p in models_folder().iterdir() if p.is_dir() and not p.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as e:
        raise ModelError(
            f"{models_folder()} cannot be read ({e.strerror}); check its permissions or set {HOME_VARIABLE}"
        ) from e
    return sorted(found)


def resolve(model: str | Path | None = None, mmproj: str | Path | None = None) -> ModelPaths:
    """The files that `model` means: None or "demo" the bundled model, a name in the store, a GGUF, a model folder.

    mmproj: names the vision tower; None takes the one beside the model where there is exactly one.
    Raises ModelError.
    """
    paths = _bundled() if model is None or model == BUNDLED else _named(model)
    return paths if mmproj is None else ModelPaths(paths.name, paths.model, _mmproj_file(Path(mmproj)))


def _named(model: str | Path) -> ModelPaths:
    text = os.fspath(model)
    if not text:
        raise ModelError("the model name is empty; give a name from `aim-local models`, a GGUF file or a model folder")
    if isinstance(model, str) and _looks_like_name(text):
        if text in store_names():
            return _folder(models_folder() / text)
        if not Path(text).exists():
            raise ModelError(_unknown(text))
    path = Path(text).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ModelError(
            f"{path}: no such model file or folder; `aim-local models` lists the names that can be used instead"
        )
    return _file(path)


def _looks_like_name(text: str) -> bool:
    return not text.endswith(".gguf") and not text.startswith(("~", ".")) and not any(c in text for c in ("/", os.sep))


def _unknown(name: str) -> str:
    known = [BUNDLED, *store_names()]
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=3, cutoff=0.5)
    shown = [k for k in known if k.lower() in near]
    hint = (
        f"did you mean {' or '.join(shown)}?"
        if shown
        else f"known are {', '.join(known[:8])}{' ...' if len(known) > 8 else '.'}"
    )
    return f"no model called {name!r}; {hint} A GGUF file or a folder written by `aim-local convert` can be named too"


def _bundled() -> ModelPaths:
    folder = bundled_folder()
    if folder is None:
        raise ModelError("this installation has no bundled model; name a model, or reinstall aim-local")
    return ModelPaths(BUNDLED, folder / MODEL, folder / MMPROJ if (folder / MMPROJ).is_file() else None)


def _folder(folder: Path) -> ModelPaths:
    manifest = read_manifest(folder)
    if manifest:
        model, mmproj = (folder / manifest[key] if key in manifest else None for key in ("model", "mmproj"))
        if model is None or not model.is_file():
            raise ModelError(f"{folder}: {MANIFEST} names a model file that is not there; convert the checkpoint again")
        if mmproj is not None and not mmproj.is_file():
            raise ModelError(f"{folder}: {mmproj.name} is missing; convert the checkpoint again")
        return ModelPaths(folder.resolve().name, model, mmproj)
    return ModelPaths(folder.resolve().name, _only_model(folder), _beside(folder))


def read_manifest(folder: Path) -> dict[str, str]:
    """File names by role from the folder's aim.json; empty where there is none. Raises ModelError for a broken one."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {key: Path(str(value["path"])).name for key, value in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{path}: cannot be read as a model's manifest ({e}); convert the checkpoint again") from e


def _only_model(folder: Path) -> Path:
    found = [p for p in _ggufs(folder) if not _is_mmproj(p)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelError(f"{folder}: holds {len(found)} models ({_some(found)}); name one of the files")
    if (folder / "config.json").is_file():
        raise ModelError(
            f"{folder}: is a checkpoint that is not converted; run `aim-local convert {folder} --out DIR` first"
        )
    raise ModelError(
        f"{folder}: is no model folder, it holds no language GGUF; name a folder written by `aim-local convert`"
    )


def _file(path: Path) -> ModelPaths:
    name = path.resolve().parent.name if path.name == MODEL else path.stem
    return ModelPaths(name, path, None if _is_mmproj(path) else _beside(path.parent))


def _beside(folder: Path) -> Path | None:
    """The mmproj in `folder`; None where there is none, ModelError where it would be a guess."""
    found = [p for p in _ggufs(folder) if _is_mmproj(p)]
    if len(found) > 1:
        raise ModelError(f"{folder}: holds {len(found)} vision towers ({_some(found)}); name one with --mmproj")
    return found[0] if found else None


def _ggufs(folder: Path) -> list[Path]:
    """GGUF files of `folder`, of a split model the first part only."""
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix == ".gguf" and not p.name.startswith("."))
    except OSError as e:
        raise ModelError(f"{folder}: cannot be read ({e.strerror}); check its permissions") from e
    shards = {p: _SHARD.search(p.name) for p in found}
    return [p for p, shard in shards.items() if shard is None or int(shard[1]) == 1]


def _is_mmproj(path: Path) -> bool:
    return path.name.lower().startswith("mmproj")


def _mmproj_file(path: Path) -> Path:
    path = path.expanduser()
    if path.is_dir():
        found = _beside(path)
        if found is None:
            raise ModelError(f"{path}: holds no mmproj*.gguf; name the vision tower's file")
        return found
    if not path.exists():
        raise ModelError(f"{path}: no such mmproj file; name the vision tower's GGUF")
    return path


def _some(paths: list[Path]) -> str:
    return ", ".join(p.name for p in paths[:3]) + (" ..." if len(paths) > 3 else "")


def list_models() -> list[ModelEntry]:
    """The bundled model, if there is one, then the store's. A broken model is listed with its problem."""
    folder = bundled_folder()
    entries = [] if folder is None else [_entry(BUNDLED, folder, bundled=True)]
    return entries + [_entry(name, models_folder() / name, bundled=False) for name in store_names()]


def _entry(name: str, folder: Path, bundled: bool) -> ModelEntry:
    from .gguf_header import read_header

    try:
        paths = _folder(folder)
        heads = {"model": read_header(paths.model)}
        if paths.mmproj is not None:
            heads["mmproj"] = read_header(paths.mmproj)
        cut = [head for head in heads.values() if head.missing_bytes()]
        problem = (
            f"{cut[0].path.name} lacks {cut[0].missing_bytes()} bytes; convert or download it again" if cut else None
        )
    except ModelError as e:
        return ModelEntry(name, folder, bundled, problem=str(e))
    vision = heads.get("mmproj")
    return ModelEntry(
        name=name,
        path=folder,
        bundled=bundled,
        architecture=heads["model"].architecture,
        projector=str(vision.metadata.get("clip.projector_type", "")) if vision else "",
        n_params=sum(head.n_params for head in heads.values()),
        n_bytes=sum(head.n_bytes for head in heads.values()),
        quantisation=heads["model"].file_type,
        vision_quantisation=vision.file_type if vision else "",
        types={key: head.types() for key, head in heads.items()},
        problem=problem,
    )


def source_of(model: str | Path) -> Path:
    """The folder or file that a name, folder or GGUF path means, for commands that work on files. Raises ModelError."""
    if model == BUNDLED:
        return _bundled().model.parent
    if str(model) in store_names():
        return models_folder() / str(model)
    path = Path(model).expanduser()
    return path if path.exists() else _named(model).model


def beside(source: Path, suffix: str) -> Path:
    """A sibling of `source` with `suffix` in its name: a/model.gguf -> a/model-q4_k_m.gguf, a -> a-q4_k_m.

    Of the bundled model's folder a model in the store: nothing is written into the package.
    """
    if source == bundled_folder():
        return models_folder() / f"{BUNDLED}-{suffix.lower()}"
    if source.is_dir():
        folder = source.resolve()
        return folder.with_name(f"{folder.name}-{suffix.lower()}")
    return source.with_name(f"{source.stem}-{suffix.lower()}{source.suffix}")
