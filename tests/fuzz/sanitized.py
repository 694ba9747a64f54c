"""Our C++ under a sanitizer: tests that touch native code, then damaged files for the readers that reach it.

    PYTHONPATH=tests python -m fuzz.sanitized address --build build/sanitize     `make sanitize` calls this, built

A report ends the run with exit code 1 wherever it comes from, in a test that passes and in a child's child too. What is
tried is in the two lists; how reports are read: sanitizer.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fuzz import sanitizer
from fuzz.outcome import ROOT
from fuzz.tally import State

HERE = Path(__file__).resolve().parent
SEED = 13
# memory that is refused has to come as null, as ever
COMMON = "allocator_may_return_null=1:halt_on_error={halt}:exitcode=66"


@dataclass(frozen=True)
class Kind:
    """library: what is preloaded, since python is not linked with it. tests: files in tests/, with patterns."""

    library: str
    symbol: str  # in a library that has the sanitizer in it
    options: str
    environment: dict[str, str]
    tests: tuple[str, ...]
    targets: tuple[str, ...]


KINDS = {
    "address": Kind(
        "libasan.so",
        "__asan_report",
        # python and torch never free all they have: tests/test_leaks.py asks for what is ours
        f"{COMMON.format(halt=1)}:detect_leaks=1:leak_check_at_exit=0",
        {"PYTHONMALLOC": "malloc", "UBSAN_OPTIONS": "print_stacktrace=1"},  # buffers of Python's are watched as well
        (
            *("staged_*", "stop", "merging", "anyres", "tiles", "tile_rows", "pruning", "pruning_settings", "foreign"),
            *("threads", "kernels_*", "score_kernels", "exact", "ward", "ward_ways", "tower_merge", "weigh", "ties"),
            *("native_*", "life_cycle", "closed", "callbacks", "rehearsal", "damaged_heads", "text_heads"),
            *("chat_state", "chat_state_cells", "finite", "taken_back", "grammar_endless", "rpc_failures"),
            *("mapped_weights", "encoded_store", "rankings", "reuse", "quantize", "leaks"),
        ),
        ("gguf", "saved_chat", "state", "request", "checkpoint", "grammar"),
    ),
    "thread": Kind(
        "libtsan.so",
        "__tsan_init",
        f"{COMMON.format(halt=0)}:second_deadlock_stack=1:suppressions={HERE / 'thread.supp'}",
        {},
        (
            *("threads", "stop", "closed", "callbacks", "life_cycle", "native_*", "ahead_faults"),
            *(
                "kernels_products",
                "kernels_attention",
                "kernels_unpacked",
                "score_kernels",
                "merging",
                "ward",
                "anyres",
            ),
            *("server_cancel", "server_conversations", "server_queue", "encoded_store"),
            *("run_workers", "live_rows", "tile_rows", "staged_context", "rehearsal"),
        ),
        ("request", "saved_chat"),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.sanitized", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--build", type=Path, required=True, help="CMake's folder, of a build with AIM_SANITIZE=KIND")
    parser.add_argument("--mutants", type=int, help="of each reader", default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--test", action="append", help="files to run instead; may be repeated")
    parser.add_argument("--target", action="append", help="readers to try instead; may be repeated")
    args = parser.parse_args()
    kind, out = KINDS[args.kind], args.build.resolve() / "tried"
    check_built(kind, args.build)
    shutil.rmtree(out, ignore_errors=True)
    environment, begin = given(kind, args.build.resolve(), out), time.monotonic()
    only = bool(args.test or args.target)
    tests, targets = args.test or ([] if only else kind.tests), args.target or ([] if only else kind.targets)
    n_failed, passed = tested(tests, environment, out / "tests.xml", args.jobs)
    n_failed += fuzzed(targets, environment, out, args.mutants, args.jobs)
    n_reports = reported(out / "reports", args.build / "bin")
    n_mutants = sum(tally.mutants for tally in State(out / "fuzz.json").tallies)
    minutes = (time.monotonic() - begin) / 60
    print(f"{args.kind}: {passed}; {n_mutants} mutants; {n_reports} reports; {minutes:.1f} minutes; {processor()}")
    return int(bool(n_failed or n_reports))


def check_built(kind: Kind, build: Path) -> None:
    """A cached configuration may be without the sanitizer."""
    for name in ("llama", "mtmd", "ggml-base", "ggml-cpu"):
        library = build / "bin" / f"lib{name}.so"
        if not library.is_file() or kind.symbol.encode() not in library.read_bytes():
            sys.exit(f"error: {library} has no sanitizer in it; remove {build} and try again")


def given(kind: Kind, build: Path, out: Path) -> dict[str, str]:
    """The environment of what is tried. Without libstdc++ beside it asan finds no throw to watch."""
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)", (build / "CMakeCache.txt").read_text(), re.MULTILINE)
    assert compiler
    paths = [run([compiler[1], f"-print-file-name={name}"]).strip() for name in (kind.library, "libstdc++.so")]
    (out / "reports").mkdir(parents=True)
    options = f"{kind.options}:log_path={out / 'reports' / 'report'}"
    return {
        **os.environ,
        **dict.fromkeys(("ASAN_OPTIONS", "TSAN_OPTIONS"), options),
        **kind.environment,
        "LD_PRELOAD": " ".join(paths),
        "AIM_LOCAL_LIB": str(build / "bin"),
        "PYTHONPATH": str(HERE.parent),
    }


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tested(names: list[str] | tuple[str, ...], environment: dict[str, str], told: Path, jobs: int) -> tuple[int, str]:
    """Whether the tests failed, and how many did what. told: where pytest writes that."""
    files = sorted({str(path) for name in names for path in (ROOT / "tests").glob(f"test_{name}.py")})
    if not files:
        return 0, "no tests"
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "--dist", "loadfile", f"--junitxml={told}"]
    code = subprocess.run([*pytest, *files], env=environment, cwd=ROOT, check=False).returncode
    if not told.exists():
        return code, "no tests"
    found = ElementTree.parse(told).getroot().find("testsuite")
    assert found is not None
    n = {name: int(found.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    n_passed = n["tests"] - n["failures"] - n["errors"] - n["skipped"]
    return code, f"{n_passed} tests passed, {n['failures'] + n['errors']} failed, {n['skipped']} skipped"


def fuzzed(
    targets: list[str] | tuple[str, ...], environment: dict[str, str], out: Path, mutants: int, jobs: int
) -> int:
    """The exit code."""
    if not targets:
        return 0
    named = [part for target in targets for part in ("--target", target)]
    kept = ["--out", str(out / "findings"), "--state", str(out / "fuzz.json")]
    asked = ["--known", "--mutants", str(mutants), "--seed", str(SEED), "--jobs", str(jobs)]
    command = [sys.executable, "-m", "fuzz", *asked, *kept, *named]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def reported(folder: Path, libraries: Path) -> int:
    """How many reports lie there. Each place is told once, with a whole report."""
    texts = [path.read_text(errors="replace") for path in sorted(folder.glob("report.*"))]
    texts = [sanitizer.named(text, libraries) for text in texts]
    parts = [part for text in texts for part in re.split(r"(?m)^={10,}$", text) if sanitizer.SAID.search(part)]
    counts = Counter(map(sanitizer.place, parts))
    for place, n in counts.most_common():
        print(f"--- {n} x {place}\n{next(part for part in parts if sanitizer.place(part) == place).strip()}\n")
    return len(parts)


def processor() -> str:
    names = re.findall(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{len(names)} x {names[0]}" if names else f"{os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
