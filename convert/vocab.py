"""The tokenizer as GGUF metadata: tokens with types and scores, merges, special ids.

Reads the files themselves (tokenizer.json, tokenizer.model, vocab.json with merges.txt), so that neither transformers
nor sentencepiece is needed. Chat templates are templates.py's business.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType

from aim_local.bounded import MIB, bounded_bytes

from .checkpoint import Checkpoint, section
from .errors import ConvertError
from .json_kinds import IDS_BY_TEXT

SPACE = "\u2581"  # how sentencepiece writes a space
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
SPECIAL_LOOK = re.compile(r"^(?:<\|.*\|>|<pad>|<mask>)$")  # added tokens that files forget to mark as special
SPECIAL = ("bos", "eos", "unk", "pad")
UNMERGED_SCORE = -1e6  # a piece no merge makes must lose against every piece a merge makes
PAD_SCORE = -10000.0
MAX_PIECES = 64 * MIB  # of tokenizer.model; one of 262,144 pieces has 5 MB

QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_REGEX = QWEN2_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


@dataclass
class Vocab:
    """A tokenizer in llama.cpp's terms: `model` "gpt2" is byte-level BPE, "llama" is sentencepiece's BPE.

    `tokens` maps an id to (text, type, score); ids without an entry become padding.
    """

    model: str
    pre: str
    tokens: dict[int, tuple[str, TokenType, float]]
    merges: list[str] = field(default_factory=list)
    add_bos: bool = False
    add_eos: bool = False
    space_prefix: bool | None = None
    special_ids: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ids(self) -> dict[str, int]:
        return {text: i for i, (text, _, _) in self.tokens.items()}


def read_vocab(checkpoint: Checkpoint, arch: str, n_vocab: int) -> Vocab:
    """The tokenizer of `checkpoint` for an embedding table of `n_vocab` rows.

    Raises ConvertError where there is none, or where it has ids that the table has not.
    """
    fast = checkpoint.json("tokenizer.json")
    if arch == "llama" and (checkpoint.folder / "tokenizer.model").is_file():
        vocab = read_sentencepiece(checkpoint.folder / "tokenizer.model")
    elif fast:
        vocab = read_fast(fast)
    elif (checkpoint.folder / "vocab.json").is_file():
        vocab = read_slow(checkpoint)
    else:
        raise ConvertError(
            f"{checkpoint.folder} has no tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt); "
            "copy it from the checkpoint's repository"
        )
    check_base(vocab, n_vocab)
    add_tokens(vocab, checkpoint, fast, n_vocab)
    read_special(vocab, checkpoint, fast, n_vocab)
    return vocab


def check_base(vocab: Vocab, n_vocab: int) -> None:
    last = max(vocab.tokens, default=-1)
    if last >= n_vocab:
        raise ConvertError(
            f"the tokenizer goes up to id {last}, the embedding table has {n_vocab} rows; "
            "they belong to different checkpoints, copy the right tokenizer files"
        )


# --- the three kinds of file ----------------------------------------------------------------------------------------


def read_fast(fast: Mapping[str, Any]) -> Vocab:
    """tokenizer.json."""
    model = section(fast, "model")
    if model.get("type") != "BPE":
        raise ConvertError(
            f"tokenizer.json holds a {model.get('type')} model; BPE is what llama.cpp's qwen2 and llama use"
        )
    texts, merges = section(model, "vocab"), model.get("merges") or []
    if not texts:
        raise ConvertError("tokenizer.json has no vocabulary; copy it from the checkpoint's repository")
    pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else (m[0], m[1]) for m in merges]
    if not model.get("byte_fallback"):
        return byte_level(texts, [f"{a} {b}" for a, b in pairs], pre_tokenizer(fast))
    return fallback_bpe(texts, pairs, str(model.get("unk_token") or ""), prefixes_space(fast))


def read_slow(checkpoint: Checkpoint) -> Vocab:
    """vocab.json with merges.txt, the files of GPT-2's kind; Qwen2 is the only family of ours that has them."""
    lines = (checkpoint.text("merges.txt") or "").splitlines()
    merges = [line for line in lines if line.strip() and not line.startswith("#version")]
    if not merges:
        raise ConvertError(
            f"{checkpoint.folder} has vocab.json without merges.txt; copy it from the checkpoint's repository"
        )
    return byte_level(ids_by_text(checkpoint, "vocab.json"), merges, "qwen2")


