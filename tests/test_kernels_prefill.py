"""A prefill with our kernels is at least as near to the float model of the same weights as with llama.cpp's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from staged_models import Models, distance, stages_of  # noqa: E402
from thorough import few  # noqa: E402
from tiny_text import TextShape, gguf_name  # noqa: E402

from aim_local.convert import quantize  # noqa: E402
from aim_local.native import kernels  # noqa: E402
from aim_local.native.library import llama  # noqa: E402
from aim_local.native.staged import ROW_TOKEN, StagedContext  # noqa: E402

SHAPE = TextShape(n_layer=4, n_head=4, n_kv=2, d_head=64, n_ff=512, n_vocab=512)  # rows of whole blocks of 256
LENGTHS = (64, 77, 96, 130, 200, 333)  # from 64 rows on weights are unpacked


def float_model(path: Path, models: Models) -> Any:
    """The transformers model with the weights that the file holds, in double precision."""
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    model = type(models.twin(SHAPE))(models.twin(SHAPE).config).double().eval()
    state = {}
    for name, old in model.state_dict().items():
        tensor = tensors[gguf_name(name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        state[name] = torch.from_numpy(np.array(values)).double().reshape(old.shape)
    model.load_state_dict(state)
    return model


def prompts() -> list[list[int]]:
    return [np.random.default_rng(n).integers(0, SHAPE.n_vocab, n).tolist() for n in LENGTHS]


def logits(model: int, precision: str, n_threads: int = 1) -> np.ndarray[Any, Any]:
    """After each of the prompts, [prompt, vocabulary]."""
    plan = stages_of([0] * SHAPE.n_layer, max(LENGTHS))
    with StagedContext(model, plan, n_threads=n_threads, flash_attn=True, precision=precision) as ctx:
        found = []
        for ids in prompts():
            ctx.clear()
            found.append(ctx.prefill([ROW_TOKEN] * len(ids), ids, None, [0]))
        return np.stack(found)


@pytest.mark.parametrize("weights", few(["q4_0", "q8_0", "q4_k", "q6_k", "q5_k"], ("q4_k",)))
def test_auto_is_at_least_as_near(models: Models, tmp_path: Path, weights: str) -> None:
    path = quantize(models.path(SHAPE), tmp_path / "model.gguf", weights, threads=1).path
    truth = float_model(path, models)
    with torch.no_grad():
        want = np.stack([truth(torch.tensor([ids])).logits[0, -1].numpy() for ids in prompts()])
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    exact, auto = logits(model, "exact"), logits(model, "auto")
    same = [logits(model, "auto", n).tobytes() == auto.tobytes() for n in (2, 3)]
    llama.llama_model_free(model)
    far = {
        name: float(np.linalg.norm(got - want) / np.linalg.norm(want))
        for name, got in (("exact", exact), ("auto", auto))
    }
    print(
        f"{weights} with {kernels.kernels() or 'no kernels of ours'}: exact {far['exact']:.3g}, auto {far['auto']:.3g}"
    )
    print(f"  largest: exact {distance(exact, want):.3g}, auto {distance(auto, want):.3g}")
    assert far["auto"] < 1.05 * far["exact"] + 1e-4
    assert all(same), "the number of threads changes the logits"
    assert (exact.tobytes() == auto.tobytes()) == (not kernels.kernels())
