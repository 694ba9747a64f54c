"""What people have instead of a checkpoint that can be converted: each kind is told by its own name, and what to do.

Knows folders, config.json and tensor names. A checkpoint of an unknown family is the registry's business, a damaged
file the readers'.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aim_local.store.known import parse_reference

from .errors import ConvertError, some

ADAPTER = "adapter_config.json"
TORCH_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
METHODS = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8",
    "compressed-tensors": "compressed-tensors",
    "mxfp4": "MXFP4",
    "modelopt": "ModelOpt",
    "hqq": "HQQ",
    "eetq": "EETQ",
    "aqlm": "AQLM",
    "quanto": "Quanto",
    "torchao": "torchao",
}


def check_folder(folder: Path) -> None:
    """Raises ConvertError for whatever is no folder with a config.json."""
    if folder.suffix.lower() == ".gguf" and folder.is_file():
        raise ConvertError(f"{folder} is a GGUF file: it needs no converting, use it directly as MODEL")
    if folder.is_file():
        raise ConvertError(f"{folder} is a file; a checkpoint is a folder with config.json and *.safetensors")
    if not folder.exists() and not folder.is_absolute() and (reference := parse_reference(str(folder))):
        raise ConvertError(
            f"{folder} does not exist here; if it is a repository on the hub, `aim-local pull {reference.text}` "
            "fetches and converts it"
        )
    if not folder.is_dir():
        raise ConvertError(
            f"{folder} does not exist; name a checkpoint folder (from the hub: `hf download REPO --local-dir DIR`)"
        )
    if (folder / ADAPTER).is_file():
        raise adapter(folder)
    if (folder / "config.json").is_file():
        return
    check_hub_cache(folder)
    gguf = sorted(p.name for p in folder.iterdir() if p.suffix.lower() == ".gguf")
    if gguf:
        raise ConvertError(
            f"{folder} holds GGUF files ({some(gguf)}): they need no converting, "
            "use the folder or a file directly as MODEL"
        )
    raise ConvertError(f"{folder} is not a checkpoint folder: it has no config.json")


def check_hub_cache(folder: Path) -> None:
    """The hub's cache keeps a repository as models--ORG--NAME, its files in snapshots/REVISION."""
    if (folder / "snapshots").is_dir():
        found = snapshot(folder)
        where = f"give the snapshot: {found}" if found else "it holds no snapshot: fetch the model first"
        raise ConvertError(f"{folder} is a repository in the hub's cache, not a checkpoint folder; {where}")
    kept = sorted(p for p in folder.iterdir() if p.name.startswith("models--") and (p / "snapshots").is_dir())
    if kept:
        snapshots = [str(found) for found in map(snapshot, kept) if found]
        raise ConvertError(f"{folder} is the hub's cache; give one model's snapshot ({some(snapshots, 2)})")


def snapshot(repository: Path) -> Path | None:
    """The snapshot that "main" names, else the newest."""
    folders = [p for p in (repository / "snapshots").iterdir() if p.is_dir()]
    main = repository / "refs" / "main"
    name = main.read_text(encoding="utf-8", errors="replace").strip() if main.is_file() else ""
    named = [p for p in folders if p.name == name]
    newest = sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True)
    return next(iter([*named, *newest]), None)


def adapter(folder: Path) -> ConvertError:
    return ConvertError(
        f"{folder} holds an adapter (LoRA), not a whole model; merge it into its base model first "
        "(peft: merge_and_unload, then save_pretrained) and convert that folder"
    )


def check_names(folder: Path, names: Iterable[str]) -> None:
    """Raises ConvertError where the weights are PEFT's: an adapter, or a model that still has one inside."""
    marks = ("base_model.model.", ".lora_A.", ".lora_B.", ".base_layer.")
    found = [name for name in names if any(mark in name for mark in marks)]
    if found:
        raise ConvertError(
            f"{folder} has PEFT's tensors, with an adapter kept apart ({some(sorted(found), 1)}); merge it first "
            "(peft: merge_and_unload, then save_pretrained) and convert that folder"
        )


def check_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ConvertError for a checkpoint whose weights are quantised already."""
    for part in (config, *(config.get(key) for key in ("text_config", "llm_config", "vision_config"))):
        found = part.get("quantization_config") if isinstance(part, dict) else None
        if found:
            raise ConvertError(
                f"{folder} is quantised with {method(found)} (quantization_config in config.json); its weights "
                "cannot be turned back: convert the checkpoint it was made from, and choose the weights with text_type"
            )


def method(found: Any) -> str:
    if not isinstance(found, dict):
        return "an unknown method"
    name = str(found.get("quant_method") or found.get("quant_type") or "an unknown method")
    if name == "bitsandbytes" or "load_in_4bit" in found or "load_in_8bit" in found:
        return f"bitsandbytes ({'4' if found.get('load_in_4bit') else '8'} bit)"
    return METHODS.get(name.lower(), name)


def check_safetensors(folder: Path) -> None:
    """Raises ConvertError for weights that only torch can read, which llama.cpp's converter would have to unpickle."""
    if not list(folder.glob("*.safetensors")) and not (folder / "model.safetensors.index.json").is_file():
        found = [name for name in TORCH_FILES if (folder / name).is_file()]
        if found:
            raise ConvertError(
                f"{folder} has its weights only as a PyTorch pickle ({found[0]}); load it with transformers and "
                "save_pretrained it anew, which writes safetensors, and convert that folder"
            )
