"""Peak memory of a conversion against the checkpoint's size: tensors are streamed, not loaded.

Writes a random LLaVA-OneVision checkpoint of at least --gib (sharded, bfloat16, shapes of Qwen2 and SigLIP-so400m),
converts it in a process of its own and prints that process's peak memory. Needs twice the size in free disk space.

    python benchmarks/convert_memory.py [--gib 2] [--type q8_0] [--vision-type f16] [--dir DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

TEXT = {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2}
VISION = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 26}
PIXELS = {"image_size": 384, "patch_size": 14, "model_type": "siglip_vision_model"}
VOCAB = 151936
SHARD_BYTES = 1 << 30
CHILD = """
import json, resource, sys, time
from aim_local.convert import ConvertConfig, convert
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
result = convert(sys.argv[1], sys.argv[2], ConvertConfig(sys.argv[3], sys.argv[4]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"base": base, "peak": peak, "seconds": time.perf_counter() - start, "bytes": result.n_bytes}))
"""


def shapes(n_layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, as today's transformers names them."""
    d, ff = TEXT["hidden_size"], TEXT["intermediate_size"]
    kv = d // TEXT["num_attention_heads"] * TEXT["num_key_value_heads"]
    yield "language_model.lm_head.weight", (VOCAB, d)
    yield "language_model.model.embed_tokens.weight", (VOCAB, d)
    yield "language_model.model.norm.weight", (d,)
    for il in range(n_layer):
        at = f"language_model.model.layers.{il}."
        for name, rows in (("q", d), ("k", kv), ("v", kv)):
            yield f"{at}self_attn.{name}_proj.weight", (rows, d)
            yield f"{at}self_attn.{name}_proj.bias", (rows,)
        yield at + "self_attn.o_proj.weight", (d, d)
        yield at + "mlp.gate_proj.weight", (ff, d)
        yield at + "mlp.up_proj.weight", (ff, d)
        yield at + "mlp.down_proj.weight", (d, ff)
        yield at + "input_layernorm.weight", (d,)
        yield at + "post_attention_layernorm.weight", (d,)
    yield from vision_shapes(d)


def vision_shapes(d_text: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    d, ff = VISION["hidden_size"], VISION["intermediate_size"]
    yield "vision_tower.embeddings.patch_embedding.weight", (d, 3, 14, 14)
    yield "vision_tower.embeddings.patch_embedding.bias", (d,)
    yield "vision_tower.embeddings.position_embedding.weight", (729, d)
    for il in range(VISION["num_hidden_layers"]):
        at = f"vision_tower.encoder.layers.{il}."
        parts = {f"self_attn.{n}_proj": (d, d) for n in ("q", "k", "v", "out")} | {
            "mlp.fc1": (ff, d),
            "mlp.fc2": (d, ff),
        }
        for name, shape in parts.items():
            yield f"{at}{name}.weight", shape
            yield f"{at}{name}.bias", shape[:1]
        for name in ("layer_norm1", "layer_norm2"):
            yield f"{at}{name}.weight", (d,)
            yield f"{at}{name}.bias", (d,)
    for i, width in ((1, d), (2, d_text)):
        yield f"multi_modal_projector.linear_{i}.weight", (d_text, width)
        yield f"multi_modal_projector.linear_{i}.bias", (d_text,)
    yield "image_newline", (d_text,)


def plan_layers(n_bytes: int) -> int:
    """Language layers that bring the checkpoint to `n_bytes`."""
    n_layer = 1
    while sum(2 * prod(shape) for _, shape in shapes(n_layer)) < n_bytes:
        n_layer += 1
    return n_layer


def write_checkpoint(folder: Path, n_layer: int) -> tuple[int, int]:
    """Returns (bytes of all tensors, bytes of the largest)."""
    noise = (np.random.default_rng(0).standard_normal(1 << 20) * 0.02).astype(np.float32).view(np.uint32) >> 16
    block = noise.astype(np.uint16)  # bfloat16 bits; the values do not matter, so one block is repeated
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    for name, shape in shapes(n_layer):
        if sum(2 * prod(s) for _, s in groups[-1]) > SHARD_BYTES:
            groups.append([])
        groups[-1].append((name, shape))
    weight_map: dict[str, str] = {}
    for i, group in enumerate(groups):
        file = f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        write_shard(folder / file, group, block)
        weight_map |= {name: file for name, _ in group}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    write_configs(folder, n_layer)
    sizes = [2 * prod(shape) for group in groups for _, shape in group]
    return sum(sizes), max(sizes)


def write_shard(path: Path, group: list[tuple[str, tuple[int, ...]]], block: np.ndarray) -> None:
    header, at = {}, 0
    for name, shape in group:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at := at + 2 * prod(shape)]}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in group:
            left = prod(shape)
            while left:
                n = min(left, block.size)
                file.write(block[:n].tobytes())
                left -= n


def write_configs(folder: Path, n_layer: int) -> None:
    text = TEXT | {"model_type": "qwen2", "vocab_size": VOCAB, "num_hidden_layers": n_layer}
    config = {"architectures": ["LlavaOnevisionForConditionalGeneration"], "text_config": text}
    (folder / "config.json").write_text(json.dumps(config | {"vision_config": VISION | PIXELS}))
    vocab = {chr(33 + i): i for i in range(90)}
    tokenizer = {"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2.0, help="least size of the checkpoint")
    parser.add_argument("--type", default="q8_0", help="type of the language tower")
    parser.add_argument("--vision-type", default="f16", help="type of the vision tower")
    parser.add_argument("--dir", default=None, help="folder for the temporary files")
    options = parser.parse_args()
    n_layer = plan_layers(int(options.gib * 2**30))
    with tempfile.TemporaryDirectory(dir=options.dir) as temporary:
        src, out = Path(temporary) / "src", Path(temporary) / "out"
        src.mkdir()
        start = time.perf_counter()
        total, largest = write_checkpoint(src, n_layer)
        seconds = time.perf_counter() - start
        print(f"checkpoint  {total / 2**30:6.2f} GiB bf16, {n_layer} language layers, {seconds:.0f} s to write")
        print(f"largest     {largest / 2**20:6.0f} MiB (one embedding table)")
        command = [sys.executable, "-c", CHILD, str(src), str(out), options.type, options.vision_type]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    base, peak = report["base"] * unit, report["peak"] * unit
    print(f"written     {sum(report['bytes'].values()) / 2**30:6.2f} GiB, {options.type} and {options.vision_type}")
    print(f"seconds     {report['seconds']:6.0f}")
    print(f"peak memory {peak / 2**20:6.0f} MiB, of which {base / 2**20:.0f} MiB are Python with numpy and gguf")
    print(f"            {peak / largest:6.2f} times the largest tensor, {peak / total:.3f} times the checkpoint")


if __name__ == "__main__":
    main()