def ids_by_text(checkpoint: Checkpoint, name: str) -> dict[str, int]:
    """File `name`, an object of ids by token; empty where there is none."""
    found = checkpoint.json(name)
    if not IDS_BY_TEXT.holds(found):
        raise ConvertError(f"{name} is not {IDS_BY_TEXT.text}; copy it from the checkpoint's repository")
    return found


def byte_level(vocab: Mapping[str, int], merges: list[str], pre: str) -> Vocab:
    tokens = {i: (text, TokenType.NORMAL, 0.0) for text, i in vocab.items()}
    notes = (
        []
        if pre != "default"
        else ["the tokenizer splits words in a way llama.cpp has no name for: its default is used"]
    )
    return Vocab("gpt2", pre, tokens, merges, notes=notes)


def fallback_bpe(vocab: Mapping[str, int], pairs: list[tuple[str, ...]], unk: str, space_prefix: bool) -> Vocab:
    """Sentencepiece's BPE as tokenizer.json writes it. There the earlier merge goes first, here the higher score."""
    scores: dict[str, float] = {}
    for rank, (a, b) in enumerate(pairs):
        scores.setdefault(a + b, -float(rank))
    tokens = {}
    for text, i in vocab.items():
        kind = TokenType.BYTE if BYTE.fullmatch(text) else TokenType.UNKNOWN if text == unk else TokenType.NORMAL
        tokens[i] = (text, kind, scores.get(text, UNMERGED_SCORE if len(text) > 1 else 0.0))
    return Vocab("llama", "default", tokens, add_bos=True, space_prefix=space_prefix)


