"""Replies of a hub: listings, heads and bodies that lie, end early, never end, or lead elsewhere. Read by a pull.

An input is a script of replies (see fuzz/scripted_hub.py). A user pulls the model that the script offers and lists what
is here. Then an honest hub stands in the same place, and the same command must bring the right model: nothing that the
first one sent was left in the cache or the store as good.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import logging
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from gguf_files import write_mmproj, write_model

from fuzz.damage import TEXTS, damage_json_text, damage_text, damage_value, json_text, walk
from fuzz.outcome import fault_of_line
from fuzz.scripted_hub import ScriptedHub, part

SUFFIXES = (".replies.json",)
SHORT = 8
MEMORY_MIB = 400
REPO, REVISION = "tiny/toy-GGUF", "0123456789abcdef0123456789abcdef01234567"
MODEL, MMPROJ = "toy-Q4_K_M.gguf", "mmproj-toy-F16.gguf"
PARTS = ("toy-Q8_0-00001-of-00002.gguf", "toy-Q8_0-00002-of-00002.gguf")
PATIENCE_S = 2.0  # of a pull from the script's hub, for each answer

NAMES = ("../../../../victim.gguf", "/etc/passwd", "..", ".", "", "a//b.gguf", "a/../b.gguf", "a\\b.gguf", "C:x.gguf",
         "x" * 250 + ".gguf", "x" * 300 + ".gguf", "a/" * 40 + "b.gguf", "a/" * 600 + "b.gguf", "\x1b]0;x\x07.gguf",
         "\u202egguf.mmproj", "toy-00001-of-00000.gguf", "toy-00001-of-99999.gguf", "toy-00002-of-00001.gguf",
         "mmproj.gguf", "mmproj-00001-of-00002.gguf", "toy-Q4_K_M.gguf/x.gguf", "config.json", "model.safetensors",
         "toy-Q4_K_M.gguf.incomplete", ".gguf", "-.gguf", "con.gguf", "toy-q4_k_m.GGUF", "imatrix.gguf", "README.md",
         "toy-\u0660\u0660\u0660\u0660\u0661-of-00001.gguf", "%2e%2e/%2e%2e/x.gguf", "a?b#c.gguf",
         "a b.gguf")  # fmt: skip
PLACES = ("@URL/api/models/tiny/toy-GGUF", "@CDN/loop", "/loop", "@URL/loop", "file:///etc/passwd", "//", "http://[",
          "http://127.0.0.1:1/", "http://localhost:99999/", "ftp://localhost/x", "http://\u2028/", "?", "", "#",
          "https://localhost:1/", "data:text/plain,x", "javascript:1", "http://user:pass@localhost:1/",
          "http:" + "/" * 9000)  # fmt: skip
HEADERS = (
    ["Content-Encoding", "gzip"], ["Content-Encoding", "deflate"], ["Content-Encoding", "br"],
    ["Content-Encoding", "zstd"], ["Content-Encoding", "gzip, gzip, gzip"], ["Content-Encoding", "\u202e"],
    ["Transfer-Encoding", "chunked"], ["Transfer-Encoding", "gzip, chunked"], ["Transfer-Encoding", "x"],
    ["Content-Length", "-1"], ["Content-Length", "99999999999999999999"], ["Content-Length", "1_0"],
    ["Content-Length", "0"], ["Content-Length", "@LEN, @LEN"], ["Content-Length", "9" * 5000],
    ["Content-Range", "@REST"], ["Content-Range", "bytes 0-1/2"], ["Content-Range", "bytes */5"],
    ["Content-Range", "bytes " + "9" * 5000 + "-1/2"], ["Content-Type", "text/html"],
    ["Content-Type", "text/html; charset=\x1b"], ["Content-Type", "application/json; charset=utf-7"],
    ["ETag", '"../../x"'], ["ETag", 'W/"' + "a" * 64 + '"'], ["ETag", '"' + "b" * 40 + '"'], ["ETag", '""'],
    ["ETag", '"' + "c" * 300 + '"'], ["ETag", '"x.incomplete"'], ["X-Linked-Etag", '"' + "d" * 64 + '"'],
    ["X-Linked-Etag", '"' + "e" * 40 + '"'], ["X-Linked-Etag", '"x.incomplete"'], ["X-Linked-Etag", '".."'],
    ["X-Linked-Size", "-5"], ["X-Linked-Size", "1e3"], ["X-Linked-Size", "9" * 5000], ["X-Linked-Size", "0"],
    ["X-Repo-Commit", "main"], ["X-Repo-Commit", "../../x"], ["X-Repo-Commit", "f" * 40],
    ["X-Xet-Hash", "a" * 64], ["X-Xet-Refresh-Route", "@URL/xet"], ["Link", '<@URL/xet>; rel="xet-auth"'],
    ["X-Error-Code", "GatedRepo"], ["X-Error-Code", "RepoNotFound"], ["X-Error-Code", "EntryNotFound"],
    ["X-Error-Message", "\x1b[2Jcome here"], ["X-HF-Warning", "t; \x1b[31mred"], ["X-HF-Warning", "a; " + "y" * 700],
    ["Retry-After", "99999"], ["RateLimit", '"api";r=0;t=99999'], ["Set-Cookie", "a=b; Domain=\x1b"],
    ["X", "y" * 60000],
)  # fmt: skip
LINES = ("HTTP/1.1 206 Partial Content", "HTTP/1.1 204 No Content", "HTTP/1.1 301 Moved", "HTTP/1.1 302 Found",
         "HTTP/1.1 304 Not Modified", "HTTP/1.1 307 T", "HTTP/1.1 400 Bad", "HTTP/1.1 401 U", "HTTP/1.1 403 F",
         "HTTP/1.1 404 N", "HTTP/1.1 410 G", "HTTP/1.1 416 R", "HTTP/1.1 429 Too Many", "HTTP/1.1 500 E",
         "HTTP/1.1 503 S", "HTTP/1.1 999 X", "HTTP/1.1 0 X", "HTTP/1.0 200 OK", "HTTP/9.9 200 OK", "HTTP/1.1 abc",
         "", "\x1b[31m", "ICY 200 OK", "HTTP/1.1 200 \x1b[2J", "HTTP/1.1 100 Continue")  # fmt: skip


@cache
def contents() -> dict[str, bytes]:
    folder = Path(tempfile.mkdtemp())
    found = {
        "model": write_model(folder / "model.gguf").read_bytes(),
        "mmproj": write_mmproj(folder / "mmproj.gguf").read_bytes(),
        "config": b'{"model_type": "mystery"}',
        "weights": b"\x02" + bytes(7) + b"{}",
        "page": b"<!doctype html><html><body>log in</body></html>",
    }
    shutil.rmtree(folder)
    return found


# --- scripts of honest hubs -------------------------------------------------------------------------------------------


def seeds(folder: Path) -> list[Path]:
    pair = {MODEL: "model", MMPROJ: "mmproj"}
    scripts = {
        "large": script(pair),
        "small": script(pair, large=False),
        "parts": script({PARTS[0]: "model", PARTS[1]: "model", f"f16/{MMPROJ}": "mmproj", "README.md": "page"}),
        "checkpoint": script({"config.json": "config", "model.safetensors": "weights", "a.txt": "page"}, large=False),
        "untold": script(pair, told=False),
        "broken-line": broken_line(),
    }
    for name, found in scripts.items():
        (folder / f"{name}.replies.json").write_text(json.dumps(found))
    return [folder / f"{name}.replies.json" for name in scripts]


def script(files: dict[str, str], *, large: bool = True, told: bool = True) -> dict[str, Any]:
    """files: name -> which of `contents`. large: kept apart from git; told: with sizes and sums."""
    siblings, replies = [], []
    for name, key in files.items():
        data = contents()[key]
        about: dict[str, Any] = {"rfilename": name}
        if told:
            lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 134} if large else None
            about |= {"size": len(data), "blobId": git_sum(data)} | ({"lfs": lfs} if lfs else {})
        siblings.append(about)
        commit = ["X-Repo-Commit", REVISION]
        body = {"file": key, "ranged": True}
        if large:
            linked = [["X-Linked-Etag", f'"{sha256(data)}"'], ["X-Linked-Size", str(len(data))]]
            place = ["Location", f"@CDN/cdn/{name}"]
            head = {"line": "HTTP/1.1 302 Found", "headers": [commit, *linked, place, ["Content-Length", "0"]]}
            replies += [{"for": f"{method} /{REPO}/resolve/{REVISION}/{name}", **head} for method in ("HEAD", "GET")]
            replies.append({"for": f"GET /cdn/{name}", "headers": [["Content-Length", "@LEN"]], "body": body})
        else:
            headers = [commit, ["ETag", f'"{git_sum(data)}"'], ["Content-Length", "@LEN"]]
            place = f"/{REPO}/resolve/{REVISION}/{name}"
            replies += [{"for": f"{m} {place}", "headers": headers, "body": body} for m in ("HEAD", "GET")]
    about = {"id": REPO, "sha": REVISION, "siblings": siblings, "lastModified": "2026-01-01T00:00:00.000Z"}
    headers = [["Content-Type", "application/json"], ["Content-Length", "@LEN"]]
    return {"replies": [{"for": f"GET /api/models/{REPO}", "headers": headers, "body": {"json": about}}, *replies]}


def broken_line() -> dict[str, Any]:
    """The line breaks once within the model."""
    made = script({MODEL: "model", MMPROJ: "mmproj"})
    first = next(reply for reply in made["replies"] if reply["for"] == f"GET /cdn/{MODEL}")
    made["replies"].insert(1, {**copy.deepcopy(first), "times": 1, "body": {"file": "model", "cut": 300}})
    return made


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sum(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


# --- mutants ----------------------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> bytes:
    made = json.loads(data)
    replies = made["replies"]
    if not replies:
        return data
    listings = [found for found in replies if "json" in part(found, "body", dict)]
    reply = rng.choice(listings if listings and rng.random() < 0.3 else replies)
    if rng.random() < 0.15:  # that once; then as it was
        once = copy.deepcopy(reply)
        once["times"] = rng.choice((1, 1, 2, 4))
        replies.insert(replies.index(reply), once)
        reply = once
    ways = (change_listing, change_names, change_text) if reply in listings and rng.random() < 0.7 else WAYS
    rng.choice(ways)(reply, replies, rng)
    return json_text(made, rng)


def change_listing(reply: Any, replies: list[Any], rng: random.Random) -> None:
    reply["body"]["json"] = damage_value(reply["body"]["json"], rng)


def change_names(reply: Any, replies: list[Any], rng: random.Random) -> None:
    """Of a file, everywhere or in the listing alone; or one more of an odd name."""
    entries = [entry for entry in part(reply["body"]["json"], "siblings", list) if isinstance(entry, dict)]
    if not entries:
        return
    entry, new = rng.choice(entries), rng.choice(NAMES)
    old = str(entry.get("rfilename"))
    if rng.random() < 0.3:
        reply["body"]["json"]["siblings"].append({**copy.deepcopy(entry), "rfilename": new})
        return
    entry["rfilename"] = new
    for other in replies if rng.random() < 0.5 else ():
        other["for"] = str(other.get("for")).replace(old, new)


def change_text(reply: Any, replies: list[Any], rng: random.Random) -> None:
    text = json.dumps(reply["body"]["json"]).encode()
    reply["body"] = {"base64": base64.b64encode(damage_json_text(text, rng)).decode()}


def change_header(reply: Any, replies: list[Any], rng: random.Random) -> None:
    headers = reply.setdefault("headers", [])
    match rng.randrange(6):
        case 0 if headers:
            headers.pop(rng.randrange(len(headers)))
        case 1 if headers:
            pair = rng.choice(headers)
            pair[1] = rng.choice((damage_text(pair[1], rng), rng.choice(TEXTS)))[:9000]
        case 2 if headers:  # what another answer has there
            pair = rng.choice(headers)
            pair[1] = rng.choice([p[1] for r in replies for p in part(r, "headers", list) if p[0] == pair[0]])
        case 3:
            headers.append(["Location", rng.choice(PLACES)])
        case _:
            name, value = rng.choice(HEADERS)
            headers[:] = [p for p in headers if p[0] != name or rng.random() < 0.2] + [[name, value]]


def change_line(reply: Any, replies: list[Any], rng: random.Random) -> None:
    reply["line"] = rng.choice(LINES)
    if reply["line"].split()[1:2] in (["301"], ["302"], ["307"]):
        reply.setdefault("headers", []).append(["Location", rng.choice(PLACES)])


def change_body(reply: Any, replies: list[Any], rng: random.Random) -> None:
    body = part(reply, "body", dict)
    match rng.randrange(10):
        case 0:
            body["cut"] = rng.choice((0, 1, 100, 300))
        case 1:
            body["more"] = rng.choice((1, 100, 50000))
        case 2:
            body |= {"file": body.get("file", "model"), "flip": rng.choice((0, 5, 30, 200, 700))}
        case 3:
            body = {"file": rng.choice(("model", "mmproj", "config", "page")), "ranged": rng.random() < 0.5}
        case 4:
            text = rng.choice(("\0", " ", "[", '{"a":', "x" * 99, '{"error":"'))
            body |= {"endless": text, "chunked": rng.random() < 0.5}
        case 5 | 6:
            body |= {"coding": rng.choice(("gzip", "bomb"))}
            if rng.random() < 0.9:
                reply.setdefault("headers", []).append(["Content-Encoding", "gzip"])
        case 7:
            body["chunked"] = True
            kept = [p for p in part(reply, "headers", list) if p[0] != "Content-Length" or rng.random() < 0.2]
            reply["headers"] = [*kept, ["Transfer-Encoding", "chunked"]]
        case 8:
            body["ranged"] = not body.get("ranged")
        case _:
            body = {"json": rng.choice(([], [1], {"error": ["\x1b[2J", 5]}, {"errors": 5}, {"errors": [5]}, "x", None))}
    if body.keys() & {"endless", "coding"} and rng.random() < 0.7:
        reply["headers"] = [p for p in part(reply, "headers", list) if p[0] != "Content-Length"]
    reply["body"] = body


def change_order(reply: Any, replies: list[Any], rng: random.Random) -> None:
    other = rng.choice(replies)
    match rng.randrange(3):
        case 0:
            replies.remove(reply)
        case 1:
            reply["for"], other["for"] = other.get("for"), reply.get("for")
        case _:
            reply["body"] = copy.deepcopy(part(other, "body", dict))


WAYS: tuple[Callable[[Any, list[Any], random.Random], None], ...] = (
    change_header, change_header, change_header, change_line, change_body, change_body, change_order,
)  # fmt: skip


# --- what a user does -------------------------------------------------------------------------------------------------


def read(path: Path) -> None:
    from aim_local import store
    from aim_local.errors import AimError

    told = json.loads(path.read_bytes())
    refused = None
    with world() as root:
        try:
            pull(told, PATIENCE_S)
        except AimError as e:
            refused = e
        check_cache(root, announced(told))
        listed = store.list_models()
        assert all(entry.problem is None for entry in listed), "a broken model came into the store"
        assert not any(fault_of_line(entry.name) for entry in listed)
        try:
            paths = pull(script({MODEL: "model", MMPROJ: "mmproj"}), 15.0)
        except AimError as e:
            raise AssertionError(f"an honest hub is refused afterwards: {e}") from e
        assert paths.model.read_bytes() == contents()["model"], "an honest hub's model is another afterwards"
        assert paths.mmproj.read_bytes() == contents()["mmproj"]
    if refused:
        raise refused


def pull(told: object, patience_s: float) -> Any:
    """The paths of the model; None where it was a checkpoint of an unknown kind, which another target converts."""
    import huggingface_hub
    from huggingface_hub import constants

    from aim_local import hub, store
    from aim_local.convert import ConvertError

    constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = patience_s
    server().play(told)
    shown = list[str]()
    try:
        plan = hub.plan_pull(REPO)
        shown += [plan.name, plan.listing.repo, plan.choice.quant, *(file.name for file in plan.choice.files)]
        pulled = hub.fetch(plan, lambda *_: None, lambda *_: None)
    except ConvertError:
        return None
    finally:
        huggingface_hub.get_session().cookies.clear()
        assert not any(fault_of_line(line) for line in shown if line), shown
    again = hub.find_here(REPO)
    assert again is None or again.name == pulled.name
    return store.resolve(pulled.name)


@cache
def server() -> ScriptedHub:
    """Where the hub's library is told to ask; it lives as long as this process."""
    from huggingface_hub import constants

    import aim_local.hub.download

    found = ScriptedHub(contents())
    os.environ.update({"HF_ENDPOINT": found.url, "NO_PROXY": "127.0.0.1,localhost"})
    template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
    settings = {"ENDPOINT": found.url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
    for name, value in settings.items():
        setattr(constants, name, value)
    aim_local.hub.download.PAUSE = 0.0
    return found


@contextmanager
def world() -> Iterator[Path]:
    """A user's folders, with files that are nobody's business; what is said on the terminal is looked at."""
    from huggingface_hub import constants

    root, before = Path(tempfile.mkdtemp()), os.environ["AIM_LOCAL_HOME"]
    os.environ["AIM_LOCAL_HOME"], constants.HF_HUB_CACHE = str(root / "home"), str(root / "hf" / "hub")
    mine = [root / "victim.gguf", root / "hf" / "victim.gguf", root / "hf" / "hub" / "models--a--b" / "blobs" / "x"]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"mine")
    said = io.StringIO()
    handlers = [logging.StreamHandler(said)]
    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, handlers
    try:
        yield root
        allowed = re.compile(r"home/|hf/hub/(models--(?!a--b/)|\.locks/|CACHEDIR\.TAG)")
        found = [p for p in root.rglob("*") if not p.is_dir() and not allowed.match(str(p.relative_to(root)))]
        assert sorted(found) == sorted(mine), "something was written elsewhere"
        assert all(file.read_bytes() == b"mine" for file in mine)
        assert not any(fault_of_line(line) for line in said.getvalue().split("\n") if line), said.getvalue()[:500]
    finally:
        logger.handlers = handlers
        os.environ["AIM_LOCAL_HOME"] = before
        shutil.rmtree(root, ignore_errors=True)


