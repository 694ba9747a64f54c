// the product with AMX tiles: 2 x 2 tiles of C, two of A and two of B; rows and vectors as with AVX-512

#define AIM_ROW_FLIP 0
#include "aim-rows.h"

// C tiles 0 to 3, A 4 and 5, B 6 and 7; every tile is 16 rows of 64 bytes
struct alignas(64) full_tiles {
    uint8_t  palette_id = 1, start_row = 0, reserved[14] = {};
    uint16_t colsb[16]  = { 64, 64, 64, 64, 64, 64, 64, 64 };
    uint8_t  rows[16]   = { 16, 16, 16, 16, 16, 16, 16, 16 };
};
static_assert(sizeof(full_tiles) == 64, "as the instruction reads it");
static constexpr full_tiles shape;

static void begin() { __asm__ volatile("ldtilecfg %0" : : "m"(shape)); }
static void end()   { __asm__ volatile("tilerelease"); }

// in assembly: GCC's own name no memory as read (see amx/aim-tiles.h)
#define LOAD(tile, from) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((size_t) 64) : "memory")
#define STORE(tile, to, stride) __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"((size_t) (stride)) : "memory")
#define DOT(type, c, a, b)                  \
    do {                                    \
        if (type == AIM_PACK_I8) {          \
            _tile_dpbssd(c, a, b);          \
        } else {                            \
            _tile_dpbf16ps(c, a, b);        \
        }                                   \
    } while (0)

// up to 32 rows and 32 columns into tiles 0 to 3
template <aim_pack TYPE, int ROW_TILES, int BLOCKS>
static inline void product(const uint8_t * a, size_t a_bytes, const uint8_t * b, size_t b_bytes, size_t k_bytes, const uint8_t * before = nullptr) {
    const uint8_t * a1 = a + 16*a_bytes;
    const uint8_t * b1 = b + 16*b_bytes;
    if (before) { // sums of earlier parts of k
        LOAD(0, before);
        if (ROW_TILES > 1) { LOAD(1, before + 1024); }
        if (BLOCKS > 1)    { LOAD(2, before + 2048); }
        if (ROW_TILES > 1 && BLOCKS > 1) { LOAD(3, before + 3072); }
    } else {
        _tile_zero(0);
        if (ROW_TILES > 1) { _tile_zero(1); }
        if (BLOCKS > 1)    { _tile_zero(2); }
        if (ROW_TILES > 1 && BLOCKS > 1) { _tile_zero(3); }
    }
    for (size_t at = 0; at < 16*k_bytes; at += 1024) {
        LOAD(4, a + at);
        LOAD(6, b + at);
        DOT(TYPE, 0, 4, 6);
        if (ROW_TILES > 1) {
            LOAD(5, a1 + at);
            DOT(TYPE, 1, 5, 6);
        }
        if (BLOCKS > 1) {
            LOAD(7, b1 + at);
            DOT(TYPE, 2, 4, 7);
            if (ROW_TILES > 1) {
                DOT(TYPE, 3, 5, 7);
            }
        }
    }
}

// tile (row tile r, column block j) goes to at + 16 r rows + 16 j columns of four bytes
template <int ROW_TILES, int BLOCKS>
static inline void store(uint8_t * at, size_t stride, size_t row_tile, size_t block) {
    STORE(0, at, stride);
    if (ROW_TILES > 1) { STORE(1, at + row_tile, stride); }
    if (BLOCKS > 1)    { STORE(2, at + block, stride); }
    if (ROW_TILES > 1 && BLOCKS > 1) { STORE(3, at + row_tile + block, stride); }
}

struct place { int64_t m, block; int rows, blocks; };

