#!/usr/bin/env bash
# What aim-local does on a device: build for it, the CPU's results beside the device's, and our tests with every model on
# it. Each step has a time limit; only a failed build stops the rest. The exit status is 1 when a step failed.
#
#   benchmarks/gpu_check.sh cuda FOLDER     this machine's NVIDIA GPU, built for this card only, with a table of times;
#                                           about 12 minutes on 16 cores
#   benchmarks/gpu_check.sh vulkan FOLDER   Mesa's Vulkan device that computes on the CPU (lavapipe): the device path
#                                           without a device. It is for right or wrong, its times mean nothing
#
# Builds in FOLDER/cmake, writes FOLDER/gpu-check.log. "--missing" for FOLDER only says what is not installed.
# PYTHON (python3): has our dependencies, torch, transformers, pytest. CUDA=OFF rehearses every step without a GPU;
# SKIP_BUILD=1 takes the libraries that are there. SHAPE, FRAMES, CLIPS, SEEDS: of a shorter run; *_LIMIT: seconds of a step.
set -u -o pipefail

usage="usage: gpu_check.sh cuda|vulkan FOLDER"
root=$(cd "$(dirname "$0")/.." && pwd)
backend=${1:?$usage}
folder=${2:?$usage}
python=${PYTHON:-python3}
lavapipe=$(find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' 2> /dev/null | head -1)
failed=""

case $backend in
    cuda)
        declare -A limits=([build]=420 [parity]=300 [tests]=150)
        clips=${CLIPS:-8} seeds=${SEEDS:-6}
        # the kernels for mixed cache types are left out: the other kernels take minutes as it is
        options=(-DGGML_CUDA="${CUDA:-ON}" -DCMAKE_CUDA_ARCHITECTURES=native -DGGML_CUDA_FA_ALL_QUANTS=OFF
            -DGGML_CUDA_FORCE_CUBLAS=OFF -DGGML_CUDA_NCCL=OFF) ;;
    vulkan)
        declare -A limits=([build]=3600 [parity]=7200 [tests]=7200)
        clips=${CLIPS:-2} seeds=${SEEDS:-6} # one row at a time through the demo model: half a minute for each prompt
        options=(-DGGML_VULKAN=ON -DAIM_LAVAPIPE=ON)
        # a CPU's device is taken only when it is named; no other driver than Mesa's is loaded, so it is number 0
        export VK_ICD_FILENAMES=$lavapipe GGML_VK_VISIBLE_DEVICES=0 ;;
    *) echo "$usage" >&2; exit 2 ;;
esac

# what building and running on Mesa's Vulkan device takes, by the names of Debian's packages
missing_packages() {
    command -v glslc > /dev/null || echo glslc
    echo '#include <vulkan/vulkan.hpp>' | c++ -E -x c++ - > /dev/null 2>&1 || echo libvulkan-dev
    echo '#include <spirv/unified1/spirv.hpp>' | c++ -E -x c++ - > /dev/null 2>&1 || echo spirv-headers
    [ -n "$lavapipe" ] || echo mesa-vulkan-drivers
}

if [ "$backend" = vulkan ]; then
    missing=$(missing_packages | xargs)
    [ -z "$missing" ] || { echo "error: not installed: $missing; on Debian: apt install $missing" >&2; exit 1; }
fi
[ "$folder" != --missing ] || exit 0
mkdir -p "$folder" && out=$(cd "$folder" && pwd)
log=$out/gpu-check.log
package=$out/python/aim_local
export PYTHONUNBUFFERED=1 MESA_SHADER_CACHE_DIR=$out/shaders
cd "$root" || exit 1
exec > >(tee "$log") 2>&1

step() { # step SECONDS NAME COMMAND...
    local limit=$1 name=$2 start=$SECONDS status=0
    shift 2
    echo
    echo "== $name (at most $limit s)"
    timeout --signal=INT --kill-after=10 "$limit" "$@" || status=$?
    echo "== $name: exit status $status after $((SECONDS - start)) s"
    [ "$status" = 0 ] || failed="$failed; $name"
    return "$status"
}

machine() {
    echo "aim-local $(git -C "$root" log -1 --format='%h %ad' --date=short 2>/dev/null), $(grep version patches/VERSION)"
    grep -m1 'model name' /proc/cpuinfo; echo "cores: $(nproc)"; uname -sr
    case $backend in
        cuda)
            nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv 2>&1
            nvcc --version 2>&1 | grep release ;;
        vulkan)
            glslc --version | head -3
            dpkg-query -W mesa-vulkan-drivers libvulkan-dev 2> /dev/null ;;
    esac
    c++ --version | head -1; cmake --version | head -1; "$python" --version
}

