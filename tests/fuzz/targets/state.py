"""Files that we wrote ourselves and read again: whatever another version, a bad disk or another program made of them.

The store (hub.json, aim.json, fetched.jsonl), caches (digests, paces, calibrations, encoded clips), and what a run or a
comparison goes on from. Caches are dropped where they are damaged; results of others are told in one line.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.damage import damage_bytes, damage_json, json_text

SHORT = 120
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MADE_FROM = {"model": "a", "questions": "b", "max_tokens": 5}
FACTS = {"shape": {"n_params": 10}, "conditions": {"n_threads": 1}, "machine": {"processor": "x"}, "vision": {}}


def seeds(folder: Path) -> list[Path]:
    paths = []
    for suffix, content in kept().items():
        paths.append(folder / f"a{suffix}")
        paths[-1].write_bytes(content)
    return paths


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A line of JSON, the whole as JSON, or bytes; of an entry of encoded media what stands behind its sum."""
    if data.startswith(b"AIMROWS"):
        return mutate_rows(data, rng)
    lines = data.splitlines(keepends=True)
    if rng.random() < 0.1 or not lines:
        return damage_bytes(data, rng)
    if len(lines) == 1 or lines[0].strip() in (b"{", b"["):
        return damage_json(data, rng)
    at = rng.randrange(len(lines))
    match rng.randrange(10):
        case 0:
            return b"".join(
                [*lines[:at], json_text(rng.choice((None, 1, "x", [], {}, [1, 2])), rng), b"\n", *lines[at:]]
            )
        case 1:
            return data + lines[at]
        case _:
            lines[at] = damage_json(lines[at], rng).replace(b"\n", b" ") + b"\n"
            return b"".join(lines)


def mutate_rows(data: bytes, rng: random.Random) -> bytes:
    """With a sum that fits in most: what is behind it must hold by itself."""
    head = struct.Struct("<8sIQQ32s4x")
    if rng.random() < 0.2 or len(data) < head.size:
        return damage_bytes(data, rng)
    magic, version, n_arrays, n_text, _ = head.unpack(data[: head.size])
    arrays, text = data[head.size :][:n_arrays], data[head.size + n_arrays :]
    if rng.random() < 0.8:
        text = damage_json(text, rng)
    else:
        arrays = damage_bytes(arrays, rng)
    n_text = len(text) if rng.random() < 0.9 else rng.choice((0, (n_text + 1) % 2**64, 2**63, 2**64 - 1))
    n_arrays = len(arrays) if rng.random() < 0.9 else rng.choice((0, (n_arrays + 1) % 2**64, 2**63, 2**64 - 1))
    return head.pack(magic, version, n_arrays, n_text, hashlib.sha256(arrays + text).digest()) + arrays + text


def read(path: Path) -> None:
    do = next(do for suffix, do in READERS.items() if path.name.endswith(suffix))
    with home() as folder:
        do(path.read_bytes().replace(b"@HOME", str(folder).encode()), folder)


@contextmanager
def home() -> Iterator[Path]:
    folder, before = Path(tempfile.mkdtemp()), os.environ["AIM_LOCAL_HOME"]
    os.environ["AIM_LOCAL_HOME"] = str(folder)
    try:
        yield folder
    finally:
        os.environ["AIM_LOCAL_HOME"] = before
        shutil.rmtree(folder, ignore_errors=True)


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- the store --------------------------------------------------------------------------------------------------------


def read_hub(data: bytes, folder: Path) -> None:
    from aim_local import hub, store

    model, bundled = store.models_folder() / "m", store.bundled_folder()
    assert bundled
    put(model / "hub.json", data)
    snapshot = folder / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("model.gguf", "mmproj.gguf"):
        (snapshot / name).symlink_to(bundled / name)
    listed = store.list_models()
    assert {"demo", "m"} <= {entry.name for entry in listed}, "one bad entry hides others"
    assert json.dumps([entry.to_dict() for entry in listed])
    hub.plan_removal("m")
    assert store.resolve("m") == store.resolve("a/b")


def read_aim(data: bytes, folder: Path) -> None:
    from aim_local import store

    model = store.models_folder() / "m"
    put(model / "aim.json", data)
    bundled = store.bundled_folder()
    assert bundled
    for name in ("model.gguf", "mmproj.gguf"):
        (model / name).symlink_to(bundled / name)
    assert {"demo", "m"} <= {entry.name for entry in store.list_models()}, "one bad entry hides others"
    store.resolve("m")
    store.find_entry("m")


def read_fetched(data: bytes, folder: Path) -> None:
    from aim_local import store

    file = put(folder / "blob", b"x")
    put(store.names.data_folder() / "fetched.jsonl", data)
    store.was_fetched(file)
    store.forget_fetched([file])
    store.note_fetched(file)
    assert store.was_fetched(file)