template <aim_pack TYPE>
static void gemm_of(aim_operand a, aim_operand b, size_t k_bytes, int64_t m0, int64_t m1, int64_t b0, int64_t b1, const aim_out * out) {
    const bool plain = TYPE == AIM_PACK_BF16 && out->has_room && !a.scales && !out->bias && !out->gamma && !out->residual && out->act == AIM_ACT_NONE;
    // what becomes of a product is computed while the tiles work on the next one
    alignas(64) uint8_t acc[2][4096]; // [column block][row tile][16][16]
    place last = {};
    int   turn = 0;
    auto finish_last = [&]() {
        for (int j = 0; j < last.blocks; j++) {
            finish_block(TYPE, acc[turn ^ 1] + 2048*j, a, b, last.m, last.rows, last.block + j, out);
        }
    };
    for (int64_t block = b0; block < b1; block += 2) {
        const uint8_t * columns = b.data + block*16*b.row_bytes;
        for (int64_t m = m0; m < m1; m += 32) {
            const uint8_t * row = a.data + m*a.row_bytes;
            const bool two_rows = m1 - m > 16, two_blocks = b1 - block > 1;
            uint8_t *    to = plain ? (uint8_t *) (out->dst + m*out->dst_stride + 16*block) : acc[turn];
            const size_t stride = plain ? 4*out->dst_stride : 64, row_tile = plain ? 16*stride : 1024, next = plain ? 64 : 2048;
            if (two_rows && two_blocks) {
                product<TYPE, 2, 2>(row, a.row_bytes, columns, b.row_bytes, k_bytes);
                store<2, 2>(to, stride, row_tile, next);
            } else if (two_rows) {
                product<TYPE, 2, 1>(row, a.row_bytes, columns, b.row_bytes, k_bytes);
                store<2, 1>(to, stride, row_tile, next);
            } else if (two_blocks) {
                product<TYPE, 1, 2>(row, a.row_bytes, columns, b.row_bytes, k_bytes);
                store<1, 2>(to, stride, row_tile, next);
            } else {
                product<TYPE, 1, 1>(row, a.row_bytes, columns, b.row_bytes, k_bytes);
                store<1, 1>(to, stride, row_tile, next);
            }
            if (!plain) {
                finish_last();
                last = { m, block, m1 - m < 32 ? (int) (m1 - m) : 32, two_blocks ? 2 : 1 };
                turn ^= 1;
            }
        }
    }
    finish_last();
}

static void gemm(aim_pack type, aim_operand a, aim_operand b, size_t k_bytes, int64_t m0, int64_t m1, int64_t b0, int64_t b1, const aim_out * out) {
    if (type == AIM_PACK_I8) {
        gemm_of<AIM_PACK_I8>(a, b, k_bytes, m0, m1, b0, b1, out);
    } else {
        gemm_of<AIM_PACK_BF16>(a, b, k_bytes, m0, m1, b0, b1, out);
    }
}

// --- weights of a language model, unpacked part by part -----------------------------------------------------------------
// sums: [m/32][column block][row tile][16][16]

static void accumulate(aim_operand a, aim_operand b, size_t k_bytes, int64_t m, int64_t n_blocks, uint8_t * sums, bool first) {
    for (int64_t i = 0; i < m; i += 32, sums += 4096) {
        const uint8_t * rows = a.data + i*a.row_bytes;
        const uint8_t * before = first ? nullptr : sums;
        if (m - i > 16 && n_blocks > 1) {
            product<AIM_PACK_BF16, 2, 2>(rows, a.row_bytes, b.data, b.row_bytes, k_bytes, before);
            store<2, 2>(sums, 64, 1024, 2048);
        } else if (m - i > 16) {
            product<AIM_PACK_BF16, 2, 1>(rows, a.row_bytes, b.data, b.row_bytes, k_bytes, before);
            store<2, 1>(sums, 64, 1024, 2048);
        } else if (n_blocks > 1) {
            product<AIM_PACK_BF16, 1, 2>(rows, a.row_bytes, b.data, b.row_bytes, k_bytes, before);
            store<1, 2>(sums, 64, 1024, 2048);
        } else {
            product<AIM_PACK_BF16, 1, 1>(rows, a.row_bytes, b.data, b.row_bytes, k_bytes, before);
            store<1, 1>(sums, 64, 1024, 2048);
        }
    }
}

static void finish_sums(const uint8_t * sums, const float *, int64_t m, int64_t block, int64_t n_blocks, const aim_out * out) {
    for (int64_t i = 0; i < m; i += 32, sums += 4096) {
        for (int64_t j = 0; j < n_blocks; j++) {
            finish_block(AIM_PACK_BF16, sums + 2048*j, {}, {}, i, m - i < 32 ? (int) (m - i) : 32, block + j, out);
        }
    }
}

// 16 columns x 4 k of small whole numbers [16][4] -> bf16 [2][16][2], times scale, plus shift
static inline void store_group(__m512i q, __m512 scale, __m512 shift, bool is_signed, uint8_t * dst) {
    __m512 x[4];
    for (int i = 0; i < 4; i++) {
        const __m512i top = i < 3 ? _mm512_slli_epi32(q, 24 - 8*i) : q; // byte i on top
        const __m512i v   = is_signed ? _mm512_srai_epi32(top, 24) : _mm512_srli_epi32(top, 24);
        x[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), scale, shift);
    }
    const __m512i by_column = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(dst,      _mm512_permutexvar_epi16(by_column, (__m512i) _mm512_cvtne2ps_pbh(x[1], x[0])));
    _mm512_storeu_si512(dst + 64, _mm512_permutexvar_epi16(by_column, (__m512i) _mm512_cvtne2ps_pbh(x[3], x[2])));
}

