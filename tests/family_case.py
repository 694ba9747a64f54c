"""A family's checkpoint in both worlds, transformers and the runtime, and prompts that go through both.

    case = open_case("internvl3", tmp_path_factory)
    check(case, [message("user", ("image",), "Describe it.")], [picture(100, 160)])

Pictures are PIL's, clips are family_checkpoints.Clip and are read by the runtime from a lossless file with their times.
transformers' processors give the prompt's tokens and the pixels; where those of a video are resized by torch, which
rounds differently, the model gets the runtime's after they were compared.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from family_checkpoints import Clip, Loaded, load_family, write_family
from limits import LIMITS
from numpy.typing import NDArray
from PIL import Image as Picture
from shared_folder import made_once
from upstream_conversions import write_models

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.convert import ConvertConfig, convert
from aim_local.engine.contexts import Context, open_context
from aim_local.engine.encode import encode_media
from aim_local.engine.plan import Plan, context_size, plan_prompt
from aim_local.engine.prefill import Filled, prefill
from aim_local.engine.read import Reading, read_media
from aim_local.engine.watch import Watch
from aim_local.media import Image, Video
from aim_local.models.pieces import TextPiece, VisualBlock
from aim_local.models.prompt import Message

Media = Picture.Image | Clip
Messages = Sequence[Mapping[str, Any]]
OFF = VisualTokenConfig.off()
EXACT = {"vision_precision": "exact", "prefill_precision": "exact", "reuse_frames": "equal", "cache_media": False}
F32 = {"type_k": "f32", "type_v": "f32", "flash_attn": False, "n_threads": 1, **EXACT}
N_ANSWER = 32
VIDEO_LEVELS = 2.001  # of 255, between PIL's resizing and torch's
HALVES = ("multi_modal_projector.mm_input_projection_weight",)  # that llama.cpp's converter rounds in any case
# more of a checkpoint's vision tower: llama.cpp's converter counts a projector's layers among those of the tower
VISION = {"internvl3": {"num_hidden_layers": 4}, "internvl3_5": {"num_hidden_layers": 4}}


TOGETHER = ("internvl3", "internvl3_5", "smolvlm", "gemma3")  # llama.cpp's converter writes them in one process


@dataclass(frozen=True)
class Case:
    family: str
    folder: Path  # what was written for the tests
    loaded: Loaded
    llm: VisionLLM

    @property
    def media_ids(self) -> set[int]:
        """Ids that stand for visual tokens in transformers' prompts."""
        config = self.loaded.model.config
        names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
        return {getattr(config, name) for name in names if getattr(config, name, None) is not None}

    @property
    def end_ids(self) -> list[int]:
        """What ends an answer, for transformers."""
        found = self.loaded.model.generation_config.eos_token_id
        return list(found) if isinstance(found, list) else [found]


def converted(family: str, folders: pytest.TempPathFactory) -> Path:
    """Below it hf, the checkpoint, and gguf, the model's folder; made once in a run."""

    def write(root: Path) -> None:
        source = write_family(family, root / "hf", vision=VISION.get(family)).folder
        convert(source, root / "gguf", ConvertConfig(text_type="f32", vision_type="f32"))

    if family in TOGETHER:
        return made_once(folders, "together", write_together) / family
    return made_once(folders, family, write)


def write_together(root: Path) -> None:
    made = {f: write_family(f, root / f / "hf", vision=VISION.get(f)).folder for f in TOGETHER}
    write_models({f"{f}/gguf": source for f, source in made.items()}, root)


def open_case(family: str, folders: pytest.TempPathFactory, **config: Any) -> Case:
    """config: of the runtime, beside float32."""
    made = converted(family, folders)
    loaded = load_family(made / "hf")
    round_halves(loaded.model)
    use_pil(loaded)
    llm = VisionLLM.load(made / "gguf", config=LoadConfig(**F32 | config))
    return Case(family, folders.mktemp(family), loaded, llm)


