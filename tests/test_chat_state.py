"""A conversation saved with its KV cache goes on as if it had never stopped; what cannot go on is told in one line."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from typer.testing import CliRunner

from aim_local import Chat, GenerateConfig, LoadConfig, VisionLLM, VisualTokenConfig
from aim_local.cli import _repl
from aim_local.cli._app import app
from aim_local.demo import held_out, write_clip
from aim_local.errors import AimError, ContextError, UsageError
from aim_local.models.tiles import TileTower
from aim_local.store.chat_file import ChatFileError, fingerprint, read_chat, write_chat
from aim_local.store.names import resolve

SHORT = GenerateConfig(max_tokens=6)
KINDS = {
    "plain": VisualTokenConfig.off(),
    "merged": VisualTokenConfig(prune_layers=None),
    "pruned": VisualTokenConfig(merge_retain=0.5),
    "budget": VisualTokenConfig.budget(0.4),
    "windows": VisualTokenConfig(merge_retain=0.2, merge_by="ward", merge_window=3),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(clip, folder / f"{i}.mp4") for i, clip in enumerate(held_out(2))]


@pytest.fixture(scope="module")
def llm() -> Any:
    with VisionLLM.load(config=LoadConfig(n_threads=1)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def saved(llm: VisionLLM, clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned conversation of one turn."""
    with llm.chat(KINDS["pruned"], generate=SHORT) as chat:
        chat.ask("What moves?", [clips[0]])
        return chat.save(tmp_path_factory.mktemp("saved") / "talk.aimchat")


def cache_of(chat: Chat, folder: Path) -> bytes:
    """The KV cache and its positions, of everything but the last token drawn."""
    return bytes(read_chat(chat.save(folder / "cache.aimchat")).state)


