"""A real model's accuracy and first token with its visual tokens whole and reduced, as a section for the docs.

    python benchmarks/real_model.py qwen2.5-vl-3b --suite videomme.parquet --media videos --limit 200 --out results

MODEL is a known name, a repository of the hub or a model that is here; what is not here is pulled (this needs a
network once). The suite is one of `aim-local compare`: JSONL, VideoMME, MVBench. Results are kept in --out as they
come, so the same command goes on where an interrupted one stopped. The section is printed, and written to
OUT/section.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CLI = [sys.executable, "-c", "from aim_local.cli import main; main()"]
SETTINGS = "off,paper,auto"
STAGES = ("decode_video", "preprocess", "vision", "merge", "prefill", "first token")


def run(*words: str) -> str:
    """stdout of the command line; what it says on stderr is seen as it comes. Ends where it fails."""
    done = subprocess.run([*CLI, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"aim-local {words[0]} failed with exit code {done.returncode}")
    return done.stdout


def model_here(name: str) -> dict[str, Any]:
    """What `models info` says of it; pulled first where it is not here."""
    known = subprocess.run([*CLI, "models", "info", name, "--json"], capture_output=True, text=True)
    if known.returncode == 0:
        return dict(json.loads(known.stdout))
    pulled = json.loads(run("pull", name, "--yes", "--json"))
    return dict(json.loads(run("models", "info", pulled["name"], "--json")))


def heading(model: dict[str, Any]) -> list[str]:
    """Which files these are."""
    files = ", ".join(f"`{Path(file['path']).name}` ({file['bytes'] / 1e9:.2f} GB)" for file in model["files"])
    origin = f" from {model['origin']}" if model.get("origin") else ""
    return [f"### {model['name']}", "", f"{files}{origin}; {model['architecture']} with {model['projector']}.", ""]


def stage_table(report: dict[str, Any]) -> list[str]:
    """Medians of milliseconds by stage, and visual tokens, one line a setting."""
    lines = ["| setting | visual tokens | " + " | ".join(f"{name} ms" for name in STAGES) + " |"]
    lines.append("| --- | ---: |" + " ---: |" * len(STAGES))
    for cell in report["cells"]:
        if cell["status"] != "done":
            lines.append(f"| {cell['setting']} | {cell['status']}: {cell['reason']} |" + " |" * len(STAGES))
            continue
        spreads = {**cell["stages"], "first token": cell["ttft_ms"]}
        times = [f"{spreads[name]['median']:,.0f}" if spreads.get(name) else "" for name in STAGES]
        tokens = f"{cell['n_visual_full']:,.0f} -> {cell['n_visual']:,.0f}"
        lines.append(f"| {cell['setting']} | {tokens} | " + " | ".join(times) + " |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--media", type=Path, help="folder of a published suite's videos")
    parser.add_argument("--limit", type=int, help="only the first N questions")
    parser.add_argument("--frames", type=int, help="frames of a clip; default: the model's")
    parser.add_argument("--tokens", default=SETTINGS, help=f"settings, default {SETTINGS}")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    model = model_here(args.model)
    optional = {"--media": args.media, "--limit": args.limit, "--frames": args.frames}
    words = [word for key, value in optional.items() if value is not None for word in (key, str(value))]
    asked = ["--suite", str(args.suite), "--tokens", args.tokens, "--out", str(args.out), "--kld-tokens", "8"]
    report = json.loads(run("compare", model["name"], *asked, *words, "--json"))

    compared = (args.out / "report.md").read_text(encoding="utf-8")
    section = "\n".join([*heading(model), *stage_table(report), compared])
    (args.out / "section.md").write_text(section, encoding="utf-8")
    print(section)


if __name__ == "__main__":
    main()
