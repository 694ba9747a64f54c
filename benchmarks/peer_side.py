"""One way to run a vision tower, in a process of its own: child of peers.py, which says what the messages are.

The first message is {kind, precision, mmproj, text, n_threads}, answered by {version}; each {tiles, rows} after it is
answered by {ms}: the tile of the file `tiles` (uint8 [side, side, 3]) went through the tower, what came out is in the
file `rows` (float32 [n, width]). Only the tower and its projector are timed, from pixels already normalised, or for
llama.cpp from bytes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from aim_local.child import Message, Parent
from aim_local.errors import AimError

Rows = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Encode = Callable[[Pixels], tuple[Rows, float]]  # rows, milliseconds

KEPT = ExitStack()  # what an encoder holds, until the process ends


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = run()
    return found, (time.perf_counter() - start) * 1e3


# --- llama.cpp, ours and stock ---------------------------------------------------------------------------------------


def ours(precision: str, mmproj: Path, text: Path, n_threads: int) -> tuple[Encode, str]:
    import towers

    tower = KEPT.enter_context(towers.opened(mmproj, text, towers.load_config(precision, n_threads)))

    def encode(tile: Pixels) -> tuple[Rows, float]:
        return timed(lambda: tower.encoder.encode(tile))

    return encode, ""


def stock(_precision: str, mmproj: Path, text: Path, n_threads: int) -> tuple[Encode, str]:
    """The libraries that the environment names."""
    from aim_local.native.stock import StockLibrary, StockOptions

    f16 = int(gguf.GGMLQuantizationType.F16)
    model = StockLibrary().load(str(text), StockOptions(n_threads, 0, f16, f16, 512, 512))
    tower = model.tower(str(mmproj))
    return lambda tile: tower.encode(tile, model.n_embd), ""


# --- the same tower in torch -----------------------------------------------------------------------------------------


def torch_tower(mmproj: Path) -> Any:
    """transformers' SigLIP and two matrices behind it, float32, with the file's weights. [1, 3, side, side] -> rows."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    reader = gguf.GGUFReader(mmproj)
    weights = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type)) for t in reader.tensors}

    def key(name: str) -> Any:
        return reader.fields[f"clip.vision.{name}"].contents()

    config = SiglipVisionConfig(
        hidden_size=key("embedding_length"), intermediate_size=key("feed_forward_length"), image_size=key("image_size"),
        num_hidden_layers=key("block_count"), num_attention_heads=key("attention.head_count"),
        patch_size=key("patch_size"), layer_norm_eps=key("attention.layer_norm_epsilon"), vision_use_head=False,
    )  # fmt: skip
    tower = SiglipVisionModel(config).eval()
    tower.load_state_dict({theirs: weights[name] for theirs, name in tower_names(tower)}, assign=True)

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower
            self.first, self.second = (linear(weights[f"mm.{i}.weight"], weights[f"mm.{i}.bias"]) for i in (0, 2))

        def forward(self, pixels: Any) -> Any:
            # the last hidden state, from before the norm behind the layers
            x = self.tower.embeddings(pixels)
            x = self.tower.encoder(inputs_embeds=x).last_hidden_state
            return self.second(torch.nn.functional.gelu(self.first(x)))[0]

    def linear(weight: Any, bias: Any) -> Any:
        found = torch.nn.Linear(weight.shape[1], weight.shape[0])
        found.load_state_dict({"weight": weight, "bias": bias})
        return found

    return Tower().eval()


def tower_names(tower: Any) -> list[tuple[str, str]]:
    """Each of the tower's parameters with its name in the file. The norm behind the layers, which nothing reads, is
    given the first layer's."""
    from aim_local.convert.vision_towers import LAYER

    found = []
    for name in tower.state_dict():
        *at, kind = name.split(".")
        parts = at[at.index("layers") + 1 :] if "layers" in at else []
        if parts:
            found.append((name, f"v.blk.{parts[0]}.{LAYER['.'.join(parts[1:])]}.{kind}"))
        elif "post_layernorm" in at:
            found.append((name, f"v.blk.0.ln1.{kind}"))
        else:
            found.append(
                (
                    name,
                    {"patch_embedding": "v.patch_embd", "position_embedding": "v.position_embd"}[at[-1]] + f".{kind}",
                )
            )
    return found


def normalised(tile: Pixels) -> Rows:
    """float32 [1, 3, side, side]; SigLIP's mean and deviation are a half."""
    return np.ascontiguousarray((tile.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])


def torch_side(precision: str, mmproj: Path, _text: Path, n_threads: int) -> tuple[Encode, str]:
    import torch

    torch.set_num_threads(n_threads)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    tower = torch_tower(mmproj).to(kind)

    def encode(tile: Pixels) -> tuple[Rows, float]:
        pixels = torch.from_numpy(normalised(tile)).to(kind)
        with torch.inference_mode():
            rows, ms = timed(lambda: tower(pixels))
        return rows.float().numpy(), ms

    return encode, torch.__version__


def openvino_side(precision: str, mmproj: Path, _text: Path, n_threads: int) -> tuple[Encode, str]:
    import openvino
    import torch

    tower = torch_tower(mmproj)
    side = tower.tower.config.image_size
    with torch.inference_mode():
        model = openvino.convert_model(tower, example_input=torch.zeros(1, 3, side, side), input=[1, 3, side, side])
    del tower
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": n_threads}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    del model
    gc.collect()  # it holds the weights once more

    def encode(tile: Pixels) -> tuple[Rows, float]:
        pixels = normalised(tile)
        found, ms = timed(lambda: request.infer([pixels]))
        return np.array(found[0], np.float32), ms

    return encode, openvino.__version__.split("-")[0]


SIDES = {"ours": ours, "stock": stock, "torch": torch_side, "openvino": openvino_side}


class Side:
    """What the worker does: the first message makes the encoder, the others run it."""

    def __init__(self) -> None:
        self._encode: Encode | None = None

    def answer(self, request: Message) -> Message:
        if self._encode is None:
            make = SIDES[request["kind"]]
            paths = Path(request["mmproj"]), Path(request["text"])
            self._encode, version = make(request["precision"], *paths, request["n_threads"])
            return {"version": version}
        rows, ms = self._encode(np.load(request["tiles"]))
        if not np.isfinite(rows).all():
            raise AimError("rows are not finite")
        np.save(request["rows"], rows)
        return {"ms": ms}


if __name__ == "__main__":
    Parent().serve(Side().answer)