static inline __m512 halves(const uint8_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
static inline __m512 bytes_u8(const uint8_t * p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) p))); }
static inline __m512 bytes_i8(const uint8_t * p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p))); }
static inline __m512i low_nibbles(__m512i v)  { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
static inline __m512i high_nibbles(__m512i v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }

// the layouts are those of pack_B in ggml/src/ggml-cpu/amx/mmq.cpp: groups of [16 columns][4 k], two groups to a vector of nibbles
static void unpack_q4_0(const uint8_t * tile, uint8_t * dst) {
    const __m512 d = halves(tile + 256), shift = _mm512_mul_ps(d, _mm512_set1_ps(-8));
    for (int i = 0; i < 4; i++) {
        const __m512i v = _mm512_loadu_si512(tile + 64*i);
        store_group(low_nibbles(v),  d, shift, false, dst + 256*i);
        store_group(high_nibbles(v), d, shift, false, dst + 256*i + 128);
    }
}

static void unpack_q8_0(const uint8_t * tile, uint8_t * dst) {
    const __m512 d = halves(tile + 512);
    for (int i = 0; i < 8; i++) {
        store_group(_mm512_loadu_si512(tile + 64*i), d, _mm512_setzero_ps(), true, dst + 128*i);
    }
}

static void unpack_q4_k(const uint8_t * tile, uint8_t * dst) {
    const uint8_t * scales = tile + 2048, * mins = scales + 128;
    const __m512 d = halves(mins + 128), d_min = halves(mins + 160);
    for (int g = 0; g < 8; g++) { // 32 k each
        alignas(16) uint8_t of_group[16];
        for (int c = 0; c < 16; c++) {
            of_group[c] = mins[g/2*32 + 2*c + g%2];
        }
        const __m512 scale = _mm512_mul_ps(d, bytes_u8(scales + 16*g));
        const __m512 shift = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(d_min, bytes_u8(of_group)));
        for (int i = 0; i < 4; i++) {
            const __m512i v = _mm512_loadu_si512(tile + 256*g + 64*i);
            store_group(low_nibbles(v),  scale, shift, false, dst + 1024*g + 256*i);
            store_group(high_nibbles(v), scale, shift, false, dst + 1024*g + 256*i + 128);
        }
    }
}

static void unpack_q6_k(const uint8_t * tile, uint8_t * dst) {
    const uint8_t * high = tile + 2048, * scales = high + 1024;
    const __m512 d = halves(scales + 256);
    for (int g = 0; g < 16; g++) { // 16 k each: four groups of four
        const __m512 scale = _mm512_mul_ps(d, bytes_i8(scales + 16*g)), shift = _mm512_mul_ps(scale, _mm512_set1_ps(-32));
        const __m512i h = _mm512_loadu_si512(high + 64*g);
        for (int i = 0; i < 4; i++) {
            const __m512i v    = _mm512_loadu_si512(tile + 64*(2*g + i/2));
            const __m512i low  = i % 2 ? high_nibbles(v) : low_nibbles(v);
            const __m512i top  = _mm512_and_si512(_mm512_srli_epi16(h, 2*i), _mm512_set1_epi8(3));
            store_group(_mm512_or_si512(low, _mm512_slli_epi16(top, 4)), scale, shift, false, dst + 512*g + 128*i);
        }
    }
}

static bool can_unpack(aim_store store, int32_t type) {
    return (store == AIM_STORE_ROWS && aim_worth_unpacking(type)) || (store == AIM_STORE_AMX && (type == AIM_Q4_0 || type == AIM_Q8_0 || type == AIM_Q4_K || type == AIM_Q6_K));
}

static void unpack(const aim_stored & w, int64_t column, int64_t k0, int64_t k, uint8_t * dst, float *, float * work) {
    if (w.store == AIM_STORE_ROWS) {
        uint8_t * rows = (uint8_t *) (work + k);
        for (int64_t c = 0; c < 16; c++) {
            w.to_float(w.at(column + c, k0), work, k);
            pack_bf16({ (const char *) work, 0, false }, k, k, rows + 2*k*c, 64);
        }
        aim_interleave(rows, 2*k, dst);
        return;
    }
    const uint8_t * tile = w.at(column, k0);
    for (int64_t i = 0; i < k; i += w.block_k, tile += w.block_bytes) {
        switch (w.type) {
            case AIM_Q4_0: unpack_q4_0(tile, dst + 32*i); break;
            case AIM_Q8_0: unpack_q8_0(tile, dst + 32*i); break;
            case AIM_Q4_K: unpack_q4_k(tile, dst + 32*i); break;
            case AIM_Q6_K: unpack_q6_k(tile, dst + 32*i); break;
        }
    }
}

extern const aim_kernels aim_kernels_amx;
const aim_kernels aim_kernels_amx = { "amx", true, AIM_PACK_BF16, true, pack_row, pack_column, pack_columns, gemm, 1024,
                                      can_unpack, unpack, accumulate, finish_sums, softmax, norm, begin, end };
