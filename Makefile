# aim-local: set up once, then demo, test, lint, and the work on the llama.cpp patches.
# CMAKE_ARGS="-DGGML_CUDA=ON" make demo   passes any ggml option to the one C++ build.

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
LLAMA  := $(shell sed -n 's/^version //p' patches/VERSION)
BUILD  = $(firstword $(wildcard build/cp*))/upstream

.PHONY: demo test lint llama apply refresh check sanitize bench clean

# bindings alone first (LLAMA_BUILD=OFF), so that C++ is compiled once, by us
$(VENV)/.base: pyproject.toml patches/VERSION
	$(PYTHON) -m venv $(VENV)
	CMAKE_ARGS="-DLLAMA_BUILD=OFF" $(BIN)/pip install -q llama-cpp-python==$(LLAMA)
	$(BIN)/pip install -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -e ".[convert,test]"
	touch $@

demo: $(VENV)/.base
	$(BIN)/python -m aim_local.demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# after editing patches/: compile what changed and install it
llama: $(VENV)/.base
	$(BIN)/pip install -q -e .

apply: $(VENV)/.base
	$(BIN)/python patches/upstream.py apply --out $(BUILD)

refresh: $(VENV)/.base
	$(BIN)/python patches/upstream.py refresh --out $(BUILD)

check: $(VENV)/.base
	$(BIN)/python patches/upstream.py check --out $(BUILD)

# our C++ under address and undefined-behaviour sanitizers, on the tests that compare it with other implementations
SANITIZED := tests/test_staged.py tests/test_visual_tokens.py tests/test_pruning.py tests/test_foreign.py
sanitize: $(VENV)/.test
	$(BIN)/cmake -S patches -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DAIM_SANITIZE=ON \
	    -DCMAKE_BUILD_TYPE=Release -DPython3_EXECUTABLE=$(abspath $(BIN))/python
	$(BIN)/cmake --build build/sanitize
	AIM_LOCAL_LIB=build/sanitize/bin LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/python -m pytest $(SANITIZED)

# STOCK=FOLDER with unpatched libraries of the same version pairs the prefill with them
bench: $(VENV)/.test
	$(BIN)/python benchmarks/stages.py
	$(BIN)/python benchmarks/held_out.py
	$(BIN)/python benchmarks/settings.py
	$(BIN)/python benchmarks/convert_memory.py
	test -f build/random-0.5b.gguf || $(BIN)/python benchmarks/random_gguf.py 0.5b build/random-0.5b.gguf
	$(BIN)/python benchmarks/prefill.py build/random-0.5b.gguf $(if $(STOCK),--stock $(STOCK))

clean:
	rm -rf build $(VENV)
