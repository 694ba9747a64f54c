// the product with vectors of 256 or 512 bits, with VNNI or without; same rules as aim-simd.h
#pragma once

#define AIM_ROW_FLIP 0x80 // VNNI multiplies unsigned by signed bytes: A has 128 added, which the sums of B take off again
#include "aim-rows.h"
#include "aim-unpack-simd.h"

#if defined(AIM_WITH_VNNI)
constexpr bool with_vnni = true;
#else
constexpr bool with_vnni = false;
#endif

#if defined(__AVX512F__)

typedef __m512i acc_t;
constexpr int N_REGS = 1, MAX_ROWS = 8, MAX_BLOCKS = 3; // registers per column block; 24 accumulators of 32 registers
static inline acc_t i_load(const void * p)      { return _mm512_loadu_si512(p); }
static inline void  i_store(void * p, acc_t a)  { _mm512_storeu_si512(p, a); }
static inline acc_t i_set(int32_t a)            { return _mm512_set1_epi32(a); }
static inline acc_t i_mul(acc_t a, acc_t b)     { return _mm512_mullo_epi32(a, b); }
static inline acc_t dot_i16(acc_t c, acc_t a, acc_t b) {
#if defined(AIM_WITH_VNNI)
    return _mm512_dpwssd_epi32(c, a, b);
#else
    return _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
#endif
}
static inline acc_t dot_i8(acc_t c, acc_t a, acc_t b) {
#if defined(AIM_WITH_VNNI)
    return _mm512_dpbusd_epi32(c, a, b);
#else
    (void) a; (void) b;
    return c;
#endif
}

#else

typedef __m256i acc_t;
constexpr int N_REGS = 2, MAX_ROWS = 6, MAX_BLOCKS = 1; // 12 accumulators of 16 registers
static inline acc_t i_load(const void * p)      { return _mm256_loadu_si256((const __m256i *) p); }
static inline void  i_store(void * p, acc_t a)  { _mm256_storeu_si256((__m256i *) p, a); }
static inline acc_t i_set(int32_t a)            { return _mm256_set1_epi32(a); }
static inline acc_t i_mul(acc_t a, acc_t b)     { return _mm256_mullo_epi32(a, b); }
static inline acc_t dot_i16(acc_t c, acc_t a, acc_t b) {
#if defined(AIM_WITH_VNNI)
    return _mm256_dpwssd_avx_epi32(c, a, b);
#else
    return _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
#endif
}
static inline acc_t dot_i8(acc_t c, acc_t a, acc_t b) {
#if defined(AIM_WITH_VNNI)
    return _mm256_dpbusd_avx_epi32(c, a, b);
#else
    (void) a; (void) b;
    return c;
#endif
}

#endif

constexpr int REG_BYTES = (int) sizeof(acc_t);

// ROWS rows of A times BLOCKS column blocks of B
template <aim_pack TYPE, int ROWS, int BLOCKS>
static inline void product(const uint8_t * a, size_t a_stride, const uint8_t * b, size_t b_stride, size_t k_bytes, const int32_t * sums, int32_t * c) {
    acc_t acc[ROWS][BLOCKS*N_REGS];
    for (int j = 0; j < BLOCKS*N_REGS; j++) {
        const acc_t start = TYPE == AIM_PACK_I8 ? i_mul(i_load(sums + j*REG_BYTES/4), i_set(-128)) : i_set(0);
        for (int r = 0; r < ROWS; r++) {
            acc[r][j] = start;
        }
    }
    for (size_t g = 0; g < k_bytes; g += 4) {
        acc_t column[BLOCKS*N_REGS];
#pragma GCC unroll 8
        for (int j = 0; j < BLOCKS*N_REGS; j++) {
            column[j] = i_load(b + j/N_REGS*b_stride + 16*g + j%N_REGS*REG_BYTES);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            int32_t group;
            __builtin_memcpy(&group, a + r*a_stride + g, 4);
            const acc_t row = i_set(group);
#pragma GCC unroll 8
            for (int j = 0; j < BLOCKS*N_REGS; j++) {
                acc[r][j] = TYPE == AIM_PACK_I8 ? dot_i8(acc[r][j], row, column[j]) : dot_i16(acc[r][j], row, column[j]);
            }
        }
    }
    for (int j = 0; j < BLOCKS; j++) {
        for (int r = 0; r < ROWS; r++) {
            for (int i = 0; i < N_REGS; i++) {
                i_store(c + (j*MAX_ROWS + r)*16 + i*REG_BYTES/4, acc[r][j*N_REGS + i]);
            }
        }
    }
}