def one_line(error: pytest.ExceptionInfo[AimError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_as_without_saving(
    kind: str, kv: str, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same text and the same KV cache bit for bit, in another process's place: a model loaded again, the clip gone."""
    config = LoadConfig(type_k=kv, type_v=kv, n_threads=1)
    clip = shutil.copy(clips[0], tmp_path / "clip.mp4")
    with VisionLLM.load(config=config) as llm, llm.chat(KINDS[kind], "Be short.", SHORT) as chat:
        chat.ask("What moves?", [clip])
        chat.ask("And its colour?")
        chat.save(tmp_path / "talk.aimchat")
        n_used, messages = chat.used, chat.messages
        want = chat.ask("Where does it go?")
        want_cache = cache_of(chat, tmp_path)
    (tmp_path / "clip.mp4").unlink()
    monkeypatch.setattr(TileTower, "encode", None)
    with VisionLLM.load(config=config) as llm, llm.load_chat(tmp_path / "talk.aimchat") as chat:
        assert (chat.used, chat.messages, chat.system) == (n_used, messages, "Be short.")
        got = chat.ask("Where does it go?")
        assert (got.text, got.tokens) == (want.text, want.tokens)
        assert cache_of(chat, tmp_path) == want_cache
        assert got.stats.n_prompt == want.stats.n_prompt < 40  # the new turn alone


@pytest.mark.parametrize("kind", ["plain", "pruned", "budget"])
def test_new_media_after_a_restart(llm: VisionLLM, kind: str, clips: list[Path], tmp_path: Path) -> None:
    with llm.chat(KINDS[kind], generate=SHORT) as chat:
        chat.ask("What moves?", [clips[0]])
        chat.save(tmp_path / "talk.aimchat")
        want = chat.ask("And here?", [clips[1]])
        want_cache = cache_of(chat, tmp_path)
    with llm.load_chat(tmp_path / "talk.aimchat") as chat:
        got = chat.ask("And here?", [clips[1]])
        assert (got.text, got.stats.n_visual) == (want.text, want.stats.n_visual)
        assert got.stats.n_frames == want.stats.n_frames
        assert cache_of(chat, tmp_path) == want_cache
        chat.save(tmp_path / "again.aimchat")  # saved media and new media
    with llm.load_chat(tmp_path / "again.aimchat") as chat:
        assert [len(m["media"]) for m in chat.messages] == [1, 0, 1, 0]


@pytest.mark.parametrize("order", ["clip picture", "picture clip", "clip clip picture", "clip picture clip"])
@pytest.mark.parametrize("tokens", [None, VisualTokenConfig(merge_retain=0.5)])
def test_media_of_one_turn_in_any_order(
    llm: VisionLLM, clips: list[Path], order: str, tokens: VisualTokenConfig | None, tmp_path: Path
) -> None:
    """A prompt has pictures before clips, whatever order they were given in."""
    picture = tmp_path / "picture.png"
    PIL.Image.new("RGB", (64, 48), "teal").save(picture)
    media = [picture if kind == "picture" else clips[n % len(clips)] for n, kind in enumerate(order.split())]
    with llm.chat(tokens) as chat:
        chat.ask("What is it?", media)
        path = chat.save(tmp_path / "c.aimchat")
        expected = chat.ask("And?").text
    with llm.load_chat(path) as chat:
        assert chat.ask("And?").text == expected


def test_a_budget_is_planned_once(llm: VisionLLM, clips: list[Path]) -> None:
    """A later text turn computes its own tokens only; planned anew, the longer prompt would move the stages."""
    with llm.chat(KINDS["budget"], generate=SHORT) as chat:
        chat.ask("What moves?", [clips[0]])
        later = chat.ask("Tell me more about it, its colour, its shape, and where it goes in the end.")
        assert (later.stats.n_visual, later.stats.n_frames) == (0, 0)


def test_pictures_left_behind_are_not_made_up(llm: VisionLLM, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the stages would have to change, old media would be encoded again, of which only sizes are left."""
    with llm.load_chat(saved) as chat:
        chat.tokens = VisualTokenConfig.off()
        with pytest.raises(ContextError, match=r"0.mp4 would have to be encoded again.*start a new conversation"):
            chat.ask("And now?")
        chat.tokens = KINDS["pruned"]
        assert chat.ask("And now?").stats.n_visual == 0
        chat.reset()
        assert chat.ask("Hello").stats.n_generated > 0


def test_without_a_turn(llm: VisionLLM, tmp_path: Path) -> None:
    with llm.chat(system="Be short.", generate=replace(SHORT, seed=3, stop=("x",))) as chat:
        chat.save(tmp_path / "new.aimchat")
    with llm.load_chat(tmp_path / "new.aimchat") as chat:
        assert (chat.used, chat.system, chat.options) == (0, "Be short.", replace(SHORT, seed=3, stop=("x",)))
        assert chat.ask("Hello").stats.n_generated > 0


# --- what cannot go on ------------------------------------------------------------------------------------------------


def test_every_cut_is_told(llm: VisionLLM, saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    for n in (0, 5, 20, 51, 60, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.aimchat").write_bytes(data[:n])
        with pytest.raises(ChatFileError, match=r"cut short|no saved conversation") as e:
            llm.load_chat(tmp_path / "cut.aimchat")
        assert "cut.aimchat" in one_line(e)


@pytest.mark.parametrize("place", [10, 17, 30, 60, 300, -5])
def test_every_damage_is_told(llm: VisionLLM, saved: Path, tmp_path: Path, place: int) -> None:
    data = bytearray(saved.read_bytes())
    data[place] ^= 0x20
    (tmp_path / "bad.aimchat").write_bytes(data)
    with pytest.raises(ChatFileError, match=r"damaged|cut short|format") as e:
        llm.load_chat(tmp_path / "bad.aimchat")
    one_line(e)


def test_more_than_it_should_hold(llm: VisionLLM, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "long.aimchat").write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(ChatFileError, match="damaged"):
        llm.load_chat(tmp_path / "long.aimchat")


def test_a_newer_format(llm: VisionLLM, saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[8:12] = struct.pack("<I", 3)
    (tmp_path / "new.aimchat").write_bytes(data)
    with pytest.raises(ChatFileError, match=r"has format 3, this version reads 2; update aim-local"):
        llm.load_chat(tmp_path / "new.aimchat")


def test_a_header_from_elsewhere(llm: VisionLLM, saved: Path, tmp_path: Path) -> None:
    """Undamaged, and not what we write."""
    kept = read_chat(saved)
    del kept.header["messages"]
    write_chat(tmp_path / "odd.aimchat", kept.header, kept.state)
    with pytest.raises(ChatFileError, match="the header has no 'messages'") as e:
        llm.load_chat(tmp_path / "odd.aimchat")
    one_line(e)


def test_a_state_that_does_not_fit_is_refused_by_llama_cpp(llm: VisionLLM, saved: Path, tmp_path: Path) -> None:
    kept = read_chat(saved)
    kept.header["cache"]["shares"] = [1.0] * llm.text.n_layer
    write_chat(tmp_path / "odd.aimchat", kept.header, kept.state)
    with pytest.raises(AimError, match="does not fit") as e:
        llm.load_chat(tmp_path / "odd.aimchat")
    one_line(e)


def test_another_model(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(resolve().model.parent, tmp_path / "other")
    with (tmp_path / "other" / "model.gguf").open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(900))  # same size, same head, other weights
    (tmp_path / "other" / "aim.json").unlink()  # it would be told before
    with VisionLLM.load(tmp_path / "other") as other, pytest.raises(ChatFileError, match=r"was saved with demo") as e:
        other.load_chat(saved)
    assert "other" in one_line(e)


def test_another_vision_tower_is_named(saved: Path, tmp_path: Path) -> None:
    """Beside the same language model: not "saved with demo, the model here is demo"."""
    shutil.copytree(resolve().model.parent, tmp_path / "demo")
    paths = resolve(str(tmp_path / "demo"))
    assert paths.mmproj is not None
    with paths.mmproj.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(900))
    (tmp_path / "demo" / "aim.json").unlink()  # it would be told before
    with VisionLLM.load(paths.model, paths.mmproj) as other, pytest.raises(ChatFileError) as e:
        other.load_chat(saved)
    assert re.search(rf"was saved with the vision tower .*, the one here is {paths.mmproj}, .*mmproj=FILE", one_line(e))


def test_a_copy_of_the_model_is_the_model(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(resolve().model.parent, tmp_path / "copy")
    with VisionLLM.load(tmp_path / "copy", config=LoadConfig(n_threads=1)) as copy, copy.load_chat(saved) as chat:
        assert chat.ask("And now?").stats.n_visual == 0


def test_other_cache_types(saved: Path) -> None:
    config = LoadConfig(type_k="q8_0")
    with VisionLLM.load(config=config) as llm, pytest.raises(ChatFileError, match=r"type_k=f16 .*type_k=q8_0") as e:
        llm.load_chat(saved)
    one_line(e)


def test_a_context_of_few_tokens_is_rounded_up(saved: Path) -> None:
    """One that stays too small: tests/test_context_size.py."""
    with VisionLLM.load(config=LoadConfig(n_ctx=16)) as llm, llm.load_chat(saved) as chat:
        assert chat.n_ctx == 256


def test_names_and_places(llm: VisionLLM, tmp_path: Path) -> None:
    with llm.chat() as chat:
        with pytest.raises(UsageError, match=r"name it talk\.aimchat"):
            chat.save(tmp_path / "talk.bin")
        with pytest.raises(AimError, match="cannot be written"):
            chat.save(tmp_path / "none" / "talk.aimchat")
        with pytest.raises(ChatFileError, match="cannot be read"):
            llm.load_chat(tmp_path / "none.aimchat")
        with (
            llm.chat(replace(KINDS["pruned"], importance=lambda *_: [])) as own,
            pytest.raises(UsageError, match="call"),
        ):
            own.save(tmp_path / "talk.aimchat")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_file(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = shutil.copy(saved, tmp_path / "talk.aimchat")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(AimError, match="No space left"):
        write_chat(tmp_path / "talk.aimchat", {"model": {}}, bytearray(b"new"))
    assert [p.name for p in tmp_path.iterdir()] == ["talk.aimchat"]
    assert Path(path).read_bytes() == saved.read_bytes()


def test_the_layout(saved: Path) -> None:
    """Read with nothing of ours: magic, version 2, header length, sha256 of header and state."""
    data = saved.read_bytes()
    magic, version, n_header, digest = struct.unpack("<8sIQ32s", data[:52])
    assert (magic, version) == (b"AIMCHAT\n", 2)
    header = json.loads(data[52 : 52 + n_header])
    assert len(data) == 52 + n_header + header["n_state"]
    assert hashlib.sha256(data[52:]).digest() == digest
    assert header["model"]["fingerprints"][0] == fingerprint(resolve().model)
    assert header["media"][0]["shape"][0] == 8


# --- on the command line ----------------------------------------------------------------------------------------------


class Lines:
    def __init__(self, *lines: str) -> None:
        self.lines = [*lines, "/quit"]

    def read(self) -> str:
        return self.lines.pop(0)


def test_save_in_a_conversation(
    llm: VisionLLM, clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my talk.aimchat"
    with llm.chat(KINDS["pruned"], generate=SHORT) as chat:
        lines = Lines("What moves?", f"/save {path}", f"/save {tmp_path / 'talk.md'}", "/save")
        _repl.run(chat, llm.name, [clips[0]], stats=False, quiet=True, reader=lines)
        want = chat.ask("And its colour?").text
    said = capsys.readouterr().err
    assert f"go on with: aim-local chat --resume '{path}'" in said
    assert "talk.aimchat to go on later" in said
    assert (tmp_path / "talk.md").read_text().startswith("# Conversation")
    asked = ["chat", "--resume", str(path), "--threads", "1", "--max-tokens", "6", "-p", "And its colour?"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == want.strip()


def test_resume_takes_the_cache_types_of_the_file(clips: list[Path], tmp_path: Path) -> None:
    config = LoadConfig(type_k="q8_0", type_v="q8_0", flash_attn=True, n_threads=1)
    with VisionLLM.load(config=config) as llm, llm.chat(generate=SHORT) as chat:
        chat.ask("What moves?", [clips[0]])
        path = str(chat.save(tmp_path / "talk.aimchat"))
    result = CliRunner().invoke(app, ["chat", "--resume", path, "-p", "And its colour?"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--tokens", "off"], 2, "--tokens: the saved conversation settles that"),
        (["--system", "x", "--keep", "0.5"], 2, "--keep, --system"),
        (["--merge", "ward", "--window", "2", "--weigh", "size"], 2, "--merge, --window, --weigh: the saved"),
        (["--type-k", "q8_0"], 1, "its KV cache was made with --type-k f16"),
    ],
)
def test_resume_refuses(saved: Path, arguments: list[str], code: int, words: str) -> None:
    result = CliRunner().invoke(app, ["chat", "--resume", str(saved), "-p", "x", *arguments])
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
