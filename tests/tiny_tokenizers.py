"""Tokenizers of a few hundred tokens, of the kinds that real checkpoints have."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The red circle moves to the left, then the blue square follows it.",
    "How many shapes are there? What colour is the triangle? user assistant system USER: ASSISTANT:",
    "You are a helpful assistant. Describe the video. It's 12:30, isn't it?",
] * 4
QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen2_tokenizer() -> Tokenizer:
    """Byte-level BPE with Qwen2's word splitting; ChatML tokens and media tokens added behind."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    tok.add_special_tokens(special_tokens(names))
    return tok


def llama_tokenizer(specials: Sequence[str] = ("<unk>", "<s>", "</s>", "<image>", "<pad>")) -> Tokenizer:
    """Sentencepiece's BPE as tokenizer.json writes it: three specials, 256 bytes, pieces; other specials behind."""
    names, merges = byte_pieces(CORPUS, specials[:3], prefix="always")
    vocab = {name: i for i, name in enumerate(names)}
    tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tok.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    tok.add_special_tokens(special_tokens(specials))
    return tok


def byte_pieces(corpus: Sequence[str], lead: Sequence[str], prefix: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Names and merges of a sentencepiece BPE: `lead`, 256 bytes, merged pieces, characters."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=lambda t: (len(t) == 1, learnt["vocab"][t]))
    merges = [(str(a), str(b)) for a, b in (m.split(" ") if isinstance(m, str) else m for m in learnt["merges"])]
    return [*lead, *(f"<0x{b:02X}>" for b in range(256)), *(p for p in pieces if p not in lead)], merges


def special_tokens(names: Sequence[str]) -> list[AddedToken]:
    return [AddedToken(n, special=True, normalized=False) for n in names]


LLAMA_KINDS = {"<unk>": 2, "<s>": 3, "</s>": 3}  # sentencepiece's types: 2 unknown, 3 control, 4 user's own
GEMMA_LINES = ("\n", "\n\n", "\n\n\n", "\n\n\n\n")  # tokens each, wherever they stand
GEMMA_KINDS = {"<pad>": 3, "<eos>": 3, "<bos>": 3, "<unk>": 2, **dict.fromkeys(GEMMA_LINES, 4)}


def write_sentencepiece(tokenizer: Tokenizer, path: Path, kinds: Mapping[str, int] = LLAMA_KINDS) -> None:
    """tokenizer.model of a sentencepiece BPE: the protobuf that sentencepiece would have written."""
    model = json.loads(tokenizer.to_str())["model"]
    ranks = {"".join(pair): rank for rank, pair in reversed(list(enumerate(model["merges"])))}

    def message(number: int, body: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(body)) + body

    data = b""
    for text in sorted(model["vocab"], key=model["vocab"].get):
        kind = kinds.get(text, 6 if text.startswith("<0x") else 1)
        score = -float(ranks.get(text, 10000)) if kind == 1 else 0.0
        piece = (
            message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + varint(3 << 3) + varint(kind)
        )
        data += message(1, piece)
    trained = varint(3 << 3) + varint(2) + varint(35 << 3) + varint(1)  # BPE, with bytes to fall back on
    path.write_bytes(data + message(2, trained) + message(3, varint(3 << 3) + varint(1)))


def varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])
