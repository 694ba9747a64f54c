"""Which files of a repository are the model: a language GGUF with its vision tower, or a checkpoint to convert.

Pure: knows names and sizes, asks nothing; which types a checkpoint can have is convert/'s to say. Names of
quantisations are those that file names carry, in any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import PurePosixPath

from ..errors import HubError
from .answers import TAKEN, RepoFile
from .listing import Listing

# what is taken where none is asked: small and good first, then larger, then smaller
ORDER = (
    "Q4_K_M", "Q4_0", "Q8_0", "Q5_K_M", "Q6_K", "Q4_K_S", "IQ4_XS", "IQ4_NL", "Q5_K_S", "Q4_1", "Q5_0", "Q5_1",
    "F16", "BF16", "F32", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_XS", "Q2_K",
)  # fmt: skip
MMPROJ_ORDER = ("F16", "BF16", "Q8_0", "F32")
CONVERTED = "Q8_0"  # what a checkpoint is converted to where nothing is asked
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d(?:_(?:K|[01248]|XXS|XS|NL|XXL|XL|[SML]))*|TQ[12]_0|MXFP4|NVFP4|BF16|FP?16|FP?32))"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_CHECKPOINT = tuple(ending for ending in TAKEN if ending != ".gguf")


@dataclass(frozen=True)
class Choice:
    """model: the language GGUF, its parts in order, or all files of a checkpoint; mmproj: None for a checkpoint.

    quant: "" where file names do not say; default: chosen, not asked; others: quantisations that could be had instead.
    """

    quant: str
    default: bool
    model: tuple[RepoFile, ...]
    mmproj: RepoFile | None
    others: tuple[str, ...]

    @property
    def is_pair(self) -> bool:
        return self.mmproj is not None

    @property
    def files(self) -> tuple[RepoFile, ...]:
        return (*self.model, *([self.mmproj] if self.mmproj else []))

    @property
    def n_bytes(self) -> int:
        return sum(file.size for file in self.files)


def choose(listing: Listing, asked: str = "", preferred: str = "") -> Choice:
    """asked: a quantisation, or a GGUF's file name; preferred: taken first where nothing is asked. Raises HubError."""
    models = _language_files(listing)
    towers = [f for f in listing.files if _is_gguf(f) and _is_mmproj(f)]
    if models and towers:
        return _pair(listing, models, towers, asked, preferred)
    if any(f.name.endswith(".safetensors") and "/" not in f.name for f in listing.files):
        return _checkpoint(listing, asked, preferred)
    if models:
        raise HubError(
            f"{listing.repo} has language models only, no mmproj*.gguf with a vision tower; "
            "take a repository that has both (`aim-local models --known` lists some)"
        )
    raise HubError(
        f"{listing.repo} holds neither a GGUF model with its mmproj nor safetensors ({_seen(listing)}); "
        "take another repository (`aim-local models --known` lists some)"
    )


def quant_of(name: str) -> str:
    """The quantisation that a file name carries, upper case, else its folder's name; "" for none."""
    path = PurePosixPath(_SHARD.sub(".gguf", name))
    found = _QUANT.findall(path.stem) or _QUANT.findall(path.parent.name)
    quant = str(found[-1]).upper() if found else ""
    return {"FP16": "F16", "FP32": "F32"}.get(quant, quant)


def _pair(
    listing: Listing, models: dict[str, tuple[RepoFile, ...]], towers: Sequence[RepoFile], asked: str, preferred: str
) -> Choice:
    quants = {first: quant_of(first) for first in models}
    wanted = asked or _best(set(quants.values()), preferred)
    named = [f for f in models if asked and asked.lower() in (f.lower(), PurePosixPath(f).name.lower())]
    found = named or [first for first, quant in quants.items() if quant.lower() == wanted.lower()]
    known = tuple(sorted({quant or first for first, quant in quants.items()}, key=_rank))
    if not found:
        raise HubError(f"{listing.repo} has no {asked}; it has {', '.join(known)}")
    if len(found) > 1:
        raise HubError(
            f"{listing.repo} has several models{f' in {wanted}' if wanted else ''}: {', '.join(found[:4])}; "
            f"name one: {listing.repo}:{PurePosixPath(found[0]).name}"
        )
    quant = PurePosixPath(found[0]).name if named else quants[found[0]]
    others = tuple(q for q in known if q != quants[found[0]] and q != found[0])
    return Choice(quant, not asked, models[found[0]], _tower_for(found[0], towers), others)


