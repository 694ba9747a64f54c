"""Chat templates and media marks: nothing a user types becomes a picture, nothing is lost in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_local.errors import ModelError, UsageError
from aim_local.models.prompt import ChatTemplate, Message, mark, mark_raw, split_marks

STRUCTURED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    "{% for p in m['content'] if p['type'] == 'image' %}<image>{% endfor %}"
    "{% for p in m['content'] if p['type'] == 'video' %}<video>{% endfor %}"
    "{% for p in m['content'] if p['type'] == 'text' %}{{ '\n' + p['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


def template(source: str | None, structured: bool = True, video: str = "<video>") -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", image_token="<image>", video_token=video, structured=structured)


def test_images_before_videos_each_its_own_mark() -> None:
    out = template(STRUCTURED).render([Message("user", "what?", [(0, "video"), (1, "image")])])
    assert out == f"<|im_start|>user {mark(1)}{mark(0)}\nwhat?<|im_end|><|im_start|>assistant\n"


def test_typed_tokens_stay_text() -> None:
    out = template(STRUCTURED).render([Message("user", "is <image> or <video> here?", [(0, "video")])])
    assert out.count(mark(0)) == 1
    assert "is <image> or <video> here?" in out


def test_typed_marks_are_taken_out() -> None:
    out = template(STRUCTURED).render([Message("user", f"fake {mark(0)}", [(0, "video")])])
    assert out.count(mark(0)) == 1


@pytest.mark.parametrize("structured", [True, False])
def test_plain_templates_take_marks_in_the_text(structured: bool) -> None:
    out = template(PLAIN, structured).render([Message("user", "what?", [(0, "image")])])
    assert out == f"[user] {mark(0)}\nwhat?\n"


def test_structured_template_of_another_runner() -> None:
    """A foreign tower's template that knows lists only still gets text and marks."""
    out = template(STRUCTURED, structured=False).render([Message("user", "what?", [(0, "image")])])
    assert f"{mark(0)}\nwhat?" in out


def test_a_model_without_a_video_token_shows_videos_as_images() -> None:
    out = template(STRUCTURED, video="").render([Message("user", "what?", [(0, "video")])])
    assert out.count(mark(0)) == 1


def test_bos_is_left_to_the_tokenizer() -> None:
    assert template("<s>" + PLAIN).render([Message("user", "hello")]) == "[user] hello\n"


def test_no_template_is_chatml() -> None:
    assert template(None).render([Message("user", "hello")]).startswith("<|im_start|>user\nhello<|im_end|>")


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ bos_token }} nothing", "{% for m in %}"])
def test_templates_that_fail_say_so(source: str) -> None:
    with pytest.raises(ModelError) as e:
        template(source).render([Message("user", "hello")])
    assert "\n" not in str(e.value)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_raw_markers_round_trip(texts: list[str]) -> None:
    texts = [t.replace("\x00", "").replace("<", "") for t in texts]
    pieces = split_marks(mark_raw("<__media__>".join(texts), len(texts) - 1))
    assert [p for p in pieces if isinstance(p, int)] == list(range(len(texts) - 1))
    assert [p for p in pieces if isinstance(p, str)] == [t for t in texts if t]


@given(st.text(max_size=30), st.integers(0, 4))
def test_raw_markers_must_match(text: str, n: int) -> None:
    if text.count("<__media__>") != n:
        with pytest.raises(UsageError):
            mark_raw(text, n)