template <aim_pack TYPE, int BLOCKS>
static void product_rows(int rows, const uint8_t * a, size_t a_stride, const uint8_t * b, size_t b_stride, size_t k_bytes, const int32_t * sums, int32_t * c) {
    switch (rows) {
        case 1: product<TYPE, 1, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
        case 2: product<TYPE, 2, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
        case 3: product<TYPE, 3, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
        case 4: product<TYPE, 4, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
        case 5: product<TYPE, 5, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
        case 6: product<TYPE, 6, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
#if defined(__AVX512F__)
        case 7: product<TYPE, 7, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
        case 8: product<TYPE, 8, BLOCKS>(a, a_stride, b, b_stride, k_bytes, sums, c); break;
#endif
    }
}

template <aim_pack TYPE>
static void gemm_of(aim_operand a, aim_operand b, size_t k_bytes, int64_t m0, int64_t m1, int64_t b0, int64_t b1, const aim_out * out) {
    alignas(64) int32_t c[MAX_BLOCKS*MAX_ROWS*16];
    for (int64_t block = b0; block < b1; block += MAX_BLOCKS) {
        const int blocks = b1 - block < MAX_BLOCKS ? (int) (b1 - block) : MAX_BLOCKS;
        const uint8_t * columns = b.data + block*16*b.row_bytes;
        const int32_t * sums    = TYPE == AIM_PACK_I8 ? b.sums + 16*block : nullptr;
        for (int64_t m = m0; m < m1; m += MAX_ROWS) {
            const int rows = m1 - m < MAX_ROWS ? (int) (m1 - m) : MAX_ROWS;
            const uint8_t * row = a.data + m*a.row_bytes;
            switch (blocks) {
                case 1: product_rows<TYPE, 1>(rows, row, a.row_bytes, columns, 16*b.row_bytes, k_bytes, sums, c); break;
#if defined(__AVX512F__)
                case 2: product_rows<TYPE, 2>(rows, row, a.row_bytes, columns, 16*b.row_bytes, k_bytes, sums, c); break;
                case 3: product_rows<TYPE, 3>(rows, row, a.row_bytes, columns, 16*b.row_bytes, k_bytes, sums, c); break;
#endif
            }
            for (int j = 0; j < blocks; j++) {
                finish_block(TYPE, c + j*MAX_ROWS*16, a, b, m, rows, block + j, out);
            }
        }
    }
}

static void gemm(aim_pack type, aim_operand a, aim_operand b, size_t k_bytes, int64_t m0, int64_t m1, int64_t b0, int64_t b1, const aim_out * out) {
    if (type == AIM_PACK_I8) {
        gemm_of<AIM_PACK_I8>(a, b, k_bytes, m0, m1, b0, b1, out);
    } else {
        gemm_of<AIM_PACK_I16>(a, b, k_bytes, m0, m1, b0, b1, out);
    }
}

// --- weights of a language model, unpacked part by part -----------------------------------------------------------------
// sums: [column block][AIM_M_STEP rows][16]

#if defined(__AVX512F__)
typedef __m512 float_t;
constexpr int UNPACKED_ROWS = 6, UNPACKED_BLOCKS = 2; // as many whole sums as sums of a group: 24 of 32 registers
static inline float_t s_load(const float * p)                       { return _mm512_loadu_ps(p); }
static inline void    s_store(float * p, float_t a)                 { _mm512_storeu_ps(p, a); }
static inline float_t s_add(acc_t whole, float_t scale, float_t to) { return _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, to); }
#else
typedef __m256 float_t;
constexpr int UNPACKED_ROWS = 3, UNPACKED_BLOCKS = 1; // 12 of 16 registers
static inline float_t s_load(const float * p)                       { return _mm256_loadu_ps(p); }
static inline void    s_store(float * p, float_t a)                 { _mm256_storeu_ps(p, a); }
static inline float_t s_add(acc_t whole, float_t scale, float_t to) { return _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, to); }
#endif

