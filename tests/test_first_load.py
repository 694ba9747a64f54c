"""What convert and quantize wrote is not looked through again when it is loaded, and is where it changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import write_onevision  # noqa: E402
from convert_models import F32, model_of  # noqa: E402

from aim_local import VisionLLM  # noqa: E402
from aim_local.child import Child  # noqa: E402
from aim_local.config import LoadConfig  # noqa: E402
from aim_local.convert import ConvertError, convert, quantize  # noqa: E402
from aim_local.errors import ModelError  # noqa: E402


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is looked through, in order: kinds of steps, "sha256" of a file."""
    found: list[str] = []
    send, file_digest = Child.send, hashlib.file_digest

    def watched(child: Child, **message: Any) -> None:
        found.extend(kind for kind, _ in message.get("steps", ()))
        send(child, **message)

    def summed(*given: Any) -> Any:
        found.append("sha256")
        return file_digest(*given)

    monkeypatch.setattr(Child, "send", watched)
    monkeypatch.setattr(hashlib, "file_digest", summed)
    return found


def load(folder: Path) -> None:
    VisionLLM.load(folder, config=LoadConfig(n_ctx=256)).close()


def test_what_was_converted(read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim_local.store.seen._here", {})  # of other tests, which convert the same
    monkeypatch.setattr("aim_local.store.digests._YOUNG_NS", 0)  # this model takes less than a tenth of a second
    made = convert(write_onevision(tmp_path / "source", model=model_of("llava_onevision")), tmp_path / "m", F32).folder
    assert sorted(read) == ["text", "vision", "weights", "weights"]
    read.clear()
    load(made)
    assert read == []

    small = quantize(made, tmp_path / "small", "q8_0", threads=1, vision_type="q8_0").path
    read.clear()
    load(small)
    assert read == []

    path = small / "model.gguf"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="another sha256"):
        load(small)
    assert read[:1] == ["weights"]
    assert "sha256" in read


def test_weights_that_are_no_numbers_are_told_when_they_are_converted(tmp_path: Path) -> None:
    import safetensors.torch

    source = write_onevision(tmp_path / "source", model=model_of("llava_onevision"))
    path = source / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = next(name for name in tensors if "mlp.down_proj" in name)
    tensors[name][0, 0] = float("nan")
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ConvertError, match=r"could not be used: model.gguf does not load: .*holds NaN or infinity"):
        convert(source, tmp_path / "m", F32)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]