# --- caches -----------------------------------------------------------------------------------------------------------


def read_digests(data: bytes, folder: Path) -> None:
    from aim_local.store.digests import known_digest
    from aim_local.store.names import cache_folder

    file = put(folder / "weights", b"some weights")
    put(cache_folder() / "digests.json", data)
    assert known_digest(file) == hashlib.sha256(b"some weights").hexdigest()


def read_pace(data: bytes, folder: Path) -> None:
    from aim_local.lab.plan.pace import load_pace, save_pace

    put(save_pace(FACTS, pace()), data)
    found = load_pace(FACTS)
    assert found is None or math.isfinite(found.together(1.0, 2.0))


def read_calibration(data: bytes, folder: Path) -> None:
    from aim_local.lab.plan import calibration

    put(calibration.folder() / "a.json", data)
    choice = calibration.choose({"n_params": 12}, {"n_threads": 1}, {"processor": "x"}, "calibrate")
    if choice.calibration:
        seconds = choice.calibration.predict({"vision": {"flops": 2.0}, "prefill": {"flops": 1.0}})
        assert all(math.isfinite(value) for value in seconds.values())
        assert math.isfinite(choice.calibration.median_error)
        assert json.dumps(choice.calibration.to_dict())


def read_rows(data: bytes, folder: Path) -> None:
    from aim_local.store.encoded import EncodedStore

    store = EncodedStore()
    put(store.folder / key().name, data)
    entry = store.find(key())
    assert all(rows.ndim == 2 for rows in entry.rows) if entry else True
    assert len(store.entries()) == 1
    assert all(stored.source.isprintable() or True for stored in store.entries())
    store.clear()


# --- what goes on -----------------------------------------------------------------------------------------------------


def read_stats(data: bytes, folder: Path) -> None:
    """A run goes on from its sidecar."""
    from aim_local.batch.answers import Answers
    from aim_local.batch.job import Outcome

    out = folder / "a.jsonl"
    put(folder / "a.jsonl.stats", data)
    ids = ["a", "b", "c"]
    with Answers(out, MADE_FROM, ids) as answers:
        answers.forget_errors()
        answers.answered()
        for index, name in enumerate(ids):
            if index not in answers.done:
                answers.add(Outcome(index, {"id": name, "answer": "x"}, {}))
        answers.write()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ids, "one line a question, in their order"


def read_items(data: bytes, folder: Path) -> None:
    """A comparison's report from the lines of an earlier run."""
    from aim_local.lab.compare.job import Options
    from aim_local.lab.compare.matrix import find_reference, matrix
    from aim_local.lab.compare.runner import Runner, Watch, write_report
    from aim_local.lab.compare.variants import make, plan_variants
    from aim_local.lab.compare.workspace import Workspace

    space, watch = Workspace(folder / "out"), Watch()
    variants, settings = plan_variants([], [], [], []), ("off", "paper")
    cells = matrix([make(variant, space, watch.quantising) for variant in variants], settings)
    first = find_reference(variants, settings, None)
    runner = Runner(space, suite(), cells, first, Options(kld_tokens=0), watch, NoCrew())
    for cell in cells:
        kept_cell = space.cell(cell.spec.key)
        kept_cell.adopt(runner._inputs(cell.spec, runner._role(cell.spec.key)))
        kept_cell.items.write_bytes(data)
    runner.run()
    write_report(runner.report("", 1.0), space.path)


def read_inputs(data: bytes, folder: Path) -> None:
    from aim_local.lab.compare.workspace import Workspace

    put(folder / "out" / "hashes.json", data)
    space = Workspace(folder / "out")
    file = put(folder / "weights", b"some weights")
    assert space.sha256(file) == hashlib.sha256(b"some weights").hexdigest()
    cell = space.cell("a / off")
    put(cell.path / "inputs.json", data)
    put(cell.path / "items.jsonl", b"{}\n")
    assert all(isinstance(name, str) for name in cell.adopt({"model": "x"}))
    assert json.loads((cell.path / "inputs.json").read_text()) == {"model": "x"}


class NoCrew:
    """Answers nothing: only what is there counts."""

    notes: tuple[str, ...] = ()

    def each(self, cells: Any, do: Callable[[Any], None]) -> None:
        for cell in cells:
            do(cell)

    def run(self, job: Any, log: Path, on_item: Callable[[], None]) -> str:
        return "nobody is here"


