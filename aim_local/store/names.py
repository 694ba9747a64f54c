"""Which files a model name means: the bundled model, the local store, a converted folder, a GGUF path.

Knows folders and file names, and the heads of GGUF files for the listing. Loads no native library.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError
from ..paths import Name, home_path_of, path_of
from . import gguf_files
from .foreign_names import fault_of
from .known import Reference, find_known, known_models, parse_reference
from .plain_json import read_object
from .pulled import Origin, read_origin

BUNDLED = "demo"  # the bundled model's name; no model in the store can have it
LONGEST = 200  # bytes of a name: a file name of the system less what is put around it while it is made
HOME_VARIABLE = "AIM_LOCAL_HOME"
MODEL, MMPROJ, MANIFEST = "model.gguf", "mmproj.gguf", "aim.json"


@dataclass(frozen=True)
class ModelPaths:
    """The files of one model. mmproj: vision tower and projector; None for a model that takes text only."""

    name: str
    model: Path
    mmproj: Path | None

    @property
    def files(self) -> list[Path]:
        """All of them, every part of a split GGUF too."""
        return [*gguf_files.parts(self.model), *([self.mmproj] if self.mmproj else [])]


@dataclass(frozen=True)
class ModelEntry:
    """One line of the listing. types: tensors per weight type and file; origin: repository and quantisation of a
    pulled one; problem: why it cannot be used, or None.
    """

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
    origin: str = ""
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
        return Path(os.path.expanduser(override))
    import platformdirs

    folder: Path = getattr(platformdirs, kind)("aim-local", appauthor=False)
    return folder


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Makes a folder of ours and those above it; a home that is not there is its user's to make. Raises OSError."""
    check_home(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=mode)


def check_home(folder: Path) -> None:
    """Raises OSError for a folder in a home that does not exist, as a user has who is no person."""
    home = Path(os.path.expanduser("~"))
    if folder.is_relative_to(home) and not home.is_dir():
        why = f"the home folder {home} does not exist; make it, or set {HOME_VARIABLE} to a folder that can be written"
        raise FileNotFoundError(errno.ENOENT, why)


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
        raise UsageError(f"model name {name!r} is not allowed; use letters, digits and . _ + -; it is no path")
    if len(name.encode()) > LONGEST:
        raise UsageError(f"model name {name[:40]}... has {len(name.encode())} bytes; use {LONGEST} at most")
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


def resolve(model: Name | None = None, mmproj: Name | None = None) -> ModelPaths:
    """The files that `model` means: None or "demo" the bundled model, a name in the store, a GGUF, a model folder.

    mmproj: names the vision tower; None takes the one beside the model where there is exactly one.
    Raises ModelError.
    """
    if model is not None and not isinstance(model, str):  # which may be a name that is no file's
        model = os.fsdecode(model) if isinstance(model, bytes) else path_of(model, "the model")
    if mmproj is not None:
        return _with_mmproj(model, home_path_of(mmproj, "the vision tower"))
    return _bundled() if model is None or model == BUNDLED else _named(model)


def _named(model: str | Path) -> ModelPaths:
    text = os.fspath(model)
    if not text:
        raise ModelError("the model name is empty; give a name from `aim-local models`, a GGUF file or a model folder")
    if isinstance(model, str):
        stored = stored_name(text)
        if stored is not None:
            return _folder(models_folder() / stored)
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):  # unlike Path's, false for a name that is longer than a file's can be
        return _folder(path)
    if os.path.exists(path):
        return _file(path)
    reference = parse_reference(text) if isinstance(model, str) else None
    if reference is not None:
        here = ", ".join(pulled_names(text))
        also = f"; of that repository {here} can be named" if here else ""
        raise ModelError(f"{text} is not on this machine yet; `aim-local pull {text}` fetches it{also}")
    if isinstance(model, str) and _looks_like_name(text):
        raise ModelError(_unknown(text))
    raise ModelError(
        f"{path}: no such model file or folder; `aim-local models` lists the names that can be used instead"
    )


def stored_name(text: str) -> str | None:
    """The folder in the store that a name means: as `exact_name`, else the only one here of the repository.

    The latter only where no quantisation is asked.
    """
    exact = exact_name(text)
    if exact is not None:
        return exact
    reference, here = _reference(text), pulled_names(text)
    return here[0] if reference is not None and not reference.quant and len(here) == 1 else None


def exact_name(text: str) -> str | None:
    """A folder's own name, or the pulled model of that repository and quantisation; the default where none is asked."""
    names = store_names()
    if text in names:
        return text
    reference = _reference(text)
    return next((n for n, o in _pulled_of(reference).items() if _is_asked(o, reference)), None) if reference else None


def pulled_names(text: str) -> tuple[str, ...]:
    """Models in the store that came from the repository which `text` means, whatever their quantisation."""
    reference = _reference(text)
    return tuple(_pulled_of(reference)) if reference else ()


