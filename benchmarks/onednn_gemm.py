"""Our matrix products beside oneDNN's, on one thread: the three shapes of a SigLIP-so400m frame.

Builds onednn_gemm.cpp with our kernels, which need nothing of ggml, and a oneDNN that is installed elsewhere: any
folder with include/dnnl.hpp and lib/libdnnl.so, such as an environment with onednn-cpu-gomp and
onednn-devel-cpu-gomp. oneDNN is held to the CPU features that our kernels use (ONEDNN_MAX_CPU_ISA). Both sides take
turns in one process; the least CPU time of --rounds counts. oneDNN has no int16: beside that stands its float32.

    python benchmarks/onednn_gemm.py ONEDNN [--rounds 15] [--only amx]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).parents[1] / "patches" / "overlay" / "ggml" / "src" / "ggml-cpu" / "aim"
SHAPES = ((729, 1152, 4304), (729, 4304, 1152), (729, 1152, 1152))
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]
# as in patches/CMakeLists.txt
FLAGS = {
    "avx2": AVX2,
    "avx-vnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512-vnni": [*AVX512, "-mavx512vnni"],
    "amx": [*AVX512, "-mavx512vnni", "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
}
# kernels, type, what oneDNN may use
CASES = (
    ("amx", "int8", "AVX512_CORE_AMX"),
    ("amx", "wide", "AVX512_CORE_AMX"),
    ("avx512-vnni", "int8", "AVX512_CORE_VNNI"),
    ("avx512-vnni", "wide", "AVX512_CORE_VNNI"),
    ("avx-vnni", "int8", "AVX2_VNNI"),
    ("avx-vnni", "wide", "AVX2_VNNI"),
    ("avx512", "wide", "AVX512_CORE"),
    ("avx2", "wide", "AVX2"),
)

HEAD = (
    "kernels", "type", "m x k x n", "ours ms", "oneDNN ms", "ratio", "ours whole", "oneDNN whole", "ratio", "error",
    "oneDNN's", "with",
)  # fmt: skip


def build(onednn: Path, folder: Path) -> Path:
    """The program. Raises CalledProcessError."""
    cxx, common = os.environ.get("CXX", "g++"), ["-O3", "-std=c++17", "-DAIM_HAVE_X86_KERNELS", "-w", f"-I{KERNELS}"]
    objects = []
    for name in ("aim-kernels", *(f"aim-kernels-{cpu}" for cpu in FLAGS)):
        flags = ["-march=x86-64", *FLAGS.get(name.removeprefix("aim-kernels-"), [])]
        objects.append(str(folder / f"{name}.o"))
        subprocess.run([cxx, *common, *flags, "-c", str(KERNELS / f"{name}.cpp"), "-o", objects[-1]], check=True)
    source, out, lib = Path(__file__).with_suffix(".cpp"), folder / "onednn_gemm", onednn / "lib"
    link = [f"-L{lib}", f"-Wl,-rpath,{lib}", "-ldnnl", "-fopenmp"]
    subprocess.run([cxx, *common, f"-I{onednn / 'include'}", str(source), *objects, "-o", str(out), *link], check=True)
    return out


def measure(program: Path, kernels: str, kind: str, isa: str, rounds: int) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": isa}
    for shape in SHAPES:
        command = [str(program), kernels, kind, *map(str, shape), str(rounds)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            print(f"| {kernels} | - | {done.stderr.strip()} |")
            return
        implementation, *numbers = done.stdout.split()
        theirs, ours, their_whole, our_whole, their_error, our_error = map(float, numbers)
        types = "int8" if kind == "int8" else "bf16" if kernels == "amx" else "int16 / float32"
        print(
            f"| {kernels} | {types} | {' x '.join(map(str, shape))} "
            f"| {ours:.2f} | {theirs:.2f} | {theirs / ours:.2f} "
            f"| {our_whole:.2f} | {their_whole:.2f} | {their_whole / our_whole:.2f} "
            f"| {our_error:.1e} | {their_error:.1e} | {implementation} |"
        )
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onednn", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=list(FLAGS), help="these kernels only")
    args = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    with tempfile.TemporaryDirectory() as folder:
        program = build(args.onednn.resolve(), Path(folder))
        for kernels, kind, isa in CASES:
            if args.only in (None, kernels):
                measure(program, kernels, kind, isa, args.rounds)


if __name__ == "__main__":
    main()