READERS: dict[str, Callable[[bytes, Path], None]] = {
    ".hub.json": read_hub,
    ".aim.json": read_aim,
    ".fetched.jsonl": read_fetched,
    ".digests.json": read_digests,
    ".pace.json": read_pace,
    ".calibration.json": read_calibration,
    ".rows": read_rows,
    ".stats": read_stats,
    ".items.jsonl": read_items,
    ".inputs.json": read_inputs,
}
SUFFIXES = tuple(READERS)


# --- as they are written ----------------------------------------------------------------------------------------------


def kept() -> dict[str, bytes]:
    """A sound file of each kind."""
    with home() as folder:
        return dict(written(folder))


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    from aim_local.batch.answers import Answers
    from aim_local.batch.job import Outcome
    from aim_local.lab.plan.pace import save_pace

    pair = {"model": "model.gguf", "mmproj": "mmproj.gguf"}
    origin = {"format": 1, "repo": "a/b", "revision": COMMIT, "quant": "Q8_0", "default": True}
    yield ".hub.json", json.dumps({**origin, "cache": "@HOME/models--a--b", "files": [*pair.values()], **pair}).encode()
    files = {role: {"path": name, "type": "f16", "bytes": 1, "sha256": "0" * 64} for role, name in pair.items()}
    yield ".aim.json", json.dumps({"format": 1, "name": "m", "architecture": "x", "files": files}, indent=2).encode()
    yield ".fetched.jsonl", b'["@HOME/blob", 123]\n["/other", 5]\n["/third", 6]\n'
    yield ".digests.json", json.dumps({"/a/b": [3, 4, 5, 6, "0" * 64]}).encode()
    yield ".pace.json", save_pace(FACTS, pace()).read_bytes()
    yield ".calibration.json", json.dumps(calibrated().to_dict(), indent=1).encode()
    yield ".rows", encoded(folder)
    out = folder / "a.jsonl"
    with Answers(out, MADE_FROM, ["a", "b", "c"]) as answers:
        answers.add(Outcome(0, {"id": "a", "answer": "x"}, {"clips": [], "total_ms": 1.5}))
        answers.add(Outcome(1, {"id": "b", "error": "no such file"}, {}))
    yield ".stats", (folder / "a.jsonl.stats").read_bytes()
    yield ".items.jsonl", b"".join(json.dumps(row.to_dict()).encode() + b"\n" for row in answered())
    inputs = {"model": "0" * 64, "options": {"max_tokens": 5}, "/x": [1, 2, "0" * 64]}
    yield ".inputs.json", json.dumps(inputs).encode()


def pace() -> Any:
    from aim_local.lab.plan.pace import Pace

    return Pace({"vision": {"flops": 1e-9}, "prefill": {"flops": 2e-9}}, 0.5, 1e-9, "2026-01-01T00:00:00+00:00")


def calibrated() -> Any:
    from aim_local.lab.plan.calibration import Calibration, Trial

    seconds = {"vision": 1.0, "prefill": 2.0}
    trials = tuple(Trial(name, name == "a", 3, 0.1, seconds, seconds) for name in ("a", "b"))
    rates = {"vision": {"flops": 1e-9}, "prefill": {"flops": 2e-9}}
    return Calibration(
        "m", "2026-01-01T00:00:00+00:00", {"n_params": 10}, {"n_threads": 1}, {"processor": "x"}, rates, trials
    )


def key() -> Any:
    from aim_local.store.encoded import Key

    return Key({"clip": "0" * 64, "tower": {"mmproj": "x", "n": 3}})


def encoded(folder: Path) -> bytes:
    from aim_local.store.encoded import EncodedStore

    store = EncodedStore(folder / "clips")
    writer = store.begin(key())
    writer.add(0, np.ones((2, 4), np.float32))
    writer.add(1, np.zeros((3, 4), np.float32))
    writer.finish([0, 1, 0], np.zeros((3, 2, 2, 3), np.uint8), {"source": "clip.mp4", "n": 3})
    return (store.folder / key().name).read_bytes()


def answered() -> list[Any]:
    from aim_local.lab.compare.records import ItemResult
    from aim_local.results import Stats

    stats = Stats(n_visual=4, n_visual_full=8, ttft_ms=1.0, n_generated=2, decode_ms=1.0).to_dict()
    return [ItemResult(i.id, "A", [1], "A", bool(n % 2), [0.5], [True], stats) for n, i in enumerate(suite().items)]


@cache
def suite() -> Any:
    from aim_local.lab.compare.records import Item, Suite

    clip = Path(__file__).resolve().parents[3] / "aim_local" / "data" / "clips" / "time.mp4"
    items = tuple(Item(f"q{n}", (clip,), "What?", "A", ("x", "y"), ("tag",)) for n in range(3))
    return Suite("s", items, "0" * 64)
