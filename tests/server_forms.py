"""How clients send clips, pictures and options, one row each: what is sent, what happens, the body that a test sends.

docs/server.md has the table; `python tests/server_forms.py` prints it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a body is made of. clip: a file in the service's folder; jpegs, pngs: its 8 sampled frames as pictures."""

    clip: Path
    file_id: str
    http: str
    jpegs: tuple[bytes, ...]
    pngs: tuple[bytes, ...]

    @property
    def clip64(self) -> str:
        return base64.b64encode(self.clip.read_bytes()).decode()

    @property
    def clip_url(self) -> str:
        return f"data:video/mp4;base64,{self.clip64}"

    @property
    def png_urls(self) -> list[str]:
        return [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in self.pngs]


@dataclass(frozen=True)
class Form:
    """group: whose form it is. sent: as the table shows it. happens: what comes of it.

    parts: of the message, beside the question. more: fields of the request beside the messages. n_full: visual tokens
    before reduction (of a clip 16 a frame, and one). status, param: of a refusal. same: the answer is that of the file.
    """

    group: str
    sent: str
    happens: str
    parts: Callable[[Setting], list[Json]] = lambda it: [clip(it.clip_url)]
    more: Json = field(default_factory=dict)
    n_full: int = 129
    same: bool = False
    status: int = 200
    param: str = ""


def clip(url: Any, **more: Any) -> Json:
    return {"type": "video_url", "video_url": {"url": url}, **more}


def input_video(**fields: Any) -> Json:
    return {"type": "input_video", "input_video": fields}


_OURS, _VLLM, _LLAMA, _OPENAI = "all", "vLLM", "llama-server", "OpenAI"
_PART = "messages[0].content[0]"