def read_sentencepiece(path: Path) -> Vocab:
    """tokenizer.model, a protobuf: 1 = pieces {1 text, 2 score, 3 type}, 3 = normaliser {3 add a space in front}.

    https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
    """
    tokens: dict[int, tuple[str, TokenType, float]] = {}
    space_prefix = True
    try:
        for number, value in protobuf(bounded_bytes(path, MAX_PIECES)):
            if number == 1:
                piece = dict(protobuf(value))
                score = float(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                tokens[len(tokens)] = (piece[1].decode("utf-8"), TokenType(piece.get(3, TokenType.NORMAL)), score)
            elif number == 3:
                space_prefix = bool(dict(protobuf(value)).get(3, True))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as e:
        raise ConvertError(f"{path} is not a sentencepiece model ({type(e).__name__}); download it again") from e
    return Vocab("llama", "default", tokens, add_bos=True, space_prefix=space_prefix)


def protobuf(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message: int for varints, bytes for everything else."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(wire) or (varint() if wire == 2 else None)
        if size is None or at + size > len(data):
            raise ValueError(f"wire type {wire} at byte {at}")
        yield number, data[at : at + size]
        at += size


# --- what tokenizer.json says beside its vocabulary -------------------------------------------------------------------


def parts(node: Any) -> Iterator[Mapping[str, Any]]:
    """A normaliser or pre-tokenizer and, if it is a sequence, its members."""
    if isinstance(node, dict):
        yield node
        for key in ("normalizers", "pretokenizers", "processors"):
            children = node.get(key)
            for child in children if isinstance(children, list) else []:
                yield from parts(child)


def pre_tokenizer(fast: Mapping[str, Any]) -> str:
    """llama.cpp's name of the way text is split into words before merging."""
    nodes = list(parts(fast.get("pre_tokenizer")))
    patterns = [str(section(n, "pattern").get("Regex")) for n in nodes if n.get("type") == "Split"]
    if patterns == [QWEN2_REGEX]:
        return "qwen2"
    if patterns == [LLAMA3_REGEX]:
        return "llama-bpe"
    if not patterns and any(n.get("type") == "Digits" and n.get("individual_digits") for n in nodes):
        return "smollm"
    if not patterns and any(n.get("type") == "ByteLevel" and n.get("use_regex", True) for n in nodes):
        return "gpt-2"
    return "default"


def prefixes_space(fast: Mapping[str, Any]) -> bool:
    """Whether text gets a space in front: a Prepend normaliser (older files) or a Metaspace pre-tokenizer (newer)."""
    nodes = [*parts(fast.get("normalizer")), *parts(fast.get("pre_tokenizer"))]
    for node in nodes:
        if node.get("type") == "Prepend":
            return True
        if node.get("type") == "Metaspace":
            return bool(node.get("prepend_scheme", "always") != "never")
    return False


def first_and_last(fast: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The special tokens that the post-processor puts around a text."""
    for node in parts(fast.get("post_processor")):
        single = node.get("single")
        if node.get("type") == "TemplateProcessing" and isinstance(single, list) and len(single) > 1:
            ends = [section(single[at], "SpecialToken") if isinstance(single[at], dict) else {} for at in (0, -1)]
            first, last = (end.get("id") for end in ends)
            return first if isinstance(first, str) else None, last if isinstance(last, str) else None
    return None, None


# --- added and special tokens -----------------------------------------------------------------------------------------


def added_tokens(checkpoint: Checkpoint, fast: Mapping[str, Any]) -> dict[int, tuple[str, bool]]:
    """id -> (text, special), from every file that lists them; the more telling files last."""
    found = {int(i): (text, False) for text, i in ids_by_text(checkpoint, "added_tokens.json").items()}
    decoder = section(checkpoint.json("tokenizer_config.json"), "added_tokens_decoder")
    found |= {int(i): (str(t["content"]), bool(t.get("special"))) for i, t in decoder.items()}
    found |= {int(t["id"]): (str(t["content"]), bool(t.get("special"))) for t in fast.get("added_tokens", [])}
    return found


def add_tokens(vocab: Vocab, checkpoint: Checkpoint, fast: Mapping[str, Any], n_vocab: int) -> None:
    """Enter the added tokens: CONTROL for special ones, USER_DEFINED for others. Those without a row are dropped."""
    dropped = []
    for i, (text, special) in sorted(added_tokens(checkpoint, fast).items()):
        if i >= n_vocab:
            dropped.append(text)
            continue
        old = vocab.tokens.get(i)
        if old is not None and old[1] in (TokenType.BYTE, TokenType.UNKNOWN):
            continue
        special = special or SPECIAL_LOOK.match(text) is not None
        kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
        vocab.tokens[i] = (text if special else text.replace(SPACE, " "), kind, old[2] if old else -1000.0)
    if dropped:
        vocab.notes.append(
            f"{len(dropped)} added tokens have no row in the embedding table and were left out: {' '.join(dropped[:3])}"
        )


def read_special(vocab: Vocab, checkpoint: Checkpoint, fast: Mapping[str, Any], n_vocab: int) -> None:
    """bos, eos, unk and pad: by their text in the tokenizer's config, else by their id in the model's."""
    config = {**checkpoint.json("special_tokens_map.json"), **checkpoint.json("tokenizer_config.json")}
    model = {**checkpoint.config, **section(checkpoint.config, "text_config")}
    ids = vocab.ids()
    for kind in SPECIAL:
        token = config.get(f"{kind}_token")
        text = token.get("content") if isinstance(token, dict) else token
        number = ids.get(text) if isinstance(text, str) else None
        if number is None:
            number = model.get(f"{kind}_token_id")
            number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and 0 <= number < n_vocab:
            vocab.special_ids[kind] = number
    first, last = first_and_last(fast)
    if first is not None or last is not None:
        vocab.add_bos = first is not None and ids.get(first) == vocab.special_ids.get("bos")
        vocab.add_eos = last is not None and ids.get(last) == vocab.special_ids.get("eos")
    vocab.add_bos = bool(config.get("add_bos_token", vocab.add_bos))
    vocab.add_eos = bool(config.get("add_eos_token", vocab.add_eos))


def vocab_metadata(writer: gguf.GGUFWriter, vocab: Vocab, n_vocab: int) -> None:
    """Write `vocab`, padded to the `n_vocab` rows of the embedding table."""
    padded = [vocab.tokens.get(i, (f"[PAD{i}]", TokenType.UNUSED, PAD_SCORE)) for i in range(n_vocab)]
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list([text.encode("utf-8") for text, _, _ in padded])
    if vocab.model == "llama":
        writer.add_token_scores([score for _, _, score in padded])
    writer.add_token_types([int(kind) for _, kind, _ in padded])
    if vocab.merges:
        writer.add_token_merges(vocab.merges)
    for kind, number in vocab.special_ids.items():
        getattr(writer, f"add_{kind}_token_id")(number)
    writer.add_add_bos_token(vocab.add_bos)
    writer.add_add_eos_token(vocab.add_eos)
    if vocab.space_prefix is not None:
        writer.add_add_space_prefix(vocab.space_prefix)
