#!/usr/bin/env python3
"""The pinned upstream source: fetch, check, unpack, patch, refresh.

Knows: patches/VERSION (the only place with the pin), the overlay (our own sources at upstream paths) and the hooks
(000N-*.patch, call sites only). Leaves compiling to patches/CMakeLists.txt. Standard library only, because it runs
inside isolated wheel builds.

  upstream.py apply   --out BUILD_DIR   patched tree in BUILD_DIR/llama.cpp (idempotent; only changed files are touched)
  upstream.py refresh --out BUILD_DIR   edits made in BUILD_DIR/llama.cpp go back into overlay/ and the hooks
  upstream.py stock   --out BUILD_DIR   upstream with its faults mended (hooks from 0020 on) and nothing of ours, in
                                        BUILD_DIR/llama.cpp: what comparisons are against (cmake -DAIM_STOCK=ON)
  upstream.py check   --out BUILD_DIR   hooks apply to a pristine tree, stay small, and refresh is a no-op
  upstream.py bindings --out BUILD_DIR  the ctypes bindings of the same sdist in BUILD_DIR/bindings/llama_cpp
  upstream.py converter --out BUILD_DIR llama.cpp's own converter and its gguf package in BUILD_DIR/upstream
  upstream.py licenses --out BUILD_DIR  texts of the licences of what is compiled into our libraries, in BUILD_DIR/licenses

Offline: set AIM_LLAMA_SDIST to a downloaded sdist (.tar.gz) or to an unpacked one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OVERLAY = HERE / "overlay"
MAX_HOOK_LINES = 150
MAX_HOOK_FILES = 12
MAX_GRAPH_LINES = 8  # of a text architecture's graph, a patch of its own that the two above do not count
CONVERTER = {"conversion": "base.py", "gguf-py/gguf": "gguf_writer.py"}  # folders, each with a file of it
BINDINGS = ("_ctypes_extensions.py", "llama_cpp.py", "mtmd_cpp.py")  # of llama-cpp-python: the C functions, no more


class UpstreamError(Exception):
    """One clear line for whoever runs the build."""


def read_pin() -> dict[str, str]:
    """The key-value lines of patches/VERSION: package, version, sha256 of its sdist and of its bindings, patch."""
    return dict(line.split(maxsplit=1) for line in (HERE / "VERSION").read_text().splitlines() if line.strip())


FIRST_MEND = "0020"  # hooks from here on mend faults of upstream, with their own part of the overlay


def mends() -> list[Path]:
    return [patch for patch in hooks() if patch.name >= FIRST_MEND]


def mending_overlay() -> list[str]:
    """Our files that hooks from 0020 on include."""
    return ["ggml/src/ggml-cpu/amx/aim-tiles.h"]


def hooks() -> list[Path]:
    return sorted(HERE.glob("[0-9][0-9][0-9][0-9]-*.patch"))


def hook_files(patch: Path) -> list[str]:
    """Upstream paths a hook patch touches."""
    return re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(), flags=re.MULTILINE)


def overlay_files() -> list[str]:
    return sorted(str(p.relative_to(OVERLAY)) for p in OVERLAY.rglob("*") if p.is_file())


# --- fetch -----------------------------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def fetch_sdist(out: Path) -> Path:
    """The sdist archive, from AIM_LLAMA_SDIST, from an earlier run, or from pip by package name; sha256 checked."""
    pin = read_pin()
    given = os.environ.get("AIM_LLAMA_SDIST")
    if given:
        archive = Path(given)
        if not archive.is_file():
            raise UpstreamError(
                f"AIM_LLAMA_SDIST names {archive}, which is not there; give the sdist's .tar.gz or its unpacked folder"
            )
    else:
        folder = out / "sdist"
        name = pin["package"].replace("-", "_")
        archive = folder / f"{name}-{pin['version']}.tar.gz"
        if not archive.is_file():
            download(pin, folder)
        if not archive.is_file():
            raise UpstreamError(
                f"pip brought no {archive.name} into {folder}; download it elsewhere and set AIM_LLAMA_SDIST to it"
            )
    found = sha256_of(archive)
    if found != pin["sha256"]:
        raise UpstreamError(
            f"{archive} has sha256 {found}, patches/VERSION wants {pin['sha256']}; delete it and build again"
        )
    return archive


def download(pin: dict[str, str], folder: Path) -> None:
    """Has pip download the sdist. pip runs code of an sdist to read its metadata: only once its hash is the pinned one."""
    folder.mkdir(parents=True, exist_ok=True)
    # the sdist's build backend; inside a wheel build that is installed already
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("scikit_build_core") else []
    with tempfile.TemporaryDirectory(dir=folder) as tmp:
        wanted = Path(tmp) / "requirements.txt"
        wanted.write_text(f"{pin['package']}=={pin['version']} --hash=sha256:{pin['sha256']}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", *isolation,
                   "--require-hashes", "--dest", str(folder), "--requirement", str(wanted)]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        said = result.stderr.strip()
        if "DO NOT MATCH THE HASHES" in said:
            raise UpstreamError(f"the sdist of {pin['package']} {pin['version']} that pip found has another sha256 than patches/VERSION; "
                                "none of it was run: use another package index, or download the sdist elsewhere and set AIM_LLAMA_SDIST to it")  # fmt: skip
        raise UpstreamError(f"pip could not download {pin['package']} {pin['version']}; download its sdist elsewhere and set "
                            f"AIM_LLAMA_SDIST to it. pip said:\n{said[-2000:]}")  # fmt: skip


def sdist_folder(out: Path) -> Path:
    """The unpacked sdist; of a downloaded one only the parts that are used."""
    given = os.environ.get("AIM_LLAMA_SDIST")
    if given and Path(given).is_dir():
        for part in ("vendor/llama.cpp", "llama_cpp"):
            if not (Path(given) / part).is_dir():
                raise UpstreamError(
                    f"AIM_LLAMA_SDIST names the folder {given}, which holds no {part}; name an unpacked sdist"
                )
        return Path(given)
    folder = out / "unpacked" / read_pin()["version"]
    if not folder.is_dir():
        archive = fetch_sdist(out)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as tmp:
            with tarfile.open(archive) as tar:
                tar.extractall(tmp, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(tmp)
            (unpacked,) = (p for p in Path(tmp).iterdir() if p.is_dir())
            shutil.rmtree(unpacked / ".git", ignore_errors=True)
            unpacked.rename(folder)
    return folder


def pristine_tree(out: Path) -> Path:
    """Unpacked, untouched llama.cpp."""
    return sdist_folder(out) / "vendor" / "llama.cpp"


# --- bindings --------------------------------------------------------------------------------------------------------


def relative_imports(text: str) -> str:
    """The source of a binding, importing its neighbours by relative names: an installed llama_cpp is another package."""
    text = re.sub(r"^(\s*)from llama_cpp\.(\w+) import", r"\1from .\2 import", text, flags=re.MULTILINE)
    return re.sub(r"^(\s*)import llama_cpp\.(\w+) as (\w+)$", r"\1from . import \2 as \3", text, flags=re.MULTILINE)


def bindings_digest(folder: Path) -> str:
    """sha256 over the files of the bindings, one after the other."""
    digest = hashlib.sha256()
    for name in BINDINGS:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def bindings(out: Path) -> Path:
    """Brings BUILD_DIR/bindings/llama_cpp to the bindings of the pinned sdist, with its licence; returns that folder."""
    sdist, target, pin = sdist_folder(out), out / "bindings" / "llama_cpp", read_pin()
    texts = {}
    for name in BINDINGS:
        source = sdist / "llama_cpp" / name
        texts[name] = relative_imports(source.read_text(encoding="utf-8")) if source.is_file() else "import llama_cpp"
        if re.search(r"^\s*(from|import) llama_cpp\b", texts[name], flags=re.MULTILINE):
            raise UpstreamError(
                f"the bindings in {source} are not laid out as expected; adapt bindings() in patches/upstream.py"
            )
    found = bindings_digest(sdist / "llama_cpp")
    if found != pin["bindings"]:
        raise UpstreamError(
            f"the bindings in {sdist / 'llama_cpp'} have the sha256 {found}, patches/VERSION wants {pin['bindings']}; "
            "take them from the sdist of that version"
        )
    target.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")
    about = f"The ctypes bindings of {pin['package']} {pin['version']}, see LICENSE.md. Made by patches/upstream.py."
    (target / "__init__.py").write_text(f'"""{about}"""\n\n__version__ = "{pin["version"]}"\n', encoding="utf-8")
    shutil.copyfile(sdist / "LICENSE.md", target / "LICENSE.md")
    return target


# --- converter -------------------------------------------------------------------------------------------------------


def converter(out: Path) -> Path:
    """Brings BUILD_DIR/upstream to llama.cpp's converter as it is, with the gguf package it is written for."""
    pristine, target = pristine_tree(out), out / "upstream"
    shutil.rmtree(target, ignore_errors=True)
    for part, file in CONVERTER.items():
        if not (pristine / part / file).is_file():
            raise UpstreamError(
                f"llama.cpp's converter has no {part}/{file} any more; adapt converter() in patches/upstream.py"
            )
        shutil.copytree(pristine / part, target / part, ignore=shutil.ignore_patterns("__pycache__", "scripts"))
    shutil.copyfile(pristine / "LICENSE", target / "LICENSE")
    return target