FORMS = (
    # --- a clip as a file ---
    Form(_VLLM, '`{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,..."}}`', "the clip", same=True),
    Form(_OURS, '`{"type": "video_url", "video_url": "data:..."}`', "the clip", same=True,
         parts=lambda it: [{"type": "video_url", "video_url": it.clip_url}]),
    Form(_LLAMA, '`"video_url": {"url": "BASE64"}`, no scheme', "the clip", lambda it: [clip(it.clip64)], same=True),
    Form(_LLAMA, '`{"type": "input_video", "input_video": {"data": "BASE64", "format": "mp4"}}`', "the clip",
         lambda it: [input_video(data=it.clip64, format="mp4")], same=True),
    Form(_LLAMA, '`"input_video": {"data": "data:video/mp4;base64,..."}`', "the clip",
         lambda it: [input_video(data=it.clip_url)], same=True),
    Form(_LLAMA, '`"input_video": {"url": "data:..."}`', "the clip",
         lambda it: [input_video(url=it.clip_url)], same=True),
    Form(_OURS, '`"video_url": {"url": "file-..."}`, an uploaded file', "the clip",
         lambda it: [clip(it.file_id)], same=True),
    Form(_OURS, '`"input_video": {"file_id": "file-..."}`', "the clip",
         lambda it: [input_video(file_id=it.file_id)], same=True),
    Form(_OPENAI, '`{"type": "file", "file": {"file_id": "file-..."}}`', "the clip",
         lambda it: [{"type": "file", "file": {"file_id": it.file_id}}], same=True),
    Form(_OPENAI, '`{"type": "file", "file": {"file_data": "data:...", "filename": "clip.mp4"}}`', "the clip",
         lambda it: [{"type": "file", "file": {"file_data": it.clip_url, "filename": "clip.mp4"}}], same=True),
    Form(_VLLM, '`"url": "file:///folder/clip.mp4"`, with `--media-path /folder`', "the clip",
         lambda it: [clip(it.clip.as_uri())], same=True),
    Form(_VLLM, '`"url": "file:///etc/passwd"`, outside the folder', "403",
         lambda it: [clip("file:///etc/passwd")], status=403, param=f"{_PART}.video_url.url"),
    Form(_VLLM, '`"url": "https://..."`, without `--allow-http`', "403, with the option's name",
         lambda it: [clip("https://example.org/clip.mp4")], status=403, param=f"{_PART}.video_url.url"),
    # --- pictures ---
    Form(_OPENAI, '`{"type": "image_url", "image_url": {"url": "data:image/png;base64,...", "detail": "high"}}`',
         "the picture; `detail` is left to `visual_tokens`",
         lambda it: [{"type": "image_url", "image_url": {"url": it.png_urls[0], "detail": "high"}}], n_full=136),
    Form(_OURS, '`{"type": "image_url", "image_url": "data:..."}`', "the picture",
         lambda it: [{"type": "image_url", "image_url": it.png_urls[0]}], n_full=136),
    Form(_OPENAI, '`{"type": "input_image", "image_url": "data:..."}`', "the picture",
         lambda it: [{"type": "input_image", "image_url": it.png_urls[0]}], n_full=136),
    Form(_OPENAI, "several `image_url` parts", "so many pictures, in their order",
         lambda it: [{"type": "image_url", "image_url": {"url": url}} for url in it.png_urls[:3]], n_full=3 * 136),
    # --- pictures as one clip ---
    Form(_OURS, '`{"type": "video", "video": ["data:image/png;...", ...]}`', "one clip of these frames, all of them",
         lambda it: [{"type": "video", "video": it.png_urls}], same=True),
    Form(_OURS, '`"input_video": {"frames": ["data:...", ...], "fps": 2}`', "the same, with times",
         lambda it: [input_video(frames=it.png_urls, fps=2)]),
    Form(_VLLM, '`"url": "data:video/jpeg;base64,AAA,BBB"`', "one clip of these frames",
         lambda it: [clip("data:video/jpeg;base64," + ",".join(base64.b64encode(j).decode() for j in it.jpegs))]),
    # --- which frames ---
    Form(_OURS, "`frames: 4` beside `messages`", "4 frames, evenly spread", more={"frames": 4}, n_full=65),
    Form(_OURS, "`frames: 4` in the part", "4 frames; the part wins over the request",
         lambda it: [clip(it.clip_url, frames=4)], more={"frames": 2}, n_full=65),
    Form(_OURS, "`fps: 2`", "2 frames a second, up to the service's limit of frames", more={"fps": 2}, n_full=65),
    Form(_OURS, "`start: 0, end: 0.3`", "the model's number of frames, from that range",
         more={"start": 0, "end": 0.3, "frames": 2}, n_full=33),
    Form(_VLLM, '`media_io_kwargs: {"video": {"num_frames": 4}}`', "4 frames",
         more={"media_io_kwargs": {"video": {"num_frames": 4}}}, n_full=65),
    Form(_VLLM, '`media_io_kwargs: {"video": {"num_frames": -1}}`', "all frames, up to the service's limit",
         more={"media_io_kwargs": {"video": {"num_frames": -1}}}, n_full=257),
    Form(_VLLM, "`mm_processor_kwargs: {\"fps\": 2}`", "2 frames a second",
         more={"mm_processor_kwargs": {"fps": 2}}, n_full=65),
    Form(_VLLM, '`mm_processor_kwargs: {"max_pixels": 200704}`', "400: set when the model is loaded",
         more={"mm_processor_kwargs": {"max_pixels": 200704}}, status=400, param="mm_processor_kwargs.max_pixels"),
    Form(_OURS, "`frames: 4` and `media_io_kwargs.video.num_frames: 8`", "400: they differ",
         more={"frames": 4, "media_io_kwargs": {"video": {"num_frames": 8}}}, status=400, param="frames"),
    Form(_OURS, "`frames: 100000`", "400, with the limit", more={"frames": 100_000}, status=400, param="frames"),
    # --- visual tokens ---
    Form(_OURS, '`visual_tokens: "paper:keep=0.5"`', "half of them after token merging, pruned layer by layer",
         more={"visual_tokens": "paper:keep=0.5"}),
    Form(_OURS, '`visual_tokens: "half"`', "400, with the names there are", more={"visual_tokens": "half"},
         status=400, param="visual_tokens"),
    # --- the answer ---
    Form(_LLAMA, "`n_predict: 1`", "as `max_tokens`; -1 is the service's limit", more={"n_predict": 1}),
    Form(_OPENAI, "`max_tokens: 100000`", "400, with the limit", more={"max_tokens": 100_000},
         status=400, param="max_tokens"),
    Form(_LLAMA, "`top_k: 5, min_p: 0.1`", "as there", more={"top_k": 5, "min_p": 0.1, "temperature": 1, "seed": 3}),
    Form(_LLAMA, '`grammar: "root ::= \\"yes\\" \\| \\"no\\""`', "the answer is what the grammar allows",
         more={"grammar": 'root ::= "yes" | "no"'}),
    Form(_LLAMA, "`json_schema: {...}`", "the answer follows the schema", more={"json_schema": {"enum": ["a", "b"]}}),
    Form(_LLAMA, '`response_format: {"type": "json_object", "schema": {...}}`', "the answer follows the schema",
         more={"response_format": {"type": "json_object", "schema": {"enum": ["a", "b"]}}}),
    Form(_LLAMA, "`cache_prompt: false`", "nothing computed for earlier requests is used",
         more={"cache_prompt": False}, same=True),
    Form(_OPENAI, "`n: 2`, `tools`, `logit_bias`, `audio`", "400 by the field's name", more={"n": 2}, status=400,
         param="n"),
    Form(_OPENAI, "`n: 1`, `tools: []`, `logit_bias: {}`, `user`, `metadata`, `store`, `service_tier`",
         "accepted, they ask for nothing",
         more={"n": 1, "tools": [], "logit_bias": {}, "user": "me", "metadata": {}, "store": False,
               "service_tier": "auto"}),
    Form(_OURS, "a field that is not known", "400 by the field's name", more={"temperatur": 1}, status=400,
         param="temperatur"),
    Form(_OPENAI, '`{"type": "input_audio", ...}`', "400: no such part",
         lambda it: [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}], status=400,
         param=f"{_PART}.type"),
)  # fmt: skip


def table() -> str:
    """Markdown."""
    rows = "".join(f"| {form.group} | {form.sent} | {form.happens} |\n" for form in FORMS)
    return f"| who sends it | what | what happens |\n|---|---|---|\n{rows}"


if __name__ == "__main__":
    print(table(), end="")
