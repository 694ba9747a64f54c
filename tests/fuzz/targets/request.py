"""Bodies of chat requests, as the service reads them: through the whole application, in this process.

@CLIP, @PNG and @JPEG in a body are base64 of a clip and of pictures. A refusal must be OpenAI's error object with one
clear line; an answer must be of the form that was asked for, with events that are whole and numbers that are finite.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import random
from functools import cache
from pathlib import Path
from typing import Any

from fuzz.damage import damage_json, damage_value, json_text, walk

SUFFIXES = (".request.json",)
SHORT = 40
MEMORY_MIB = 400
CLIP = Path(__file__).resolve().parents[3] / "aim_local" / "data" / "clips" / "time.mp4"
VIDEO, PICTURE = "data:video/mp4;base64,@CLIP", "data:image/png;base64,@PNG"
PATIENCE_S = 15.0
USER = {"role": "user", "content": "Which way does it move?"}
SCHEMA = {"type": "object", "properties": {"way": {"enum": ["left", "right"]}}, "required": ["way"]}


def shown(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"model": "default", "messages": [USER], "max_tokens": 4, "user": "u", "metadata": {"a": "b"}},
    "drawn": {
        "messages": [{"role": "system", "content": "Be brief."}, USER], "temperature": 0.7, "top_p": 0.9, "top_k": 20,
        "min_p": 0.05, "seed": 5, "frequency_penalty": 0.5, "presence_penalty": -0.5, "stop": ["\n", "x"],
        "max_completion_tokens": 5, "logprobs": True, "top_logprobs": 3, "n": 1,
    },
    "picture": {
        "messages": [shown({"type": "image_url", "image_url": {"url": PICTURE, "detail": "auto"}})], "max_tokens": 3,
        "visual_tokens": "paper", "cache_prompt": False, "return_looks": True,
    },
    "clip": {
        "messages": [shown({"type": "video_url", "video_url": {"url": VIDEO}, "start": 0.1, "end": 0.9})], "frames": 4,
        "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}, "timings_per_token": True,
        "return_progress": True, "mm_processor_kwargs": {"num_frames": 4},
    },
    "frames": {
        "messages": [shown({"type": "video", "video": ["data:image/jpeg;base64,@JPEG", PICTURE], "fps": 2})],
        "media_io_kwargs": {"video": {"num_frames": 2}}, "max_tokens": 3,
    },
    "input": {
        "messages": [shown({"type": "input_video", "input_video": {"data": "@CLIP", "format": "mp4"}})], "fps": 2.0,
        "n_predict": 3, "id_slot": -1, "repeat_penalty": 1.0,
    },
    "schema": {
        "messages": [USER, {"role": "assistant", "content": "left"}, USER], "max_tokens": 40,
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA, "strict": True}},
    },
    "object": {"messages": [USER], "response_format": {"type": "json_object"}, "max_tokens": 6, "stream": True},
    "grammar": {"messages": [USER], "grammar": 'root ::= "left" | "right"', "max_tokens": 6},
}  # fmt: skip


def seeds(folder: Path) -> list[Path]:
    paths = []
    for name, request in REQUESTS.items():
        paths.append(folder / f"{name}.request.json")
        paths[-1].write_text(json.dumps(request))
    return paths


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One damage, or a field of another request put in: fields that do not go together."""
    if rng.random() < 0.2:
        try:
            value = json.loads(data)
            places = [holder for holder, _ in walk(value) if isinstance(holder, dict)]
            name, wanted = rng.choice([item for request in REQUESTS.values() for item in request.items()])
            (rng.choice(places) if places and rng.random() < 0.3 else value)[name] = wanted
            return json_text(damage_value(value, rng) if rng.random() < 0.3 else value, rng)
        except (ValueError, TypeError, RecursionError):
            pass
    return damage_json(data, rng)


