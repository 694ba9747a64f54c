"""llama.cpp's quantiser: one call that cannot be interrupted, so whoever wants to stop it runs it in a process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from .callbacks import as_callback, reraise
from .library import llama

LOG_ERROR = 4  # ggml_log_level


def quantize_file(source: str, target: str, file_type: int, n_threads: int, say: Callable[[int, str], None]) -> int:
    """Writes `source` as `target` in a llama_ftype; returns llama.cpp's status. say: each log line with its level."""

    def on_log(level: int, text: bytes, _user_data: Any) -> None:
        say(level, text.decode("utf-8", "replace"))

    callback = as_callback(llama.llama_log_callback, on_log)
    llama.llama_log_set(callback, None)
    params = llama.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = n_threads
    status = int(llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)))
    reraise()
    return status
