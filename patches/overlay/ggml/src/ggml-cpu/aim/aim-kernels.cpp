// which kernels this CPU can run, asked of the CPU and its operating system when the program runs

#include "aim-kernels.h"

#include <cstring>

#if defined(AIM_HAVE_X86_KERNELS)

#include <immintrin.h>

#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

extern const aim_kernels aim_kernels_avx2, aim_kernels_avx512, aim_kernels_avx_vnni, aim_kernels_avx512_vnni, aim_kernels_amx;

struct registers { uint32_t a, b, c, d; };

static registers cpuid(uint32_t leaf, uint32_t sub) {
    registers r = {};
#if defined(_MSC_VER)
    int info[4];
    __cpuidex(info, (int) leaf, (int) sub);
    r = { (uint32_t) info[0], (uint32_t) info[1], (uint32_t) info[2], (uint32_t) info[3] };
#else
    if (__get_cpuid_max(0, nullptr) >= leaf) {
        __cpuid_count(leaf, sub, r.a, r.b, r.c, r.d);
    }
#endif
    return r;
}

// the registers that the operating system saves
static uint64_t saved_state() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t) high << 32) | low;
#endif
}

static bool amx_allowed() {
#if defined(__linux__)
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18; // Linux: Documentation/arch/x86/xstate.rst
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

struct cpu_features {
    bool avx2 = false, avx512 = false, avx_vnni = false, avx512_vnni = false, amx = false;

    cpu_features() {
        const registers one = cpuid(1, 0), seven = cpuid(7, 0), more = cpuid(7, 1);
        if (!(one.c >> 27 & 1)) { // OSXSAVE
            return;
        }
        const uint64_t saved = saved_state();
        avx2   = (saved & 0x06) == 0x06 && (seven.b >> 5 & 1) && (one.c >> 12 & 1);                               // and FMA
        avx512 = avx2 && (saved & 0xe6) == 0xe6 && (seven.b >> 16 & 1) && (seven.b >> 17 & 1) && (seven.b >> 30 & 1)
              && (seven.b >> 31 & 1);                                                                             // F, DQ, BW, VL
        avx_vnni    = avx2 && (more.a >> 4 & 1);
        avx512_vnni = avx512 && (seven.c >> 11 & 1);
        amx = avx512_vnni && (saved & 0x60000) == 0x60000 && (seven.d >> 24 & 1) && (seven.d >> 25 & 1) && (seven.d >> 22 & 1)
           && (more.a >> 5 & 1) && amx_allowed();                                                                 // tile, int8, bf16; AVX512-BF16
    }
};

const aim_kernels * aim_kernels_named(const char * name) {
    static const cpu_features cpu;
    const struct { const aim_kernels * kernels; bool usable; } all[] = {
        { &aim_kernels_amx, cpu.amx },           { &aim_kernels_avx512_vnni, cpu.avx512_vnni }, { &aim_kernels_avx_vnni, cpu.avx_vnni },
        { &aim_kernels_avx512, cpu.avx512 },     { &aim_kernels_avx2, cpu.avx2 },
    };
    for (const auto & each : all) {
        if (each.usable && (name == nullptr || strcmp(name, each.kernels->name) == 0)) {
            return each.kernels;
        }
    }
    return nullptr;
}

#else

const aim_kernels * aim_kernels_named(const char *) {
    return nullptr;
}

#endif

const aim_kernels * aim_kernels_best(void) {
    return aim_kernels_named(nullptr);
}

void aim_interleave(const uint8_t * rows, size_t k_bytes, uint8_t * dst) {
#if defined(AIM_HAVE_X86_KERNELS)
    for (size_t g = 0; g < k_bytes; g += 16) { // 4 groups of 4 rows at a time
        for (size_t r = 0; r < 16; r += 4) {
            __m128 x[4];
            for (size_t i = 0; i < 4; i++) {
                x[i] = _mm_loadu_ps((const float *) (rows + (r + i)*k_bytes + g));
            }
            _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
            for (size_t i = 0; i < 4; i++) {
                _mm_storeu_ps((float *) (dst + 16*(g + 4*i) + 4*r), x[i]);
            }
        }
    }
#else
    for (size_t g = 0; g < k_bytes; g += 4) {
        for (size_t r = 0; r < 16; r++) {
            memcpy(dst + 16*g + 4*r, rows + r*k_bytes + g, 4);
        }
    }
#endif
}
