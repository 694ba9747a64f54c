"""What a chat template is said to write where media go: a name that stands for nothing else."""

from __future__ import annotations

from pathlib import Path

import bent_gguf as bent
import pytest

from aim_local.config import LoadConfig
from aim_local.errors import ModelError
from aim_local.models.registry import open_tower
from aim_local.models.text import TextModel


@pytest.fixture(scope="module")
def text_model() -> TextModel:
    return TextModel(bent.FOLDER / "model.gguf", LoadConfig(n_threads=1), weights=False)


@pytest.mark.parametrize("key", ["aim.image_token", "aim.video_token"])
@pytest.mark.parametrize("mark", ["", "a", " ", "What", "image", "\x1b[31m", "< >", "<a\u202e>", "<>", "<a> <b>"])
def test_an_ordinary_text_is_no_mark(key: str, mark: str, tmp_path: Path, text_model: TextModel) -> None:
    path = bent.save(bent.with_key(bent.whole("mmproj"), key, bent.text(mark)), tmp_path / "mmproj.gguf")
    with pytest.raises(ModelError) as caught:
        open_tower(path, text_model, weights=False)
    print(caught.value)
    assert str(caught.value).startswith(f"{path}: {key} is {mark!r} (text); it has to be a special token")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("mark", ["<image>", "<|image_pad|>", "[IMG]", "<IMG_CONTEXT>"])
def test_a_name_in_brackets_is_one(mark: str, tmp_path: Path, text_model: TextModel) -> None:
    """Also where the vocabulary does not have it, as those of the authors' LLaVA releases."""
    path = bent.save(bent.with_key(bent.whole("mmproj"), "aim.image_token", bent.text(mark)), tmp_path / "mmproj.gguf")
    assert open_tower(path, text_model, weights=False).media_tokens == (mark, "<video>")


def test_a_special_token_of_the_language_model_is_one(
    tmp_path: Path, text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(text_model.llama), "special_names", ("IMAGE!",))
    path = bent.with_key(bent.whole("mmproj"), "aim.image_token", bent.text("IMAGE!"))
    tower = open_tower(bent.save(path, tmp_path / "mmproj.gguf"), text_model, weights=False)
    assert tower.media_tokens == ("IMAGE!", "<video>")