# --- licences --------------------------------------------------------------------------------------------------------

# what is compiled into the libraries: where it stands in llama.cpp, the file with its licence, and which part of that:
# "file", the comment on "top", or all from the last place of a text on
LICENSES = {
    "llama.cpp": ("vendor/hash/hash.", "LICENSE", "file"),
    "llamafile-sgemm": ("ggml/src/ggml-cpu/llamafile/", "ggml/src/ggml-cpu/llamafile/sgemm.cpp", "top"),
    "miniaudio": ("vendor/miniaudio/", "vendor/miniaudio/miniaudio.h", "This software is available as a choice"),
    "stb_image": ("vendor/stb/", "vendor/stb/stb_image.h", "This software is available under 2 licenses"),
    "xxhash": ("vendor/hash/xxhash/", "vendor/hash/xxhash/LICENSE", "file"),
    "sha256": ("vendor/hash/sha256/", "vendor/hash/sha256/LICENSE", "file"),
    "sha1": ("vendor/hash/sha1/", "vendor/hash/sha1/sha1.c", "top"),
    "rotate-bits": ("vendor/hash/rotate-bits/", "vendor/hash/rotate-bits/LICENSE.md", "file"),
}


def unlicensed(deps: bytes) -> set[str]:
    """What is compiled in beside llama.cpp's own files, by the build's record of what it read, and has no entry above.

    And entries that nothing is compiled of any more.
    """
    kinds = rb"upstream/llama\.cpp/((?:vendor|ggml/src/ggml-cpu/llamafile)/[\w./-]+\.(?:h|hpp|c|cpp))\b"
    read = {path.decode() for path in re.findall(kinds, deps)}
    places = {place for place, _, _ in LICENSES.values()}
    strange = {path for path in read if not path.startswith(tuple(places))}
    return strange | {place for place in places if not any(path.startswith(place) for path in read)}


