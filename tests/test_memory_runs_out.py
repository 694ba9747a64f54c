"""Memory that is refused inside llama.cpp, and whatever else it throws: one line, and the process goes on."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from fuzz import target as targets
from fuzz.faults import library, read
from fuzz.outcome import REFUSED
from fuzz.process import Child, own_state
from thorough import few

from aim_local.errors import NativeError
from aim_local.native.library import GUARDED, LLAMA
from aim_local.native.llama import LlamaModel
from aim_local.store.names import resolve

NATIVE = Path(__file__).parents[1] / "aim_local" / "native"
# they free, or read what is there
CANNOT_THROW = {
    "llama_free", "llama_model_free", "llama_sampler_free", "mtmd_free", "mtmd_bitmap_free", "mtmd_input_chunks_free",
    "llama_context_default_params", "llama_model_default_params", "llama_model_quantize_default_params",
    "llama_sampler_chain_default_params", "mtmd_context_params_default", "llama_batch_get_one", "llama_get_memory",
    "llama_log_get", "llama_log_set", "mtmd_log_set", "mtmd_helper_log_set",
    "llama_memory_seq_pos_max", "llama_memory_seq_pos_min",
    "llama_model_get_vocab", "llama_model_is_hybrid", "llama_model_is_recurrent", "llama_model_n_ctx_train",
    "llama_model_n_embd_inp", "llama_model_n_layer", "llama_model_n_swa", "llama_n_batch", "llama_n_ctx",
    "llama_vocab_bos", "llama_vocab_eos", "llama_vocab_get_add_bos", "llama_vocab_get_add_eos",
    "llama_vocab_get_attr", "llama_vocab_is_eog",
    "llama_vocab_n_tokens", "llama_vocab_type", "mtmd_bitmap_set_mergeable", "mtmd_decode_use_mrope",
    "mtmd_decode_use_non_causal",
    "mtmd_get_output_embd", "mtmd_input_chunk_get_tokens_text", "mtmd_input_chunk_get_type", "mtmd_input_chunks_get",
    "mtmd_input_chunks_size", "mtmd_support_vision",
}  # fmt: skip
TYPES = {"llama_batch", "llama_pos", "llama_token_data_array", "llama_token_data", "mtmd_input_text"}
TYPES |= {"llama_log_callback", "llama_progress_callback", "mtmd_helper_post_decode_callback", "llama_context_params"}
TYPES |= {"mtmd_bitmap_p_ctypes", "llama_sampler_p_ctypes"}


def test_all_that_may_throw_is_guarded() -> None:
    paths = [path for path in NATIVE.glob("*.py") if path.name != "stock.py"]  # another library's
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    used = set(re.findall(r"(?<![\w.])(?:llama|mtmd)\.((?:llama|mtmd)_\w+)", text))
    assert used - TYPES == GUARDED | CANNOT_THROW


# the n-th allocation of 16 KiB or more, of those that taking up a saved chat makes: ggml_init, the scheduler's arrays,
# std::vector, the allocator's hash table, the KV cache's buffer
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs glibc and a C compiler")
@pytest.mark.parametrize("step", few([3, 1], 1))
def test_no_memory_is_one_line(tmp_path: Path, step: int) -> None:
    given = {**own_state(tmp_path), "LD_PRELOAD": str(library(tmp_path)), "AIM_FAULT_OPERATIONS": "load"}
    with Child("_faults", tmp_path / "child", 0, targets.load("_faults").memory_mib, given=given) as child:
        for n in (10, 14, 15, 19, 31, 37, 44)[::step]:
            outcome = read(child, f"load malloc {n} 12")
            assert outcome.kind == REFUSED, (n, outcome)
            assert "memory" in outcome.told.lower(), (n, outcome)


@pytest.fixture(scope="module")
def model() -> LlamaModel:
    return LlamaModel(resolve().model, 0)


def test_what_else_is_thrown_is_a_line_too(model: LlamaModel) -> None:
    with pytest.raises(NativeError, match=r"^llama\.cpp failed in llama_token_to_piece: [^\n]+$"):
        model.piece(10**9)
    assert model.piece(1) is not None
    assert LLAMA.text() == ""