def _reference(text: str) -> Reference | None:
    """What of the hub is meant. A path that exists goes first, but not before a known name, as store names do."""
    reference = parse_reference(text)
    is_path = ("/" in text or reference is None or reference.known is None) and os.path.exists(os.path.expanduser(text))
    return None if is_path else reference


def _pulled_of(reference: Reference) -> dict[str, Origin]:
    found = dict[str, Origin]()
    for name in store_names():
        with suppress(ModelError):  # a damaged one is told in the listing
            origin = read_origin(models_folder() / name)
            if origin is not None and origin.repo.lower() == reference.repo.lower():
                found[name] = origin
    return found


def _is_asked(origin: Origin, reference: Reference) -> bool:
    quant = reference.quant or (reference.known.quant if reference.known else "")
    return origin.quant.lower() == quant.lower() if quant else origin.default


def _looks_like_name(text: str) -> bool:
    if text.lower().endswith(".gguf") or text.startswith(("~", ".")):
        return False
    return not any(c in text for c in ("/", os.sep))


def _unknown(name: str) -> str:
    here, known = [BUNDLED, *store_names()], [model.name for model in known_models()]
    shown = _near(name, here) or _near(name, known)
    hint = (
        f"did you mean {' or '.join(shown)}?"
        if shown
        else f"known are {', '.join(here[:8])}{' ...' if len(here) > 8 else '.'}"
    )
    return (
        f"no model called {name!r}; {hint} There is no file of that name either. A GGUF file, a folder written by "
        "`aim-local convert` or a repository (OWNER/NAME) can be named too; `aim-local models --known` lists what can "
        "be pulled by name"
    )


def _near(name: str, known: Sequence[str]) -> list[str]:
    by_lower = {k.lower(): k for k in known}
    return [by_lower[k] for k in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]


def _bundled() -> ModelPaths:
    folder = bundled_folder()
    if folder is None:
        raise ModelError("this installation has no bundled model; name a model, or reinstall aim-local")
    return ModelPaths(BUNDLED, folder / MODEL, folder / MMPROJ if (folder / MMPROJ).is_file() else None)


def _folder(folder: Path) -> ModelPaths:
    origin = read_origin(folder)
    if origin is not None and origin.is_pair:
        return _pulled(folder, origin)
    manifest = read_manifest(folder)
    if manifest:
        model, mmproj = (folder / manifest[key] if key in manifest else None for key in ("model", "mmproj"))
        if model is None or not model.is_file():
            raise ModelError(f"{folder}: {MANIFEST} names a model file that is not there; convert the checkpoint again")
        if mmproj is not None and not mmproj.is_file():
            raise ModelError(f"{folder}: {mmproj.name} is missing; convert the checkpoint again")
        return ModelPaths(folder.resolve().name, model, mmproj)
    return ModelPaths(folder.resolve().name, gguf_files.only_model(folder), gguf_files.mmproj_beside(folder))


def _pulled(folder: Path, origin: Origin) -> ModelPaths:
    lost = [name for name in origin.files if not origin.file(name).is_file()]
    if lost:
        raise ModelError(
            f"{folder.name}: {lost[0]} is no longer in the hub's cache ({origin.snapshot}); "
            f"`aim-local pull {_typed(origin)} --name {folder.name}` fetches it again"
        )
    return ModelPaths(folder.name, origin.file(origin.model), origin.file(origin.mmproj))


def _typed(origin: Origin) -> str:
    """As a user would ask for it: by the known name, where it has one."""
    known = find_known(origin.repo)
    is_default = origin.default or (known is not None and known.quant == origin.quant)
    return (known.name if known else origin.repo) + ("" if is_default else f":{origin.quant}")


def read_manifest(folder: Path) -> dict[str, str]:
    """File names by role from the folder's aim.json; empty where there is none. Raises ModelError for a broken one."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        return {key: _file_name(told.get("path")) for key, told in manifest_files(folder).items()}
    except (OSError, ValueError) as e:
        raise ModelError(f"{path}: cannot be read as a model's manifest ({e}); convert the checkpoint again") from e


def manifest_files(folder: Path) -> dict[str, dict[str, Any]]:
    """What the folder's aim.json says of its files, by role. Raises OSError, ValueError."""
    files = read_object(folder / MANIFEST).get("files")
    if not isinstance(files, dict) or not all(isinstance(told, dict) for told in files.values()):
        raise ValueError('its "files" is no table with an object for each file')
    return files


def _file_name(named: object) -> str:
    """Of a file beside the manifest, whatever folder is named too. Raises ValueError for what no file can be called."""
    name = Path(named).name if isinstance(named, str) else ""
    if fault_of(name):
        raise ValueError(f"{named!r:.60} is no file's name")
    return name