build() {
    cmake -S patches -B "$out/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" \
        -DPython3_EXECUTABLE="$(command -v "$python")" > "$out/configure.log" 2>&1 ||
        { tail -40 "$out/configure.log"; return 1; }
    grep -iE 'cuda|vulkan|ccache|architect' "$out/configure.log"
    cmake --build "$out/cmake" > "$out/build.log" 2>&1 || { grep -m5 -A8 -E 'FAILED|error' "$out/build.log"; return 1; }
    cmake --install "$out/cmake" --component aim_local --prefix "$out/python" > /dev/null
}

# the package as an installation lays it out, of links into the source folder; stored rows and reports name its version
lay_out() {
    local source version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
    mkdir -p "$package" "$out/python/aim_local-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: aim-local\nVersion: %s\n' "$version" \
        > "$out/python/aim_local-$version.dist-info/METADATA"
    for source in aim_local/* cli convert; do ln -sfn "$root/$source" "$package/$(basename "$source")"; done
    echo 'from aim_local.cli import main; main()' > "$out/aim-local"
}

# a compiler that links libstdc++ into each library makes libraries that crash beside Python packages that bring another
check_libstdcxx() {
    local file=$AIM_LOCAL_LIB/libggml-$backend.so
    [ -f "$file" ] && [ -z "${SKIP_BUILD:-}" ] && ! ldd "$file" | grep -q 'libstdc++' || return 0
    echo "libggml-$backend.so has libstdc++ linked into it (CXX=${CXX:-}): results would be crashes; try CC=gcc CXX=g++"
    return 1
}

# an installed CUDA toolkit is in the loader's cache; one that is only unpacked is not
find_toolkit() {
    if ! "$python" -c 'import aim_local.native.library' 2> "$out/load.log"; then
        echo "does not load as it is: $(tail -1 "$out/load.log")"
        LD_LIBRARY_PATH=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")/lib64:${LD_LIBRARY_PATH:-}
        export LD_LIBRARY_PATH
        echo "so LD_LIBRARY_PATH=$LD_LIBRARY_PATH"
    fi
}

# tests LIMIT NAME ENVIRONMENT... -- FILES...: with every model on the device
tests() {
    local limit=$1 name=$2 environment=() together
    shift 2
    while [ "$1" != -- ]; do environment+=("$1"); shift; done
    together=$("$python" -c 'import xdist; print("-n 4")' 2> /dev/null)
    step "$limit" "$name" env "${environment[@]}" "$python" -P -m pytest -p gpu_tests ${together:+$together} -q -s -rf \
        -m "" --tb=line -p no:cacheprovider "${@:2}"
}

export -f machine build
export root out python backend
step 20 machine bash -c machine
if [ -z "${SKIP_BUILD:-}" ]; then
    step "${BUILD_LIMIT:-${limits[build]}}" build bash -c 'build "$@"' build "${options[@]}" || exit 1
fi
lay_out
export PYTHONPATH=$out/python:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}
export AIM_LOCAL_LIB=$package/lib
check_libstdcxx || exit 1
[ "$backend" != cuda ] || find_toolkit
ls -l "$AIM_LOCAL_LIB"
step 60 doctor "$python" "$out/aim-local" doctor
if [ "$backend" = cuda ]; then
    bench=(bench --tokens off,paper --shape "${SHAPE:-0.5b}" --frames "${FRAMES:-32}")
    step "${BENCH_LIMIT:-120}" "bench on the GPU" "$python" "$out/aim-local" "${bench[@]}" --gpu-layers -1
    step "${BENCH_LIMIT:-120}" "bench on the CPU, the GPU hidden" \
        env CUDA_VISIBLE_DEVICES=-1 "$python" "$out/aim-local" "${bench[@]}" --skip-vision --rounds 1
fi
step "${PARITY_LIMIT:-${limits[parity]}}" parity \
    "$python" benchmarks/gpu_parity.py --out "$out/parity" --clips "$clips" --seeds "$seeds"

on_device=(tests/test_staged_parity.py tests/test_staged_context.py tests/test_staged_select.py
    tests/test_staged_rerank.py tests/test_pruning.py tests/test_merging.py tests/test_parity.py
    tests/test_parity_video.py tests/test_chat.py tests/test_chat_state.py tests/test_gpu.py)
[ "$backend" = vulkan ] || on_device+=(tests/test_stop.py) # prompts of 900 rows, which take Mesa's device very long
limit=${TESTS_LIMIT:-${limits[tests]}}
# faults: no limit is widened. CUDA has no such switch for all of its kernels, the vision tower has none on Vulkan
if [ "$backend" = vulkan ]; then
    tests "$limit" "staged prefill in float32" GGML_VK_DISABLE_F16=1 AIM_TEST_ROWS=1 -- tests/test_staged_parity.py
fi
tests "$limit" "tests on the device" AIM_TEST_ARITHMETIC=float16 -- "${on_device[@]}"
echo
echo "log: $log"
[ -z "$failed" ] || { echo "failed: ${failed#; }"; exit 1; }
echo "nothing failed"
