"""The matrix unit of x86-64 (AMX): its tile registers belong to a thread, and every library in it uses the same ones.

The first test needs a compiler only, the others a processor with AMX. What may die of a signal runs in a child: this
file.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from thorough import few

if __name__ != "__main__":  # the child, which is this file, would import torch for it
    from tiny_text import TextShape, make_model, write_gguf

TILES = Path(__file__).parents[1] / "patches" / "overlay" / "ggml" / "src" / "ggml-cpu" / "amx" / "aim-tiles.h"
AMX_FLAGS = ["-mamx-tile", "-mamx-int8"]
CONFIG = bytes(
    [1, *15 * [0]]
)  # palette 1; then bytes per row of eight tiles, 16 bits each, and rows, for 16 tiles each
CONFIG += bytes(b for n in (64, 64, 32, 32, 64, 64, 64, 64) for b in (n, 0)).ljust(32, b"\0")
CONFIG += bytes([8, 8, 16, 16, 16, 16, 16, 16]).ljust(16, b"\0")

PRODUCTS = """
#include "aim-tiles.h"
#include <cstring>
alignas(64) static unsigned char tile[64];
extern "C" void product() { aim_tiles tiles; }
extern "C" void load() { memset(tile, 1, 64); _tile_loadd(2, tile, 32); memset(tile, 2, 64); }
"""
# what ldtilecfg and tileloadd would read is copied, what tilerelease would do is counted
MAIN = """
#include <cstdio>
#include <cstring>
extern "C" { unsigned char seen[64]; long saved[2]; long released; void product(); void load(); }
int main() {
    for (int i = 0; i < 3; i++) {
        memset(seen, 0xee, 64);
        product();
        for (int j = 0; j < 64; j++) printf("%02x", seen[j]);
        printf(" %ld\\n", released);
    }
    load();
    for (int j = 0; j < 64; j++) printf("%02x", seen[j]);
}
"""
OTHERS = """
#include <immintrin.h>
alignas(64) static const unsigned char other[64] = { 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    4, 4, 4, 4, 4, 4, 4, 4 };
extern "C" void release() { _tile_release(); }
extern "C" void configure() { asm volatile("ldtilecfg %0" : : "m"(other)); }
"""


@functools.cache
def compiler() -> str:
    """A C++ compiler that knows AMX; skips where there is none, or where its assembler source is another."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("AMX is x86-64, and the assembler source that is edited here Linux's")
    found = next((c for c in (os.environ.get("CXX"), "g++", "c++", "clang++") if c and shutil.which(c)), None)
    if found is None:
        pytest.skip("no C++ compiler (set CXX)")
    if subprocess.run([found, *AMX_FLAGS, "-E", "-xc++", os.devnull], capture_output=True).returncode:
        pytest.skip(f"{found} does not know AMX")
    return found


def build(folder: Path, name: str, source: str, *options: str) -> Path:
    (folder / f"{name}.cpp").write_text(source)
    out = folder / f"{name}.out"
    subprocess.run([compiler(), str(folder / f"{name}.cpp"), "-o", str(out), *options], check=True)
    return out


def copied(address: str) -> str:
    """Instructions that copy the 64 bytes at an address into `seen`, and change nothing else."""
    rows = [f"movq {8 * i}(%rax), %rcx; movq %rcx, seen+{8 * i}(%rip)" for i in range(8)]
    save = ["movq %rax, saved(%rip)", "movq %rcx, saved+8(%rip)", f"leaq {address}, %rax"]
    return "; ".join([*save, *rows, "movq saved(%rip), %rax", "movq saved+8(%rip), %rcx"])


@pytest.mark.parametrize("level", few(["-O2", "-O0", "-O3"], 1))
def test_tiles_are_loaded_as_written(tmp_path: Path, level: str) -> None:
    """Guards against a compiler that drops bytes of the configuration, which GCC does with upstream's function, and
    against configuring once per thread: each of three products has to load all 64 bytes, and to release the tiles.
    And against one that stores what a tile is to hold after the tile is loaded, which GCC does with its own header."""
    flags = [level, "-std=c++17", *AMX_FLAGS, f"-I{TILES.parent}"]
    assembly = build(tmp_path, "product", PRODUCTS, *flags, "-fno-pic", "-S").read_text()
    assembly, n_loads = re.subn(r"\bldtilecfg\s+([^\n#]+)", lambda m: copied(m[1]), assembly)
    assembly = re.sub(r"\btileloadd\s+\((%\w+),[^\n]*", lambda m: copied(f"({m[1]})"), assembly)
    assembly, n_releases = re.subn(r"\btilerelease\b", "incq released(%rip)", assembly)
    assert (n_loads, n_releases) == (1, 1), "the configuration is loaded and released in some other way"
    (tmp_path / "product.s").write_text(assembly)
    program = build(tmp_path, "main", MAIN, str(tmp_path / "product.s"), "-no-pie")
    lines = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == [*(f"{CONFIG.hex()} {i}" for i in (1, 2, 3)), 64 * "01"]


