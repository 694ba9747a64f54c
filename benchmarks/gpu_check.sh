#!/usr/bin/env bash
# What aim-local does on this machine's NVIDIA GPU: build with CUDA for this card only, the CPU's results beside the
# GPU's, one table of times, and our tests with every model on the GPU. Each step has a time limit; none stops the rest.
#
#   benchmarks/gpu_check.sh FOLDER        builds in FOLDER/cmake, writes FOLDER/gpu-check.log; about 12 minutes on 16 cores
#
# PYTHON (python3): has our dependencies, torch, transformers, pytest. CUDA=OFF rehearses every step without a GPU;
# SKIP_BUILD=1 takes the libraries that are there. SHAPE, FRAMES, CLIPS, SEEDS: of a shorter run; *_LIMIT: seconds of a step.
set -u -o pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:?name a folder for the build and the log}" && out=$(cd "$1" && pwd)
python=${PYTHON:-python3}
cuda=${CUDA:-ON}
log=$out/gpu-check.log
package=$out/python/aim_local
export PYTHONUNBUFFERED=1
cd "$root" || exit 1
exec > >(tee "$log") 2>&1

step() { # step SECONDS NAME COMMAND...
    local limit=$1 name=$2 start=$SECONDS status=0
    shift 2
    echo
    echo "== $name (at most $limit s)"
    timeout --signal=INT --kill-after=10 "$limit" "$@" || status=$?
    echo "== $name: exit status $status after $((SECONDS - start)) s"
    return "$status"
}

machine() {
    echo "aim-local $(git -C "$root" log -1 --format='%h %ad' --date=short 2>/dev/null), $(grep version patches/VERSION)"
    grep -m1 'model name' /proc/cpuinfo; echo "cores: $(nproc)"; uname -sr
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv 2>&1
    nvcc --version 2>&1 | grep release
    c++ --version | head -1; cmake --version | head -1; "$python" --version
}

build() {
    # for this card only, and without the kernels for mixed cache types: the other kernels take minutes as it is
    cmake -S patches -B "$out/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA="$cuda" \
        -DCMAKE_CUDA_ARCHITECTURES=native -DGGML_CUDA_FA_ALL_QUANTS=OFF -DGGML_CUDA_FORCE_CUBLAS=OFF \
        -DGGML_CUDA_NCCL=OFF -DPython3_EXECUTABLE="$(command -v "$python")" > "$out/configure.log" 2>&1 ||
        { tail -40 "$out/configure.log"; return 1; }
    grep -iE 'cuda|ccache|architect' "$out/configure.log"
    cmake --build "$out/cmake" > "$out/build.log" 2>&1 || { grep -m5 -A8 -E 'FAILED|error' "$out/build.log"; return 1; }
    cmake --install "$out/cmake" --component aim_local --prefix "$out/python" > /dev/null
}

# the package as an installation lays it out, of links into the source folder
lay_out() {
    local source
    mkdir -p "$package"
    for source in aim_local/* cli convert; do ln -sfn "$root/$source" "$package/$(basename "$source")"; done
    echo 'from aim_local.cli import main; main()' > "$out/aim-local"
}

# a compiler that links libstdc++ into each library makes libraries that crash beside Python packages that bring another
check_libstdcxx() {
    local file=$AIM_LOCAL_LIB/libggml-cuda.so
    [ -f "$file" ] && [ -z "${SKIP_BUILD:-}" ] && ! ldd "$file" | grep -q 'libstdc++' || return 0
    echo "libggml-cuda.so has libstdc++ linked into it (CXX=${CXX:-}): results would be crashes; try CC=gcc CXX=g++"
    return 1
}

# an installed toolkit is in the loader's cache; one that is only unpacked is not
find_toolkit() {
    if ! "$python" -c 'import aim_local.native.library' 2> "$out/load.log"; then
        echo "does not load as it is: $(tail -1 "$out/load.log")"
        LD_LIBRARY_PATH=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")/lib64:${LD_LIBRARY_PATH:-}
        export LD_LIBRARY_PATH
        echo "so LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
    fi
}

export -f machine build
export root out python cuda
step 20 machine bash -c machine
if [ -z "${SKIP_BUILD:-}" ]; then
    step "${BUILD_LIMIT:-420}" build bash -c build || exit 1
fi
lay_out
export PYTHONPATH=$out/python:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}
export AIM_LOCAL_LIB=$package/lib
check_libstdcxx || exit 1
find_toolkit
ls -l "$AIM_LOCAL_LIB"
step 30 doctor "$python" "$out/aim-local" doctor
bench=(bench --tokens off,paper --shape "${SHAPE:-0.5b}" --frames "${FRAMES:-32}")
step "${BENCH_LIMIT:-120}" "bench on the GPU" "$python" "$out/aim-local" "${bench[@]}" --gpu-layers -1
step "${BENCH_LIMIT:-120}" "bench on the CPU, the GPU hidden" \
    env CUDA_VISIBLE_DEVICES=-1 "$python" "$out/aim-local" "${bench[@]}" --skip-vision --rounds 1
step "${PARITY_LIMIT:-300}" parity "$python" benchmarks/gpu_parity.py --out "$out/parity" --clips "${CLIPS:-8}" --seeds "${SEEDS:-6}"
together=$("$python" -c 'import xdist; print("-n 4")' 2> /dev/null)
step "${TESTS_LIMIT:-150}" "tests with every model on the GPU" "$python" -P -m pytest -p gpu_tests $together -q -rf --tb=line -p no:cacheprovider \
    tests/test_staged_parity.py tests/test_staged_context.py tests/test_staged_select.py tests/test_staged_rerank.py tests/test_stop.py \
    tests/test_pruning.py tests/test_merging.py tests/test_parity.py tests/test_parity_video.py tests/test_chat.py \
    tests/test_chat_state.py
echo "log: $log"