def round_halves(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith(HALVES):
            with torch.no_grad():
                parameter.copy_(parameter.half().float())


def use_pil(loaded: Loaded) -> None:
    """Pictures are resized by PIL, as the models were trained; transformers has a processor of each kind for that."""
    found = loaded.processor.image_processor
    module = type(found).__module__.replace("image_processing_", "image_processing_pil_")
    pil = getattr(importlib.import_module(module), f"{type(found).__name__}Pil")
    loaded.processor.image_processor = pil(**{k: v for k, v in found.to_dict().items() if k != "image_processor_type"})


# --- the same prompt in both worlds ----------------------------------------------------------------------------------


def source_of(case: Case, item: Media) -> Path | NDArray[np.uint8]:
    """What the runtime is given: an array, or a lossless file whose frames have the clip's times."""
    if not isinstance(item, Clip):
        return np.asarray(item)
    assert item.indices is None, "frames follow each other"
    path = case.folder / f"{abs(hash((item.fps, item.frames.shape, item.frames.tobytes())))}.mkv"
    return path if path.exists() else write_lossless(path, item)


def write_lossless(path: Path, clip: Clip) -> Path:
    rate = Fraction(clip.fps).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = clip.frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for i, pixels in enumerate(clip.frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ours(messages: Messages) -> list[Message]:
    """transformers' messages in the runtime's form; media are numbered as they come."""
    found, n = list[Message](), 0
    for m in messages:
        kinds = [part["type"] for part in m["content"] if part["type"] != "text"]
        text = "".join(part["text"] for part in m["content"] if part["type"] == "text")
        found.append(Message(m["role"], text, [(n + i, kind) for i, kind in enumerate(kinds)]))
        n += len(kinds)
    return found


def theirs(case: Case, messages: Messages, media: Sequence[Media]) -> dict[str, Any]:
    """What transformers' model is called with. Pixels are compared with the runtime's."""
    if not case.loaded.has_videos:
        messages, media = as_pictures(messages, media)
    pictures, clips = [m for m in media if not isinstance(m, Clip)], [m for m in media if isinstance(m, Clip)]
    inputs = case.loaded.inputs(messages, pictures, clips)
    same_pixels(case, inputs, media)
    return inputs


def as_pictures(messages: Messages, media: Sequence[Media]) -> tuple[Messages, list[Media]]:
    """Every video as so many pictures."""
    left, found, shown = list(media), [], list[Media]()
    for m in messages:
        content = list[Any]()
        for part in m["content"]:
            if part["type"] == "text":
                content.append(part)
                continue
            item = left.pop(0)
            frames = [Picture.fromarray(f) for f in item.frames] if isinstance(item, Clip) else [item]
            content += [{"type": "image"}] * len(frames)
            shown += frames
        found.append({**m, "content": content})
    return found, shown


def tiles_of(case: Case, item: Media) -> list[NDArray[np.uint8]]:
    """What the runtime's tower sees of it."""
    tower: Any = case.llm.model.tower
    if not isinstance(item, Clip):
        return list(tower.picture_tiles(np.asarray(item)))
    (read,) = read_media(case.llm.model, [source_of(case, item)], None, Watch()).items
    assert isinstance(read, Video)
    return list(read.frames)


def same_pixels(case: Case, inputs: dict[str, Any], media: Sequence[Media]) -> NDArray[np.float32]:
    """The processor's pixels are the runtime's, which take their place. For towers that see squares of one size.

    Returns the differences, of 255.
    """
    if not media:
        return np.zeros(0, np.float32)
    processor: Any = case.loaded.processor.image_processor
    mean, std = np.float32(processor.image_mean), np.float32(processor.image_std)
    shown = [(tile, isinstance(item, Clip)) for item in media for tile in tiles_of(case, item)]
    got = (np.stack([tile for tile, _ in shown]).astype(np.float32) / 255 - mean) / std
    got = np.ascontiguousarray(got.transpose(0, 3, 1, 2))
    want = inputs["pixel_values"].numpy()
    lead, want = want.shape[:-4], want.reshape(-1, *want.shape[-3:])
    are_there = [is_frame or len(want) == len(got) for _, is_frame in shown]  # SmolVLM's loses pictures beside a video
    apart = np.abs(got[are_there] - want) * std[:, None, None] * 255
    limit = VIDEO_LEVELS if any(isinstance(item, Clip) for item in media) else 0.01
    print(f"pixels differ by {apart.max():.2g} of 255 at most, {apart.mean():.2g} in the mean")
    assert apart.max() < limit
    assert apart.mean() < 0.5
    inputs["pixel_values"] = torch.tensor(got.reshape(*lead, *got.shape))
    inputs.pop("pixel_attention_mask", None)  # squares are whole
    return apart


@dataclass(frozen=True)
class Run:
    """A prompt in the runtime's context."""

    plan: Plan
    reading: Reading
    filled: Filled
    context: Context

    def ids(self, placeholder: int) -> list[int]:
        """Token ids of the prompt, `placeholder` for every visual token before merging."""
        found = list[int]()
        for piece in self.plan.pieces:
            found += piece.tokens if isinstance(piece, TextPiece) else [placeholder] * piece.n_full
        return found


@contextmanager
def run(case: Case, messages: Messages, media: Sequence[Media], tokens: VisualTokenConfig | None) -> Iterator[Run]:
    model = case.llm.model
    reading, plan = planned(case, messages, media, tokens)
    context = open_context(model, plan, context_size(model, plan, N_ANSWER) - plan.n_visual)
    try:
        filled = prefill(model, plan, dict(enumerate(reading.items)), context, Watch(), reading)
        yield Run(plan, reading, filled, context)
    finally:
        context.close()


def planned(
    case: Case, messages: Messages, media: Sequence[Media], tokens: VisualTokenConfig | None
) -> tuple[Reading, Plan]:
    reading = read_media(case.llm.model, [source_of(case, item) for item in media], None, Watch())
    rendered = case.llm.model.render(ours(messages))
    return reading, plan_prompt(case.llm.model, rendered, [item.shape for item in reading.items], tokens)


def blocks_of(case: Case, plan: Plan, items: Sequence[Image | Video]) -> list[VisualBlock]:
    """Visual tokens of a plan, part by part."""
    return list(encode_media(case.llm.model, plan, dict(enumerate(items)), Watch()).blocks.values())


# --- parity ----------------------------------------------------------------------------------------------------------


def check(case: Case, messages: Messages, media: Sequence[Media] = ()) -> None:
    """Tokens of the prompt, next-token logits and a greedy answer are transformers'."""
    check_inputs(case, theirs(case, messages, media), messages, media)


def check_inputs(case: Case, inputs: dict[str, Any], messages: Messages, media: Sequence[Media]) -> None:
    """The same of what the processor made of it already."""
    want = case.loaded.logits(inputs)
    with run(case, messages, media, OFF) as found:
        placeholder = min(case.media_ids)
        ids = inputs["input_ids"][0].tolist()
        assert found.ids(placeholder) == [placeholder if i in case.media_ids else i for i in ids]
        got = found.context.logits()[: len(want)]
        apart = float(np.abs(got - want).max() / np.abs(want).max())
        print(f"{len(ids)} tokens, {found.plan.n_visual} visual: logits differ by {apart:.1e} of the largest")
        assert apart < LIMITS.whole
        check_greedy(case, inputs, greedy(case, found.context))


def greedy(case: Case, context: Context) -> list[int]:
    """The likeliest tokens but those that end an answer."""
    found = list[int]()
    for _ in range(N_ANSWER):
        logits = context.logits()[: case.loaded.model.config.get_text_config().vocab_size]
        logits[case.end_ids] = -np.inf
        found.append(int(logits.argmax()))
        context.decode_tokens([found[-1]], logits=True)
    return found


def check_greedy(case: Case, inputs: dict[str, Any], found: list[int]) -> None:
    """Equal tokens; they may part only where transformers itself is undecided, at a margin below the tolerance."""
    want = case.loaded.greedy(inputs, N_ANSWER)
    at = next((i for i, (a, b) in enumerate(zip(found, want, strict=True)) if a != b), None)
    if at is None:
        return
    logits = case.loaded.logits(longer(inputs, want[:at]))
    margin = float((logits[want[at]] - logits[found[at]]) / np.abs(logits).max())
    print(f"near tie at token {at}: transformers' margin is {margin:.1e} of the largest logit")
    assert 0 <= margin < LIMITS.whole, f"token {at}: {found[at]} for {want[at]}"


def longer(inputs: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    """The prompt with some tokens of its answer."""
    n, more = len(tokens), torch.tensor([tokens], dtype=torch.long)
    none = torch.zeros(1, n)
    same = {"input_ids": more, "attention_mask": torch.ones(1, n), "token_type_ids": none, "mm_token_type_ids": none}
    return inputs | {k: torch.cat([inputs[k], v.to(inputs[k].dtype)], 1) for k, v in same.items() if k in inputs}