def _file(path: Path) -> ModelPaths:
    """A GGUF that was named, with its partner from the same folder where there is exactly one."""
    if gguf_files.is_mmproj(path):
        models = [p for p in gguf_files.ggufs(path.parent) if not gguf_files.is_mmproj(p)]
        if len(models) == 1:
            return ModelPaths(_name_of(models[0]), gguf_files.whole(models[0]), path)
        raise ModelError(f"{path}: is a vision tower (mmproj); name its language model, and this one with mmproj=FILE")
    return ModelPaths(_name_of(path), gguf_files.whole(path), gguf_files.mmproj_beside(path.parent))


def _name_of(path: Path) -> str:
    return path.resolve().parent.name if path.name == MODEL else path.stem


def _with_mmproj(model: str | Path | None, mmproj: Path) -> ModelPaths:
    """A model and the vision tower named for it, whichever of the two is which."""
    tower = _mmproj_file(mmproj)
    named = Path(os.path.expanduser(os.fspath(model))) if model is not None else None
    if named is None or model == BUNDLED or not named.is_file():
        paths = resolve(model)
        return ModelPaths(paths.name, paths.model, tower)
    if gguf_files.is_mmproj(named) and not gguf_files.is_mmproj(tower):
        named, tower = tower, named
    return ModelPaths(_name_of(named), gguf_files.whole(named), tower)


def _mmproj_file(path: Path) -> Path:
    if path.is_dir():
        found = gguf_files.mmproj_beside(path)
        if found is None:
            raise ModelError(f"{path}: holds no vision tower (mmproj); name its file")
        return found
    if not path.exists():
        raise ModelError(f"{path}: no such mmproj file; name the vision tower's GGUF")
    return path


def list_models() -> list[ModelEntry]:
    """The bundled model, if there is one, then the store's. A broken model is listed with its problem."""
    folder = bundled_folder()
    entries = [] if folder is None else [_entry(BUNDLED, folder, bundled=True)]
    return entries + [_entry(name, models_folder() / name, bundled=False) for name in store_names()]


def _entry(name: str, folder: Path, bundled: bool) -> ModelEntry:
    from .gguf_header import read_header

    try:
        paths = _folder(folder)
        origin = read_origin(folder)
        language = [read_header(part) for part in gguf_files.parts(paths.model)]
        vision = read_header(paths.mmproj) if paths.mmproj is not None else None
        heads = [*language, *([vision] if vision else [])]
        cut = [head for head in heads if head.missing_bytes()]
        problem = (
            f"{cut[0].path.name} lacks {cut[0].missing_bytes()} bytes; convert or download it again" if cut else None
        )
    except (ModelError, OSError) as e:
        return ModelEntry(name, folder, bundled, problem=str(e).removeprefix(f"{name}: "))
    types = {"model": sum((Counter(head.types()) for head in language), Counter[str]())}
    return ModelEntry(
        name=name,
        path=folder,
        bundled=bundled,
        architecture=language[0].architecture,
        projector=str(vision.metadata.get("clip.projector_type", "")) if vision else "",
        n_params=sum(head.n_params for head in heads),
        n_bytes=sum(head.n_bytes for head in heads),
        quantisation=language[0].file_type,
        vision_quantisation=vision.file_type if vision else "",
        types={key: dict(n) for key, n in types.items()} | ({"mmproj": vision.types()} if vision else {}),
        origin=f"{origin.text}@{origin.revision}" if origin else "",
        problem=problem,
    )


def find_entry(name: str) -> ModelEntry:
    """One line of the listing: the bundled model, or a model in the store. Raises ModelError."""
    if name == BUNDLED:
        return _entry(BUNDLED, _bundled().model.parent, bundled=True)
    stored = stored_name(name)
    if stored is None:
        resolve(name)  # tells what it is, or that it is nothing
        raise ModelError(f"{name} is not in the store {models_folder()}; `aim-local models` lists what is")
    return _entry(stored, models_folder() / stored, bundled=False)


def source_of(model: str | Path) -> Path:
    """The folder or file that a name, folder or GGUF path means, for commands that work on files. Raises ModelError."""
    if model == BUNDLED:
        return _bundled().model.parent
    stored = stored_name(str(model))
    if stored is not None:
        folder = models_folder() / stored
        origin = read_origin(folder)
        return _pulled(folder, origin).model if origin is not None and origin.is_pair else folder
    path = Path(os.path.expanduser(model))
    return path if path.exists() else _named(model).model


def beside(source: Path, suffix: str) -> Path:
    """A sibling of `source` with `suffix` in its name: a/model.gguf -> a/model-q4_k_m.gguf, a -> a-q4_k_m.

    Of the bundled model's folder a model in the store: nothing is written into the package.
    """
    if source == bundled_folder():
        return models_folder() / f"{BUNDLED}-{suffix.lower()}"
    if any(part.startswith("models--") for part in source.parts) and "snapshots" in source.parts:
        raise UsageError(f"{source.name} lies in the hub's cache, where nothing is written beside it; name OUT")
    if source.is_dir():
        folder = source.resolve()
        return folder.with_name(f"{folder.name}-{suffix.lower()}")
    return source.with_name(f"{source.stem}-{suffix.lower()}{source.suffix}")
