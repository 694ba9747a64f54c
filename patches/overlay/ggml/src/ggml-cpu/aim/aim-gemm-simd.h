// the product with vectors of 256 or 512 bits, with VNNI or without; same rules as aim-simd.h
#pragma once

#define AIM_ROW_FLIP 0x80 // VNNI multiplies unsigned by signed bytes: A has 128 added, which the sums of B take off again
#include "aim-rows.h"

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

static void nothing() {}

#define AIM_SIMD_KERNELS(symbol, label) \
    extern const aim_kernels symbol;    \
    const aim_kernels symbol = { label, false, AIM_PACK_I16, with_vnni, pack_row, pack_column, pack_columns, gemm, nullptr, nullptr, nullptr, softmax, norm, nothing, nothing };