def _tower_for(model: str, towers: Sequence[RepoFile]) -> RepoFile:
    """By type, as the authors' files are most often F16; among equals the one whose name is most like the model's."""

    def rank(tower: RepoFile) -> tuple[int, float, str]:
        quant = quant_of(tower.name)
        place = MMPROJ_ORDER.index(quant) if quant in MMPROJ_ORDER else len(MMPROJ_ORDER)
        return place, -SequenceMatcher(None, model.lower(), tower.name.lower()).ratio(), tower.name

    return min(towers, key=rank)


def _language_files(listing: Listing) -> dict[str, tuple[RepoFile, ...]]:
    """Language models by the name of their first file, each with its parts in order. Raises HubError."""
    found = dict[str, tuple[RepoFile, ...]]()
    ggufs = {f.name: f for f in listing.files if _is_gguf(f) and not _is_mmproj(f) and "imatrix" not in f.name.lower()}
    for name, file in ggufs.items():
        shard = _SHARD.search(name)
        if shard is None:
            found[name] = (file,)
        elif int(shard[1]) == 1:
            if not int(shard[2]):
                raise HubError(f"{listing.repo} has {name}, the first part of none; take another repository")
            names = [f"{name[: shard.start()]}-{i:05}-of-{shard[2]}{name[-5:]}" for i in range(1, int(shard[2]) + 1)]
            lost = [part for part in names if part not in ggufs]
            if lost:
                raise HubError(f"{listing.repo} lacks {lost[0]}, a part of {name}; take another repository")
            found[name] = tuple(ggufs[part] for part in names)
    return found


def _checkpoint(listing: Listing, asked: str, preferred: str) -> Choice:
    types = _converted_types()
    asked = types.get(asked.lower(), asked)
    if asked and asked not in types.values():
        raise HubError(
            f"{listing.repo} is a checkpoint, converted here, and {asked} is no type for that; it can be had as "
            f"{', '.join(dict.fromkeys(types.values()))}"
        )
    files = tuple(f for f in listing.files if _is_part_of_checkpoint(f.name))
    if not any(f.name == "config.json" for f in files):
        raise HubError(f"{listing.repo} has safetensors but no config.json; take the model's own repository")
    quant = asked or (preferred or CONVERTED).upper()
    return Choice(quant, not asked, files, None, tuple(q for q in dict.fromkeys(types.values()) if q != quant))


def _converted_types() -> dict[str, str]:
    """What `convert --type` takes, lower case, and how a quantisation is called here."""
    from ..convert import TEXT_TYPES

    return {name: full.upper() for name, full in TEXT_TYPES.items()}


def _is_part_of_checkpoint(name: str) -> bool:
    return "/" not in name and name.endswith(_CHECKPOINT) and not name.startswith(("consolidated", "."))


def _best(quants: set[str], preferred: str) -> str:
    order = [*([preferred] if preferred else []), *ORDER]
    return next((q for q in order if q in quants), min(quants, key=_rank))


def _rank(quant: str) -> tuple[int, str]:
    return (ORDER.index(quant) if quant in ORDER else len(ORDER), quant)


def _is_gguf(file: RepoFile) -> bool:
    return file.name.lower().endswith(".gguf")


def _is_mmproj(file: RepoFile) -> bool:
    return "mmproj" in PurePosixPath(file.name).name.lower()


def _seen(listing: Listing) -> str:
    names = [f.name for f in listing.files if not f.name.startswith(".") and f.name != "README.md"]
    return f"it has {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "it is empty"
