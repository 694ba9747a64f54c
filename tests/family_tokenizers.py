"""Tokenizers of a few hundred tokens for each family, with the tokens its processor and template name."""

from collections.abc import Sequence
from typing import Any

from tiny_tokenizers import (
    CORPUS,
    GEMMA_LINES,
    QWEN2_REGEX,
    byte_pieces,
    llama_tokenizer,
    special_tokens,
)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WORDS = [
    *CORPUS,
    "Frame from 00:00: You are provided the following series of eight frames from a 0:00:07 [H:MM:SS] video.",
    "Frame1: Frame2: <0.5 seconds> <12.0 seconds> User: Assistant: model [INST] [/INST] Picture 1",
] * 2
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
SMOL = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
TILES = tuple(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7))
INTERN = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>")
GEMMA = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>")


def byte_level(pre: Sequence[Any], specials: Sequence[str], first: bool = False) -> Tokenizer:
    """Byte-level BPE behind the splitting `pre`; `first`: the special tokens come before the others."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence(list(pre))
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    lead = list(specials) if first else []
    trainer = trainers.BpeTrainer(
        vocab_size=480 + len(lead), initial_alphabet=alphabet, show_progress=False, special_tokens=lead
    )
    tok.train_from_iterator(WORDS, trainer)
    tok.add_special_tokens(special_tokens(specials))
    return tok


def qwen(specials: Sequence[str]) -> Tokenizer:
    split = pre_tokenizers.Split(Regex(QWEN2_REGEX), behavior="isolated", invert=False)
    return byte_level(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], CHATML + tuple(specials)
    )


def smollm() -> Tokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return byte_level([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)], CHATML + SMOL + TILES, first=True)


def gemma(specials: Sequence[str] = GEMMA) -> Tokenizer:
    """Sentencepiece's BPE without a space in front: <pad> <eos> <bos> <unk>, bytes, pieces; turns behind."""
    names, merges = byte_pieces(WORDS, ("<pad>", "<eos>", "<bos>", "<unk>", *GEMMA_LINES), prefix="never")
    tok = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, merges, unk_token="<unk>", byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "\u2581")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A <bos> $B", [("<bos>", 2)])
    tok.add_tokens([AddedToken(lines, normalized=False) for lines in GEMMA_LINES])
    tok.add_special_tokens(special_tokens(("<pad>", "<eos>", "<bos>", "<unk>", *specials)))
    return tok


def llama(specials: Sequence[str]) -> Tokenizer:
    return llama_tokenizer(("<unk>", "<s>", "</s>", *specials))


def chatml_config(**more: Any) -> dict[str, Any]:
    """tokenizer_config.json of a Qwen2 tokenizer."""
    plain = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None}
    return {**plain, "tokenizer_class": "Qwen2Tokenizer", "model_max_length": 4096, **more}


def intern_config() -> dict[str, Any]:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    return chatml_config(extra_special_tokens=names, **names)


def smollm_config() -> dict[str, Any]:
    names = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    plain = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    more = {"unk_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer", "model_max_length": 4096}
    return {**plain, **more, "extra_special_tokens": names, **names}


def gemma_config() -> dict[str, Any]:
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    plain = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    more = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False}
    return {**plain, **more, "model_max_length": 4096, "extra_special_tokens": names, **names}


def llama_config() -> dict[str, Any]:
    plain = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "legacy": True}
    more = {"add_bos_token": True, "add_eos_token": False, "model_max_length": 4096}
    return {**plain, **more, "tokenizer_class": "LlamaTokenizer"}
