"""Build the demo model's tokenizer: byte-level BPE with Qwen2's pre-tokenizer and fewer than 512 tokens.

The merges are learnt from the demo world's questions and answers, so their words are single tokens; every other
text still encodes, byte by byte where need be. The chat template is that of the family's processors.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from aim_local.demo.world import COLOURS, KINDS, NUMBERS, PARTS, WAYS, make_scene, questions

MAX_VOCAB = 512  # more than the corpus needs: every word of it becomes one token
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
# words a user may add to a question of the demo world
EXTRA = (
    "user assistant system You are a helpful assistant. Please tell me the video clip picture color object red one?\n"
    "Which way does it move? Where does it start and end? How many are there? What happens before and after that?"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\\n' + content['text'] }}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def corpus(n_scenes: int = 1500) -> Iterator[str]:
    """Question and answer texts of n_scenes scenes, as they stand in the chat template."""
    for seed in range(n_scenes):
        for q in questions(make_scene(seed)):
            yield f"\n{q.text}"
            yield f"assistant\n{q.answer}"
        yield f"user {EXTRA}"
        yield from (f"assistant\n{word}" for word in (*WAYS, *NUMBERS, *PARTS, *KINDS, *COLOURS))


def learn_merges(size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary of at most `size` tokens (256 bytes and merges) and the merges in order."""
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(corpus(), trainer)
    learnt = json.loads(bpe.to_str())["model"]
    return learnt["vocab"], [tuple(pair) for pair in learnt["merges"]]


def build() -> Qwen2Tokenizer:
    """The tokenizer, with special tokens at the end of the vocabulary and the chat template set."""
    vocab, merges = learn_merges(MAX_VOCAB - len(SPECIAL))
    for token in SPECIAL:
        vocab[token] = len(vocab)
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:2] + SPECIAL[3:])})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    build().save_pretrained(parser.parse_args().folder)


if __name__ == "__main__":
    main()