// ROWS rows by BLOCKS column blocks: whole numbers over 32 k, then floats
template <int ROWS, int BLOCKS>
static inline void product_groups(aim_operand a, aim_operand b, size_t k_bytes, float * sums, bool first) {
    float_t sum[ROWS][BLOCKS*N_REGS];
    auto at = [&](int r, int j) { return sums + (j/N_REGS*AIM_M_STEP + r)*16 + j%N_REGS*REG_BYTES/4; };
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < BLOCKS*N_REGS; j++) {
            sum[r][j] = first ? float_t{} : s_load(at(r, j));
        }
    }
    for (size_t g = 0; g < k_bytes; g += 64) {
        acc_t acc[ROWS][BLOCKS*N_REGS];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 8
            for (int j = 0; j < BLOCKS*N_REGS; j++) {
                acc[r][j] = i_set(0);
            }
        }
        for (size_t i = g; i < g + 64; i += 4) {
            acc_t column[BLOCKS*N_REGS];
#pragma GCC unroll 8
            for (int j = 0; j < BLOCKS*N_REGS; j++) {
                column[j] = i_load(b.data + j/N_REGS*16*k_bytes + 16*i + j%N_REGS*REG_BYTES);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                int32_t pair;
                __builtin_memcpy(&pair, a.data + r*a.row_bytes + i, 4);
                const acc_t row = i_set(pair);
#pragma GCC unroll 8
                for (int j = 0; j < BLOCKS*N_REGS; j++) {
                    acc[r][j] = dot_i16(acc[r][j], row, column[j]);
                }
            }
        }
#pragma GCC unroll 8
        for (int j = 0; j < BLOCKS*N_REGS; j++) {
            const float_t scale = s_load(b.scales + j/N_REGS*k_bytes/4 + g/4 + j%N_REGS*REG_BYTES/4);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                sum[r][j] = s_add(acc[r][j], scale, sum[r][j]);
            }
        }
    }
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < BLOCKS*N_REGS; j++) {
            s_store(at(r, j), sum[r][j]);
        }
    }
}

template <int BLOCKS>
static void accumulate_blocks(aim_operand a, aim_operand b, size_t k_bytes, int64_t m, float * sums, bool first) {
    for (; m > 0; m -= UNPACKED_ROWS, a.data += UNPACKED_ROWS*a.row_bytes, sums += UNPACKED_ROWS*16) {
        switch (m) {
            case 1:  product_groups<1, BLOCKS>(a, b, k_bytes, sums, first); break;
            case 2:  product_groups<2, BLOCKS>(a, b, k_bytes, sums, first); break;
#if defined(__AVX512F__)
            case 3:  product_groups<3, BLOCKS>(a, b, k_bytes, sums, first); break;
            case 4:  product_groups<4, BLOCKS>(a, b, k_bytes, sums, first); break;
            case 5:  product_groups<5, BLOCKS>(a, b, k_bytes, sums, first); break;
#endif
            default: product_groups<UNPACKED_ROWS, BLOCKS>(a, b, k_bytes, sums, first); break;
        }
    }
}

static void accumulate(aim_operand a, aim_operand b, size_t k_bytes, int64_t m, int64_t n_blocks, uint8_t * sums, bool first) {
    for (int64_t j = 0; j < n_blocks; j += UNPACKED_BLOCKS) {
        const aim_operand columns = { b.data + j*16*k_bytes, k_bytes, b.scales + j*k_bytes/4, nullptr };
        float * to = (float *) sums + j*16*AIM_M_STEP;
        if (n_blocks - j < UNPACKED_BLOCKS) {
            accumulate_blocks<1>(a, columns, k_bytes, m, to, first);
        } else {
            accumulate_blocks<UNPACKED_BLOCKS>(a, columns, k_bytes, m, to, first);
        }
    }
}

static void finish_sums(const uint8_t * sums, const float * a_scales, int64_t m, int64_t block, int64_t n_blocks, const aim_out * out) {
    for (int64_t j = 0; j < n_blocks; j++) {
        const aim_operand rows = { nullptr, 0, a_scales, nullptr };
        finish_block(AIM_PACK_BF16, sums + j*64*AIM_M_STEP, rows, {}, 0, (int) m, block + j, out); // floats, as with bf16
    }
}

static void nothing() {}

#define AIM_SIMD_KERNELS(symbol, label) \
    extern const aim_kernels symbol;    \
    const aim_kernels symbol = { label, false, AIM_PACK_I16, with_vnni, pack_row, pack_column, pack_columns, gemm, 256, \
                                 can_unpack, unpack, accumulate, finish_sums, softmax, norm, nothing, nothing };
