"""Every form in which clients send clips, pictures and options: each row of the table in docs/server.md, over httpx."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server_case import CLIP, Running, load, question, running
from server_forms import FORMS, Form, Setting, table

from aim_local.demo.clips import read_clip

ASK = "Which way does the shape move?"


@pytest.fixture(scope="module")
def expected() -> str:
    """What the library says of the clip."""
    with load() as llm:
        return llm.generate(ASK, [CLIP]).text


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(media_path=CLIP.parent) as service:
        yield service


@pytest.fixture(scope="module")
def setting(found: Running) -> Setting:
    frames = read_clip(CLIP)
    file = found.openai().files.create(file=CLIP, purpose="vision")
    return Setting(CLIP, file.id, "", tuple(encode(f, "JPEG") for f in frames), tuple(encode(f, "PNG") for f in frames))


def encode(frame: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.sent[:60])
def test_form(found: Running, setting: Setting, expected: str, form: Form) -> None:
    response = found.post({"messages": question(ASK, *form.parts(setting)), **form.more})
    answer = response.json()
    assert response.status_code == form.status, answer
    if form.status != 200:
        assert answer["error"]["param"] == form.param
        return
    details = answer["usage"]["prompt_tokens_details"]
    assert details["visual_tokens_full"] == form.n_full
    text = answer["choices"][0]["message"]["content"]
    if form.same:
        assert text == expected
    check_effect(form, text, details, answer)


def check_effect(form: Form, text: str, details: dict[str, int], answer: dict[str, object]) -> None:
    """What a row's options do to the answer."""
    more = form.more
    if "visual_tokens" in more:
        assert details["visual_tokens"] == -(-details["visual_tokens_full"] // 2)
    if "n_predict" in more:
        assert answer["usage"]["completion_tokens"] == 1  # type: ignore[index]
    if "grammar" in more:
        assert text in ("yes", "no")
    if "json_schema" in more or "response_format" in more:
        assert text in ('"a"', '"b"')


def test_the_table_in_the_docs_is_this_one() -> None:
    page = Path(__file__).parent.parent / "docs" / "server.md"
    assert page.read_text(encoding="utf-8").split("<!-- forms -->\n")[1].split("<!-- /forms -->")[0] == table()