def licenses(out: Path) -> Path:
    """Brings BUILD_DIR/licenses to one file for each part that is compiled in, and one of the bindings."""
    pristine, target = pristine_tree(out), out / "licenses"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, (_, file, part) in LICENSES.items():
        source = pristine / file
        text = source.read_text(encoding="utf-8", errors="replace") if source.is_file() else ""
        found = license_part(text, part)
        if not found.strip():
            raise UpstreamError(f"the licence of {name} is no longer in {file}; adapt LICENSES in patches/upstream.py")
        (target / f"LICENSE-{name}").write_text(found, encoding="utf-8")
    shutil.copyfile(sdist_folder(out) / "LICENSE.md", target / "LICENSE-llama-cpp-python")
    return target


def license_part(text: str, part: str) -> str:
    if part == "file":
        return text
    if part == "top":
        found = re.match(r"\s*(/\*.*?\*/|(?://[^\n]*\n)+)", text, flags=re.DOTALL)
        return found[1] if found else ""
    return text[text.rindex(part) :] if part in text else ""


# --- apply -----------------------------------------------------------------------------------------------------------


def git(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs git, which applies and writes patches. Its exit status is the caller's matter."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, **options)
    except FileNotFoundError as e:
        raise UpstreamError(
            "git is needed to patch llama.cpp and is not on the PATH; install it (apt install git) and build again"
        ) from e


def patched_files(pristine: Path, into: Path, patches: list[Path]) -> list[str]:
    """Applies hooks to copies of the files they touch, under `into`; returns their paths."""
    touched = sorted({name for patch in patches for name in hook_files(patch)})
    for name in touched:
        source = pristine / name
        if not source.is_file():
            raise UpstreamError(
                f"a hook touches {name}, which upstream no longer has; rewrite that hook for the new layout"
            )
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, into / name)
    for patch in patches:
        env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(into.parent)}
        result = git("apply", "-p1", str(patch), cwd=into, env=env)
        if result.returncode != 0:
            raise UpstreamError(f"{patch.name} does not apply to {read_pin()['version']}: {result.stderr.strip()}\n"
                                "Upstream moved the lines it hooks: edit the call site in the tree and run `make refresh`.")  # fmt: skip
    return touched