def announced(told: Any) -> dict[str, list[dict[str, Any]]]:
    """By name, what listings say of a file."""
    found = dict[str, list[dict[str, Any]]]()
    for holder, key in walk(told):
        entry = holder[key]
        if isinstance(entry, dict) and isinstance(entry.get("rfilename"), str):
            found.setdefault(entry["rfilename"], []).append(entry)
    return found


def check_cache(root: Path, told: dict[str, list[dict[str, Any]]]) -> None:
    """What is there as good is what was announced: blobs by their names, entries of snapshots by the listing."""
    for repo in (root / "hf" / "hub").glob("models--*"):
        if repo.name == "models--a--b":
            continue
        for blob in (repo / "blobs").glob("*"):
            data = blob.read_bytes()
            wanted = {40: git_sum(data), 64: sha256(data)}.get(len(blob.name), blob.name)
            assert blob.name.endswith(".incomplete") or blob.name == wanted, "a blob is not what its name says"
        for entry in (repo / "snapshots").glob("*/**/*"):
            if entry.is_dir():
                continue
            assert entry.resolve().is_relative_to(repo.resolve()), "an entry leads out of the cache"
            data, name = entry.read_bytes(), "/".join(entry.relative_to(repo / "snapshots").parts[1:])
            known = told.get(name)
            assert not known or any(is_of(data, about) for about in known), "an entry is not what was announced"


def is_of(data: bytes, about: dict[str, Any]) -> bool:
    large = part(about, "lfs", dict).get("sha256")
    if large:
        return bool(large == sha256(data))
    size = about.get("size")
    is_told = isinstance(size, int) and size >= 0  # as aim_local/hub/answers.py has it
    return about.get("blobId") in (None, "", git_sum(data)) and (not is_told or size == len(data))