def read(path: Path) -> None:
    from aim_local.errors import AimError

    body = path.read_bytes()
    for name, content in media().items():
        body = body.replace(name, content, 4)
    status, kind, content = asyncio.run(post(body))
    if status == 200:
        check_answer(kind, content, body)
        return
    assert 400 <= status < 500 or status in (503, 504), f"{status}: {content[:500]!r}"
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    raise AimError(error["message"])


async def post(body: bytes) -> tuple[int, str, bytes]:
    import httpx

    transport = httpx.ASGITransport(service())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=PATIENCE_S) as client:
        answer = await client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    return answer.status_code, answer.headers.get("content-type", ""), answer.content


@cache
def service() -> Any:
    """The application over the bundled model; it lives as long as this process."""
    import threading

    from aim_local import LoadConfig, VisionLLM
    from aim_local.server.http.app import make_app
    from aim_local.server.http.guard import Guard
    from aim_local.server.limits import Limits
    from aim_local.server.media.sources import Sources
    from aim_local.server.media.uploads import Uploads
    from aim_local.server.service import Service

    limits = Limits(n_answer=48, answer_s=PATIENCE_S, file_bytes=1 << 20, n_pixels=1_000_000, n_frames=32)
    ready, uploads = threading.Event(), Uploads(limits)
    uploads.__enter__()

    def load() -> VisionLLM:
        return VisionLLM.load(config=LoadConfig(cache_media=False, n_threads=1))

    made = Service(load, Sources(limits, uploads), limits, None, on_ready=lambda _: ready.set())
    made.open()
    assert ready.wait(60)
    return make_app(made, uploads, Guard("127.0.0.1"), lambda _: None)


@cache
def media() -> dict[bytes, bytes]:
    from PIL import Image

    def picture(kind: str) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (24, 24), "red").save(file, kind)
        return file.getvalue()

    files = {b"@CLIP": CLIP.read_bytes(), b"@PNG": picture("PNG"), b"@JPEG": picture("JPEG")}
    return {name: base64.b64encode(content) for name, content in files.items()}


# --- answers ----------------------------------------------------------------------------------------------------------


def check_answer(kind: str, content: bytes, body: bytes) -> None:
    asked = json.loads(body)
    assert bool(asked.get("stream")) == kind.startswith("text/event-stream"), kind
    chunks = events(content) if asked.get("stream") else [json.loads(content, parse_constant=no_number)]
    finished = [c for chunk in chunks for c in chunk["choices"] if c.get("finish_reason")]
    assert len(finished) == 1, "one answer, finished once"
    text = "".join((c.get("message") or c["delta"]).get("content") or "" for chunk in chunks for c in chunk["choices"])
    usage = next((chunk["usage"] for chunk in chunks[::-1] if chunk.get("usage")), None)
    if usage:
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        limits = [asked.get(key) for key in ("max_tokens", "max_completion_tokens", "n_predict")]
        assert usage["completion_tokens"] <= min([n for n in limits if n and n > 0], default=48)
    for holder, key in walk(chunks):
        value = holder[key]
        assert not isinstance(value, float) or math.isfinite(value), key
    wanted = (asked.get("response_format") or {}).get("type")
    if wanted in ("json_object", "json_schema") and finished[0]["finish_reason"] == "stop" and not asked.get("stop"):
        json.loads(text)


def events(content: bytes) -> list[dict[str, Any]]:
    """Of a stream that ends as OpenAI's do. Raises AimError for one that failed after its begin."""
    from aim_local.errors import AimError

    blocks = content.decode().split("\n\n")
    assert blocks[-1] == "", "the last event is whole"
    data = [block for block in blocks[:-1] if not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in data)
    if data[-1].startswith('data: {"error":'):  # what went wrong once the stream had begun: the answer is not done
        raise AimError(json.loads(data[-1].removeprefix("data: "))["error"]["message"])
    assert data[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: "), parse_constant=no_number) for block in data[:-1]]


def no_number(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")