def copy_if_changed(source: Path, target: Path) -> bool:
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return True


def apply(out: Path) -> Path:
    """Brings BUILD_DIR/llama.cpp to pristine + overlay + hooks."""
    return lay(out, hooks(), overlay_files())


def stock(out: Path) -> Path:
    """Brings BUILD_DIR/llama.cpp to what others run, but for faults that end the process on some CPUs."""
    return lay(out, mends(), mending_overlay())


def lay(out: Path, patches: list[Path], overlay: list[str]) -> Path:
    """BUILD_DIR/llama.cpp with these patches and files, touching only files that differ (ninja stays incremental)."""
    pristine, tree = pristine_tree(out), out / "llama.cpp"
    stamp = out / "upstream.stamp"
    if not tree.is_dir() or not stamp.is_file() or stamp.read_text().split("\n")[0] != read_pin()["sha256"]:
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(pristine, tree, symlinks=True)
        stamp.write_text(read_pin()["sha256"] + "\n")
    ours_before = set(stamp.read_text().split("\n")[1:]) - {""}
    with tempfile.TemporaryDirectory(dir=out) as tmp:
        hooked = patched_files(pristine, Path(tmp), patches)
        for name in hooked:
            copy_if_changed(Path(tmp) / name, tree / name)
    for name in overlay:
        if (pristine / name).exists():
            raise UpstreamError(f"overlay/{name} would hide an upstream file; give it a name of its own")
        copy_if_changed(OVERLAY / name, tree / name)
    ours = {*hooked, *overlay}
    for name in ours_before - ours:  # a hook or source that is gone must not linger in the tree
        if (pristine / name).is_file():
            copy_if_changed(pristine / name, tree / name)
        else:
            (tree / name).unlink(missing_ok=True)
    stamp.write_text("\n".join([read_pin()["sha256"], *sorted(ours)]) + "\n")
    return tree


# --- refresh and check -----------------------------------------------------------------------------------------------


def hook_text(pristine: Path, tree: Path, names: list[str]) -> str:
    """One patch over `names`, with the least context that still applies (one line), paths relative to the tree."""
    parts = []
    for name in names:
        result = git(
            "diff", "--no-index", "--no-color", "-U1", "--inter-hunk-context=0", str(pristine / name), str(tree / name)
        )
        if result.returncode not in (0, 1):
            raise UpstreamError(f"git diff failed on {name}: {result.stderr.strip()}")
        body = [
            line for line in result.stdout.splitlines() if not line.startswith(("diff --git", "index ", "--- ", "+++ "))
        ]
        if body:
            body = [re.sub(r"^(@@ [^@]* @@).*", r"\1", line) for line in body]
            parts.append("\n".join([f"--- a/{name}", f"+++ b/{name}", *body]))
    return "\n".join(parts) + ("\n" if parts else "")


def patch_header(patch: Path) -> str:
    """The prose above the first diff line, kept across refreshes."""
    text = patch.read_text()
    return text[: text.index("--- a/")]


