"""Vocabularies that make no sense: merges of tokens that are not there, types and scores that cannot be."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import bent_gguf as bent
import pytest
from bent_gguf import array, text, texts

from aim_local.config import LoadConfig
from aim_local.errors import ModelError
from aim_local.models.text import TextModel
from aim_local.models.vocabulary import check_vocabulary
from aim_local.store import gguf_header
from aim_local.store.gguf_header import read_header, read_numbers, read_texts

T = TypeVar("T")
BUNDLED = bent.FOLDER / "model.gguf"
MERGES, TYPES, TOKENS = (f"tokenizer.ggml.{what}" for what in ("merges", "token_type", "tokens"))
HEAD = read_header(BUNDLED)
OWN_MERGES = [merge.decode() for merge in read_texts(HEAD, MERGES)]
OWN_TYPES = [int(kind) for kind in read_numbers(HEAD, TYPES)]
OWN_TOKENS = [token.decode() for token in read_texts(HEAD, TOKENS)]


def changed(values: Sequence[T], at: int, value: T) -> list[T]:
    return [*values[:at], value, *values[at + 1 :]]


REFUSED = {
    "the end of a merge is no token": (MERGES, texts(*changed(OWN_MERGES, 7, "i zq")), "merges[7] is 'i zq'"),
    "its begin is none": (MERGES, texts(*changed(OWN_MERGES, 0, "zq n")), "'zq' is none"),
    "what it makes is none": (MERGES, texts(*changed(OWN_MERGES, 3, "z q")), "of tokens that are there: 'zq' is none"),
    "a merge of one part": (MERGES, texts(*changed(OWN_MERGES, 5, "in")), "two tokens with a space between"),
    "a merge of nothing": (MERGES, texts(*changed(OWN_MERGES, 5, "")), "merges[5] is ''"),
    "no merges": (MERGES, texts(), "merges make 0 of "),
    "few merges": (MERGES, texts(*OWN_MERGES[:9]), "merges make 9 of "),
    "a type too high": (TYPES, array("int32", *changed(OWN_TYPES, 9, 7)), "token_type[9] is 7; it has to be 1 to 6"),
    "type 0": (TYPES, array("int32", *changed(OWN_TYPES, 0, 0)), "token_type[0] is 0"),
    "a type below 0": (TYPES, array("int32", *changed(OWN_TYPES, 473, -1)), "token_type[473] is -1"),
    "all unused": (TYPES, array("int32", *[5] * len(OWN_TYPES)), "no token that writes text"),
    "all control tokens": (TYPES, array("int32", *[3] * len(OWN_TYPES)), "no token that writes text"),
    "control and unknown ones": (TYPES, array("int32", *[2, 3] * (len(OWN_TYPES) // 2)), "no token that writes text"),
    "a byte that is a word": (
        TYPES,
        array("int32", *changed(OWN_TYPES, 300, 6)),
        "another one than 6",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    key, value, said = REFUSED[name]
    path = bent.save(bent.with_key(bent.whole("model"), key, value), tmp_path / "model.gguf")
    with pytest.raises(ModelError) as caught:
        check_vocabulary(read_header(path))
    print(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_a_model_looks_at_it(tmp_path: Path) -> None:
    key, value, said = REFUSED["a type too high"]
    path = bent.save(bent.with_key(bent.whole("model"), key, value), tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"token_type\[9\] is 7") as caught:
        TextModel(path, LoadConfig(n_threads=1), weights=False)
    assert said in str(caught.value)


def test_a_long_vocabulary_is_looked_at_too(tmp_path: Path) -> None:
    """Longer than the arrays that a head keeps."""
    tokens = [*OWN_TOKENS, *(f"[PAD{i}]" for i in range(2000))]
    file = bent.with_key(bent.whole("model"), TOKENS, texts(*tokens))
    types = [*OWN_TYPES, *[5] * 2000]
    right = bent.with_key(file, TYPES, array("int32", *types))
    check_vocabulary(read_header(bent.save(right, tmp_path / "right.gguf")))
    wrong = bent.save(bent.with_key(file, TYPES, array("int32", *types[:-1], 9)), tmp_path / "wrong.gguf")
    with pytest.raises(ModelError, match=r"token_type\[2473\] is 9"):
        check_vocabulary(read_header(wrong))


def test_a_score_of_a_long_vocabulary_that_is_no_number(tmp_path: Path) -> None:
    file = bent.with_key(bent.whole("model"), TOKENS, texts(*OWN_TOKENS, *(f"[PAD{i}]" for i in range(2000))))
    file = bent.with_key(file, TYPES, array("int32", *OWN_TYPES, *[5] * 2000))
    file = bent.with_key(file, "tokenizer.ggml.scores", array("float32", *changed([0.0] * 2474, 2000, float("nan"))))
    with pytest.raises(ModelError, match=r"scores\[2000\] is nan; it has to be a number"):
        check_vocabulary(read_header(bent.save(file, tmp_path / "model.gguf")))


def test_bytes_of_a_tokenizer_by_scores(tmp_path: Path) -> None:
    """As in SentencePiece: what no token has is written byte by byte."""
    file = bent.with_key(bent.whole("model"), "tokenizer.ggml.model", text("llama"))
    file = bent.with_key(file, TOKENS, texts("<unk>", "<0x0A>", "a"))
    right = bent.with_key(file, TYPES, array("int32", 2, 6, 1))
    check_vocabulary(read_header(bent.save(right, tmp_path / "right.gguf")))
    wrong = bent.save(bent.with_key(file, TYPES, array("int32", 2, 1, 1)), tmp_path / "wrong.gguf")
    with pytest.raises(ModelError, match=r"token_type\[1\] is 1; it has to be 6 \(byte\), as the token is '<0x0A>'"):
        check_vocabulary(read_header(wrong))


def test_arrays_are_read_as_they_stand() -> None:
    data = BUNDLED.read_bytes()
    at = data.index(TYPES.encode()) + len(TYPES) + 4  # behind the kind
    kind, n = struct.unpack_from("<IQ", data, at)
    assert (kind, n) == (5, len(OWN_TOKENS))
    assert list(struct.unpack_from(f"<{n}i", data, at + 12)) == OWN_TYPES
    assert read_texts(HEAD, "general.name") == []
    assert read_numbers(HEAD, TOKENS) == ()
    assert read_texts(HEAD, "no.such.key") == []


def test_a_head_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its arrays lie is known from then on."""
    head = read_header(BUNDLED)

    def again(*_: object) -> None:
        raise AssertionError("walked again")

    for step in ("value", "array", "string", "_skip_strings"):
        monkeypatch.setattr(gguf_header._Cursor, step, again)
    check_vocabulary(head)
    assert len(read_texts(head, TOKENS)) == len(read_numbers(head, TYPES)) == len(OWN_TOKENS)
    assert len(read_texts(head, MERGES)) == len(OWN_MERGES)
