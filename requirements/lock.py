#!/usr/bin/env python3
"""Writes the lock of what CI installs: `make lock`. Versions and sha256, of wheels for this Python and this machine.

Whatever pyproject.toml asks for, all extras and the build's own tools, is resolved by pip against its index as it is
set up here. pip then installs the lock with --require-hashes: nothing beside it, nothing that was changed since.
The standard library and pip, so that it runs before anything is installed.

  lock.py PYTHON REQUIREMENT...  PYTHON: of an empty virtual environment; REQUIREMENT: more than pyproject.toml names
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "ci.lock"
HEAD = "# Made by `make lock`: what CI installs, on Linux x86_64 with Python 3.11. Do not edit.\n"


def wanted() -> list[str]:
    """The build's tools, the dependencies and those of all extras."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = found["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    return [*found["build-system"]["requires"], *project["dependencies"], *extras]


def resolved(python: str, requirements: list[str], *options: str) -> list[dict[str, Any]]:
    """What pip would install, by its own report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [python, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
        subprocess.run([*command, "--report", str(report), *options, *requirements], check=True)
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return found


def pins(install: list[dict[str, Any]]) -> dict[str, str]:
    """name==version -> sha256. With its local version, as in torch's 2.13.0+cpu: another build wants other packages."""
    return {
        f"{canonical(item['metadata']['name'])}=={item['metadata']['version']}": str(
            item["download_info"]["archive_info"]["hashes"]["sha256"]
        )
        for item in install
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_text(found: dict[str, str], before: str) -> str:
    """The lock. Hashes of the one before stay where the version does: wheels of one release for several indexes."""
    known = {line.split()[0]: set(re.findall(r"sha256:(\w+)", line)) for line in entries(before)}
    lines = []
    for pin, sha256 in sorted(found.items()):
        hashes = sorted({sha256, *known.get(pin, ())})
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{one}" for one in hashes)]) + "\n")
    return HEAD + "".join(lines)


def entries(text: str) -> list[str]:
    """One line for each package of a lock."""
    joined = text.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.startswith("#")]


def main(python: str, *more: str) -> None:
    before = LOCK.read_text(encoding="utf-8") if LOCK.is_file() else ""
    text = lock_text(pins(resolved(python, [*wanted(), *more])), before)
    fresh = LOCK.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(LOCK)
    print(f"{LOCK}: {len(entries(text))} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