def changed_upstream_files(pristine: Path, tree: Path) -> list[str]:
    """Files of the tree that differ from upstream and are not ours; new files that are not in overlay/."""
    result = git("diff", "--no-index", "--no-color", "--name-only", str(pristine), str(tree))
    names = [str(Path(line).relative_to(tree)) for line in result.stdout.splitlines() if line.startswith(str(tree))]
    return [n for n in names if "__pycache__" not in n]


def refresh(out: Path) -> list[str]:
    """Takes edits in the tree back: overlay files are copied, each hook patch is rewritten over the files it names."""
    pristine, tree = pristine_tree(out), out / "llama.cpp"
    written = [
        f"overlay/{name}"
        for name in overlay_files()
        if (tree / name).is_file() and copy_if_changed(tree / name, OVERLAY / name)
    ]
    owned: dict[str, Path] = {}
    for patch in hooks():
        for name in hook_files(patch):
            if name in owned:
                raise UpstreamError(
                    f"{name} is hooked by {owned[name].name} and {patch.name}; keep one patch per upstream file"
                )
            owned[name] = patch
    strays = [n for n in changed_upstream_files(pristine, tree) if n not in owned and n not in overlay_files()]
    if strays:
        raise UpstreamError(f"{len(strays)} changed files belong to no hook and no overlay ({', '.join(strays[:5])}); "
                            "add `--- a/FILE` and `+++ b/FILE` lines to a hook patch, or put a new file under overlay/")  # fmt: skip
    for patch in hooks():
        text = patch_header(patch) + hook_text(pristine, tree, hook_files(patch))
        if text != patch.read_text():
            patch.write_text(text)
            written.append(patch.name)
    return written


def added_lines(patch: Path) -> int:
    return len(re.findall(r"^\+(?!\+\+ b/)", patch.read_text(), flags=re.MULTILINE))


def graphs() -> list[Path]:
    """Patches of text architectures: each hooks the one file of its graph."""
    return [p for p in hooks() if all(name.startswith("src/models/") for name in hook_files(p))]


def hook_size() -> tuple[int, int]:
    """(added lines, upstream files) over all hooks but those of text architectures."""
    counted = [p for p in hooks() if p not in graphs()]
    return sum(map(added_lines, counted)), len({name for p in counted for name in hook_files(p)})


def check(out: Path) -> str:
    apply(out)
    record = out.parent / ".ninja_deps"
    strange = unlicensed(record.read_bytes()) if record.is_file() else set()
    if strange:
        raise UpstreamError(
            f"LICENSES in patches/upstream.py does not name what is compiled in: {', '.join(sorted(strange))}"
        )
    added, files = hook_size()
    if added > MAX_HOOK_LINES or files > MAX_HOOK_FILES:
        raise UpstreamError(
            f"hooks add {added} lines in {files} files; allowed are {MAX_HOOK_LINES} in {MAX_HOOK_FILES}: move code into overlay/"
        )
    large = [f"{p.name} adds {added_lines(p)}" for p in graphs() if added_lines(p) > MAX_GRAPH_LINES]
    if large:
        raise UpstreamError(
            f"{', '.join(large)} lines to a graph; allowed are {MAX_GRAPH_LINES}: move code into overlay/"
        )
    before = {p: p.read_text() for p in hooks()}
    written = refresh(out)
    if written:
        for path, text in before.items():
            path.write_text(text)
        raise UpstreamError(f"refresh is not a no-op, it rewrote {', '.join(written)}; run `make refresh` and commit")
    return f"hooks: {added} added lines in {files} upstream files (limits {MAX_HOOK_LINES}, {MAX_HOOK_FILES}), {len(graphs())} graphs of at most {MAX_GRAPH_LINES} lines; overlay: {len(overlay_files())} files; refresh is a no-op"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["apply", "stock", "bindings", "converter", "licenses", "refresh", "check"])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    try:
        if args.command == "apply":
            print(apply(out))
        elif args.command == "stock":
            print(stock(out))
        elif args.command == "bindings":
            print(bindings(out))
        elif args.command == "converter":
            print(converter(out))
        elif args.command == "licenses":
            print(licenses(out))
        elif args.command == "refresh":
            print("\n".join(refresh(out)) or "nothing to take back")
        else:
            print(check(out))
    except UpstreamError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
