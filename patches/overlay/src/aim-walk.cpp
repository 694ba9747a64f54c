#include "aim-walk.h"

#include "aim-cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define AIM_WALK_X86

#include <immintrin.h>

#if defined(__x86_64__)
#define AIM_WALK_AMX

#define AIM_TARGET    __attribute__((target("avx512f,avx512bw,avx512vl,fma")))
#define AIM_NAMESPACE aim_walk_amx
#define AIM_PRODUCTS  "aim-walk-amx.h"
#define AIM_WIDTH     16
#define AIM_VECS      2
#include "aim-walk-kernel.h"
#undef AIM_TARGET
#undef AIM_NAMESPACE
#undef AIM_PRODUCTS
#undef AIM_WIDTH
#undef AIM_VECS
#endif

#define AIM_PRODUCTS  "aim-walk-float.h"
#define AIM_VECS      3

#define AIM_TARGET    __attribute__((target("avx512f,fma")))
#define AIM_NAMESPACE aim_walk_avx512
#define AIM_WIDTH     16
#define AIM_ROWS      8
#include "aim-walk-kernel.h"
#undef AIM_TARGET
#undef AIM_NAMESPACE
#undef AIM_WIDTH
#undef AIM_ROWS

#define AIM_TARGET    __attribute__((target("avx2,fma")))
#define AIM_NAMESPACE aim_walk_avx2
#define AIM_WIDTH     8
#define AIM_ROWS      4
#include "aim-walk-kernel.h"
#undef AIM_TARGET
#undef AIM_NAMESPACE
#undef AIM_WIDTH
#undef AIM_ROWS
#else
#define AIM_PRODUCTS  "aim-walk-float.h"
#define AIM_VECS      3
#endif

// SSE2, NEON and whatever else has vectors of four; single floats where the compiler has no vector types
#define AIM_TARGET
#define AIM_NAMESPACE aim_walk_plain
#if defined(__GNUC__)
#define AIM_WIDTH 4
#else
#define AIM_WIDTH 1
#endif
#if defined(__aarch64__)
#define AIM_ROWS 8 // 32 registers
#else
#define AIM_ROWS 4
#endif
#include "aim-walk-kernel.h"

#if defined(AIM_WALK_AMX)
// the CPU backend has asked the operating system for the tiles
static bool has_amx() {
    const auto info = aim_cpu_function<aim_kernels_info_t>("aim_kernels_info");

    return info && strcmp(info(), "amx") == 0;
}
#endif

#if defined(AIM_WALK_X86)
static bool has_avx512() { return __builtin_cpu_supports("avx512f"); }
static bool has_avx2()   { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif
static bool has_plain()  { return true; }

// best first
static const aim_walk_kernel kernels[] = {
#if defined(AIM_WALK_AMX)
    { "amx",    has_amx,    aim_walk_amx   ::n_cols, aim_walk_amx   ::n_packed, aim_walk_amx   ::pack, aim_walk_amx   ::run },
#endif
#if defined(AIM_WALK_X86)
    { "avx512", has_avx512, aim_walk_avx512::n_cols, aim_walk_avx512::n_packed, aim_walk_avx512::pack, aim_walk_avx512::run },
    { "avx2",   has_avx2,   aim_walk_avx2  ::n_cols, aim_walk_avx2  ::n_packed, aim_walk_avx2  ::pack, aim_walk_avx2  ::run },
#endif
    { "plain",  has_plain,  aim_walk_plain ::n_cols, aim_walk_plain ::n_packed, aim_walk_plain ::pack, aim_walk_plain ::run },
};

const aim_walk_kernel * aim_walk_get_kernel(const char * name) {
    for (const aim_walk_kernel & kernel : kernels) {
        if ((!name || strcmp(name, kernel.name) == 0) && kernel.is_supported()) {
            return &kernel;
        }
    }

    return nullptr;
}

std::string aim_walk_kernel_names() {
    std::string res;

    for (const aim_walk_kernel & kernel : kernels) {
        if (kernel.is_supported()) {
            res += (res.empty() ? "" : " ") + std::string(kernel.name);
        }
    }

    return res;
}

int64_t aim_walk_n_panels(const aim_walk_kernel & kernel, const aim_walk & w) {
    return (w.n_k + kernel.n_cols - 1)/kernel.n_cols;
}

size_t aim_walk_n_packed(const aim_walk_kernel & kernel, const aim_walk & w) {
    return size_t(aim_walk_n_panels(kernel, w))*kernel.n_cols*kernel.n_packed(w.n_embd_head);
}

size_t aim_walk_n_work(const aim_walk_kernel & kernel, const aim_walk & w) {
    const size_t n_q = (w.n_q + AIM_WALK_BLOCK - 1)/AIM_WALK_BLOCK*AIM_WALK_BLOCK;

    // steps, queries of a block, scores of a block
    return (AIM_WALK_STEPS + 1)*n_q + AIM_WALK_BLOCK*(kernel.n_packed(w.n_embd_head) + aim_walk_n_panels(kernel, w)*kernel.n_cols);
}

std::vector<float> aim_walk_pad(const aim_walk_kernel & kernel, const aim_walk & w, const float * bias) {
    std::vector<float> res(aim_walk_n_panels(kernel, w)*kernel.n_cols);

    if (bias) {
        std::copy_n(bias, w.n_k, res.begin());
    }

    return res;
}

void aim_walk_run(const aim_walk_kernel & kernel, const aim_walk & w, const float * keys, float * p) {
    const aim_walk_flush flush;

    const int64_t n_row = w.n_head_kv*w.n_embd_head;

    std::vector<float> packed(aim_walk_n_packed(kernel, w));
    std::vector<float> work  (aim_walk_n_work  (kernel, w));

    for (int64_t h = 0; h < w.n_head; ++h) {
        const float * k = keys + h/(w.n_head/w.n_head_kv)*w.n_embd_head;

        for (int64_t j = 0; j < w.n_k; j += kernel.n_cols) {
            kernel.pack(w, k + j*n_row, n_row, std::min(kernel.n_cols, w.n_k - j), packed.data() + j*kernel.n_packed(w.n_embd_head));
        }

        kernel.run(w, h, packed.data(), work.data(), p + h*w.n_q, [](void *) { return true; }, nullptr);
    }
}

aim_walk_flush::aim_walk_flush() {
#if defined(AIM_WALK_X86)
    mode = _mm_getcsr();
    _mm_setcsr(mode | _MM_FLUSH_ZERO_ON | 0x0040); // and denormal inputs
#endif
}

aim_walk_flush::~aim_walk_flush() {
#if defined(AIM_WALK_X86)
    _mm_setcsr(mode);
#endif
}
