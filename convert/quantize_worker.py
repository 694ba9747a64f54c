"""The child process of quantize.py: one call of llama_model_quantize, its progress as lines on stdout.

A process of its own because that call cannot be interrupted, and because a failed assertion in C++ ends the process.
"""

import ctypes
import importlib
import re
import sys
from typing import Any

from aim_local.errors import AimError

PROGRESS = "@"
STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")
LOG_ERROR = 4  # ggml_log_level


def bindings() -> Any:
    """llama_cpp's bindings on our own library, or on the configured one where ours is not built."""
    try:
        return importlib.import_module("aim_local.native.library").llama
    except (ImportError, AimError):
        return importlib.import_module("llama_cpp.llama_cpp")


def say(level: int, text: bytes, _: object) -> None:
    """Pass on progress and errors, drop the rest."""
    line = text.decode("utf-8", "replace")
    if step := STEP.search(line):
        print(PROGRESS, *step.groups(), flush=True)
    elif level == LOG_ERROR:
        print(line.strip(), flush=True)


def main(src: str, dst: str, file_type: str, n_threads: str) -> int:
    llama = bindings()
    # typedef void (*ggml_log_callback)(enum ggml_log_level level, const char * text, void * user_data);
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(say)
    llama.llama_log_set(callback, None)
    params = llama.llama_model_quantize_default_params()
    params.ftype = int(file_type)
    params.nthread = int(n_threads)
    return int(llama.llama_model_quantize(src.encode(), dst.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
