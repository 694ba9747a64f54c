"""The child process of upstream.py: llama.cpp's own converter, run for both towers of one checkpoint.

A process of its own, because that converter is written for the gguf package of its own version, and because what torch
takes of memory goes with it. The first message from the parent is the job, the fields of upstream.py's Job. Messages
back: {left} tensors that no tower takes, {sizes} bytes of each file, {more, name} bytes written of one, {error} one
line where it could not be done.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from aim_local.child import ERROR, Parent, reason_of

POLL = 0.1  # seconds between two looks at the growing file
TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
Say = Callable[..., None]


def main() -> None:
    parent = Parent()
    job = parent.receive()
    if job is None:
        return
    parent.end_with()
    try:
        run(job, parent.say)
    except Exception as e:  # whatever fails is the parent's error line
        traceback.print_exc()
        parent.say(**{ERROR: reason_of(e)})


def run(job: Mapping[str, Any], say: Say) -> None:
    """Write both files of `job`. Both are laid out before the first is written: then the sum of bytes is known."""
    # transformers imports it where it is installed, and fails where it does not fit torch; nothing here needs it.
    # Not by sys.modules: None is what Python takes there for "not to be had", and no module to the type checker
    vars(sys)["modules"]["torchvision"] = None
    import torch

    logging.disable(logging.CRITICAL)
    with torch.inference_mode():
        left: set[str] = set()
        models = [make(job, tower, left) for tower in job["towers"]]
        say(left=sorted(left))
        for model in models:
            model.prepare_tensors()
            model.prepare_metadata(vocab_only=False)
        for model in models:
            for key, text in job["origin"].items():
                model.gguf_writer.add_string(key, text)
        for key, value in job["keys"].items():
            models[-1].gguf_writer.add_uint32(key, value)  # the mmproj's
        say(sizes=[n_bytes(model) for model in models])
        for model in models:
            with reports(model, say):
                write(model)


def make(job: Mapping[str, Any], tower: Mapping[str, str], left: set[str]) -> Any:
    """Upstream's model of one tower. `left`: tensors that no tower took, which all are before the first one."""
    import gguf
    from conversion import ModelBase, get_model_class

    source = Path(job["source"])
    known = get_model_class(tower["architecture"], mmproj=tower["kind"] == "mmproj")
    hparams = ModelBase.load_hparams(source, False)
    taken: dict[str, bool] = {}
    model = adapted(known, job, taken)(
        source,
        gguf.LlamaFileType[TYPES[tower["type"]]],
        Path(tower["path"]),
        model_name=job["name"],
        hparams=hparams,
    )
    mine = {name for name, took in taken.items() if took}
    if tower is job["towers"][0]:
        left |= set(taken)
    left -= mine
    return model


def adapted(known: Any, job: Mapping[str, Any], taken: dict[str, bool]) -> Any:
    """A subclass of `known` that brings tensors' names back to the published ones, and knows our tokenizers.

    `taken`: gets which tensors of the checkpoint the tower takes.
    Upstream tells a word splitter by a hash of what the tokenizer makes of one text, so that a checkpoint with another
    vocabulary is unknown to it: there the splitter that we read from tokenizer.json counts.
    """

    def filter_tensors(cls: Any, item: tuple[str, Any]) -> Any:
        name, data = item
        for pattern, instead in job["renames"].items():
            name = re.sub(pattern, instead, name)
        found = known.filter_tensors.__func__(cls, (name, data))
        taken[item[0]] = found is not None
        return found

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> Any:
        try:
            return known.get_vocab_base_pre(self, tokenizer)
        except NotImplementedError:
            if not job["pre"]:
                raise
            return job["pre"]

    def create_vocab_sentencepiece(self: Any) -> Any:
        with stand_in():
            tokens, scores, types = known._create_vocab_sentencepiece(self)
        for i, text, kind in job["added"]:  # transformers 5 lists them in tokenizer.json alone
            if i < len(tokens) and types[i] in (NORMAL, UNUSED):
                tokens[i], scores[i], types[i] = text.encode("utf-8"), -1000.0, kind
        return tokens, scores, types

    body = {
        "model_arch": known.model_arch,
        "no_mtp": True,  # layers that draft tokens, which the runtime does not run
        "filter_tensors": classmethod(filter_tensors),
        "get_vocab_base_pre": get_vocab_base_pre,
        "_create_vocab_sentencepiece": create_vocab_sentencepiece,
    }
    return type(known.__name__, (known,), body)


def n_bytes(model: Any) -> int:
    return sum(int(info.nbytes) for part in model.gguf_writer.tensors for info in part.values())


def write(model: Any) -> None:
    """The end of upstream's write(), whose beginning is in `run`; its progress bar is not for us."""
    writer = model.gguf_writer
    writer.write_header_to_file(path=model.fname_out)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=False)
    writer.close()


@contextmanager
def reports(model: Any, say: Say) -> Iterator[None]:
    """Says how far the file has grown, from a thread: upstream calls nobody while it writes."""
    path, most, said, done = model.fname_out, n_bytes(model), 0, threading.Event()

    def tell(size: int) -> None:
        nonlocal said
        if size > said:
            say(more=size - said, name=path.name)
            said = size

    def watch() -> None:
        while not done.wait(POLL):
            tell(min(path.stat().st_size, most) if path.exists() else 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        done.set()
        thread.join()
        tell(most)
    finally:
        done.set()


# --- tokenizer.model without the sentencepiece package ----------------------------------------------------------------

NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6  # sentencepiece's kinds of pieces


class Pieces:
    """What upstream's converter asks of sentencepiece.SentencePieceProcessor, from our reader of the file."""

    def LoadFromFile(self, path: str) -> None:
        from aim_local.convert.vocab import read_sentencepiece

        self._pieces: Mapping[int, tuple[str, int, float]] = read_sentencepiece(Path(path)).tokens  # text, kind, score

    def vocab_size(self) -> int:
        return len(self._pieces)

    def IdToPiece(self, i: int) -> str:
        return self._pieces[i][0]

    def GetScore(self, i: int) -> float:
        return self._pieces[i][2]

    def IsUnknown(self, i: int) -> bool:
        return self._pieces[i][1] == UNKNOWN

    def IsControl(self, i: int) -> bool:
        return self._pieces[i][1] == CONTROL

    def IsUnused(self, i: int) -> bool:
        return self._pieces[i][1] == UNUSED

    def IsByte(self, i: int) -> bool:
        return self._pieces[i][1] == BYTE


@contextmanager
def stand_in() -> Iterator[None]:
    """`import sentencepiece` finds Pieces; for the time of one call, because transformers looks for the package too."""
    before = sys.modules.get("sentencepiece")
    module = ModuleType("sentencepiece")
    vars(module)["SentencePieceProcessor"] = Pieces
    sys.modules["sentencepiece"] = module
    try:
        yield
    finally:
        del sys.modules["sentencepiece"]
        if before is not None:
            sys.modules["sentencepiece"] = before


if __name__ == "__main__":
    main()