# --- with the processor -----------------------------------------------------------------------------------------------


def skip_without_amx() -> None:
    info = Path("/proc/cpuinfo")
    if not info.exists() or "amx_int8" not in info.read_text():
        pytest.skip("this processor has no AMX, or its system does not say so")
    from aim_local.native.library import llama

    if b"AMX_INT8 = 1" not in llama.llama_print_system_info():
        pytest.skip("the libraries were built without AMX")


@pytest.mark.parametrize("other", few(["configure", "release", "torch"], 1))
def test_other_users_of_the_tiles_change_nothing(tmp_path: Path, other: str) -> None:
    """Guards against tile registers that are thought to be ours from one product to the next: the same prompts give the
    same logits to the bit after other code in the thread has released them, has loaded a shape of its own, or after
    PyTorch has multiplied with them; and nearly those of the kernels without AMX."""
    skip_without_amx()
    build(tmp_path, "others", OTHERS, "-O2", "-shared", "-fPIC", *AMX_FLAGS)
    shape = TextShape()  # every row is a multiple of 32, so that every matrix goes to the matrix unit
    for weights in ("Q4_0", "Q8_0"):
        write_gguf(make_model(shape), shape, tmp_path / weights, gguf.GGMLQuantizationType[weights])
    command = [sys.executable, __file__, str(tmp_path), other]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "ONEDNN_VERBOSE": "1"})
    if "AMX is not ready" in result.stderr:
        pytest.skip("the system does not grant AMX")
    assert result.returncode == 0, f"status {result.returncode}: {result.stdout[-500:]}{result.stderr[-2000:]}"
    if other == "torch" and not any(",exec," in line and "amx" in line for line in result.stdout.splitlines()):
        pytest.skip("this PyTorch multiplies without AMX")


def prompts(path: Path, with_amx: bool, *between: Callable[[], object]) -> list[np.ndarray]:
    """Logits of the same prompts after each of the calls: [call][prompt, vocabulary]."""
    from aim_local.native import log
    from aim_local.native.library import llama
    from aim_local.native.staged import ROW_TOKEN, StagedContext, StagePlan

    params = llama.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, with_amx
    log.echo_native_log()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        model = llama.llama_model_load_from_file(str(path).encode(), params)
    log.echo_native_log(False)
    assert ("AMX model buffer" in said.getvalue()) == with_amx, said.getvalue()
    plan, exact = StagePlan((0,), (128,)), {"type_k": "f32", "type_v": "f32", "flash_attn": False}
    found: list[list[np.ndarray]] = [[] for _ in between]
    with StagedContext(model, plan, n_threads=1, **exact) as ctx:
        for rows, call in zip(found, between, strict=True):
            for n in (2, 16, 33, 70):  # rows of a product: less than a tile, one, two and one row, four and some
                ctx.clear()
                call()
                ids = [(7 * i + n) % ctx.n_vocab for i in range(n)]
                rows.append(ctx.prefill([ROW_TOKEN] * n, ids, None, [0]))
                call()
                rows.append(ctx.decode(1))
    llama.llama_model_free(model)
    return [np.stack(rows) for rows in found]


def product() -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    a = torch.ones(128, 128, dtype=torch.bfloat16)
    return lambda: torch.mm(a, a)


def main(folder: Path, other: str) -> None:
    """The child, one thread: all prompts alone, after the other user of the tiles, and without AMX."""
    call = product() if other == "torch" else getattr(ctypes.CDLL(str(folder / "others.out")), other)
    for weights in ("Q4_0", "Q8_0"):
        alone, after = prompts(folder / weights, True, lambda: None, call)
        (plain,) = prompts(folder / weights, False, lambda: None)
        assert alone.tobytes() == after.tobytes(), f"{weights}: off by {np.abs(alone - after).max()}"
        error = np.abs(alone - plain).max(axis=1) / np.abs(plain).max()
        # another order of sums; that may round an activation the other way, which makes 0.01 of a prompt
        assert np.median(error) < 1e-5 and error.max() < 0.05, f"{weights}: {error}"  # noqa: PT018


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
