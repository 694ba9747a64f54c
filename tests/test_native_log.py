"""What the libraries log: each thread keeps its own error lines."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from aim_local.native import log
from aim_local.native.library import llama, mtmd


def load_nothing(path: Path) -> None:
    assert not llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())


def test_threads_do_not_mix_their_errors(tmp_path: Path) -> None:
    found: dict[str, str] = {}
    both = threading.Barrier(2)

    def work(name: str) -> None:
        log.clear()
        both.wait()  # both have cleared before either fails
        load_nothing(tmp_path / name)
        both.wait()  # both have failed before either asks
        found[name] = log.last_error()

    threads = [threading.Thread(target=work, args=(f"{name}.gguf",)) for name in ("one", "two")]
    log.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "one.gguf" in found["one.gguf"]
    assert "two.gguf" in found["two.gguf"]
    assert log.last_error("none") == "none"


def test_clear_forgets(tmp_path: Path) -> None:
    load_nothing(tmp_path / "no.gguf")
    assert "no.gguf" in log.last_error()
    log.clear()
    assert log.last_error("none") == "none"


def test_the_callback_is_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's setters are not for several threads: one that sets it again is a race with all that log."""
    log.clear()
    for functions, name in ((llama, "llama_log_set"), (mtmd, "mtmd_log_set"), (mtmd, "mtmd_helper_log_set")):
        monkeypatch.setattr(functions, name, lambda *_: pytest.fail("set again"))
    log.clear()


def test_another_programs_callback_is_replaced(tmp_path: Path) -> None:
    other = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(other, None)
    load_nothing(tmp_path / "unheard.gguf")
    assert "unheard" not in log.last_error()
    log.clear()
    load_nothing(tmp_path / "heard.gguf")
    assert "heard.gguf" in log.last_error()
