// weights of a language model into int16 with a scale for each column and 32 k; same rules as aim-simd.h
#pragma once

#include "aim-rows.h"

constexpr float UNPACKED_MOST = 2047.0f; // times 32 rows' whole numbers of 32000 is less than 2^31

static bool can_unpack(aim_store store, int32_t type) {
    return (store == AIM_STORE_ROWS && aim_worth_unpacking(type)) || (store == AIM_STORE_X8 && (type == AIM_Q4_0 || type == AIM_Q4_K));
}

// --- rows ---------------------------------------------------------------------------------------------------------------

static void unpack_q8_0_row(const uint8_t * block, int64_t k, uint8_t * dst, float * scales) {
    for (int64_t g = 0; g < k/32; g++, block += 34) {
        uint16_t half;
        __builtin_memcpy(&half, block, 2);
        scales[16*g] = _cvtsh_ss(half);
        for (int i = 0; i < 2; i++) {
            const __m128i q = _mm_loadu_si128((const __m128i *) (block + 2) + i);
            _mm256_storeu_si256((__m256i *) (dst + 64*g) + i, _mm256_cvtepi8_epi16(q));
        }
    }
}

static void whole_row(const float * x, int64_t k, uint8_t * dst, float * scales) {
    for (int64_t g = 0; g < k/32; g++) {
        const f16x a = f_load(x + 32*g), b = f_load(x + 32*g + 16);
        const float most = f_highest(f_max(f_abs(a), f_abs(b))) + 0*f_sum(f_add(a, b)); // NaN where there is one
        const f16x by = f_set(most > 1e-30f ? UNPACKED_MOST/most : 0.0f);
        f_store_i16(dst + 64*g,      f_mul(a, by));
        f_store_i16(dst + 64*g + 32, f_mul(b, by));
        scales[16*g] = most/UNPACKED_MOST;
    }
}

static void unpack_rows(const aim_stored & w, int64_t column, int64_t k0, int64_t k, uint8_t * dst, float * scales, float * work) {
    uint8_t * rows = (uint8_t *) (work + k);
    for (int64_t c = 0; c < 16; c++) {
        if (w.type == AIM_Q8_0) {
            unpack_q8_0_row(w.at(column + c, k0), k, rows + 2*k*c, scales + c);
        } else {
            w.to_float(w.at(column + c, k0), work, k);
            whole_row(work, k, rows + 2*k*c, scales + c);
        }
    }
    aim_interleave(rows, 2*k, dst);
}

// --- eight rows side by side ----------------------------------------------------------------------------------------------

// 8 bytes of each of 8 columns -> 4 vectors of 2 bytes of each
static inline void pairs_of(const uint8_t * piece, __m128i pairs[4]) {
    __m128i half[2][2]; // of four columns each: their first two pairs, their last two
    for (int i = 0; i < 2; i++) {
        const __m128i a = _mm_loadu_si128((const __m128i *) piece + 2*i), b = _mm_loadu_si128((const __m128i *) piece + 2*i + 1);
        const __m128i even = _mm_unpacklo_epi16(a, b), odd = _mm_unpackhi_epi16(a, b);
        half[i][0] = _mm_unpacklo_epi16(even, odd);
        half[i][1] = _mm_unpackhi_epi16(even, odd);
    }
    for (int i = 0; i < 2; i++) {
        pairs[2*i]     = _mm_unpacklo_epi64(half[0][i], half[1][i]);
        pairs[2*i + 1] = _mm_unpackhi_epi64(half[0][i], half[1][i]);
    }
}

static inline __m128i low_nibbles(__m128i v)  { return _mm_and_si128(v, _mm_set1_epi8(15)); }
static inline __m128i high_nibbles(__m128i v) { return _mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(15)); }

// ggml/src/ggml-cpu/repack.cpp: make_block_q4_0x8. d[8], then 8 bytes of each column, the first half of the k and the second;
// nibbles are two's complement
static void unpack_q4_0x8(const uint8_t * tile, uint8_t * dst, float * scales) {
    const __m128i eight = _mm_set1_epi8(8);
    _mm256_storeu_ps(scales, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) tile)));
    for (int h = 0; h < 2; h++) {
        __m128i pairs[4];
        pairs_of(tile + 16 + 64*h, pairs);
        for (int p = 0; p < 4; p++) {
            const __m128i low  = _mm_sub_epi8(_mm_xor_si128(low_nibbles(pairs[p]),  eight), eight);
            const __m128i high = _mm_sub_epi8(_mm_xor_si128(high_nibbles(pairs[p]), eight), eight);
            _mm256_storeu_si256((__m256i *) (dst + 64*(4*h + p)),     _mm256_cvtepi8_epi16(low));
            _mm256_storeu_si256((__m256i *) (dst + 64*(4*h + p + 8)), _mm256_cvtepi8_epi16(high));
        }
    }
}

// scales and mins of 8 columns, 6 bits each in 12 bytes
static inline void scales_of(const uint8_t * b, int32_t * scale, int32_t * min) {
    for (int c = 0; c < 4; c++) {
        scale[c]     = b[c] & 63;
        min[c]       = b[4 + c] & 63;
        scale[c + 4] = (b[8 + c] & 15) | b[c] >> 6 << 4;
        min[c + 4]   = b[8 + c] >> 4 | b[4 + c] >> 6 << 4;
    }
}

// make_block_q4_Kx8: d[8], dmin[8], 12 bytes of scales and mins for each 32 k, then 8 bytes of each column, 64 k in 32 bytes
static void unpack_q4_kx8(const uint8_t * tile, uint8_t * dst, float * scales) {
    const __m256 d = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) tile)), d_min = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) tile + 1));
    for (int g = 0; g < 8; g++) {
        alignas(32) int32_t scale[8], min[8];
        scales_of(tile + 32 + 12*g, scale, min);
        const __m256 step  = _mm256_mul_ps(d,     _mm256_cvtepi32_ps(_mm256_load_si256((const __m256i *) scale)));
        const __m256 below = _mm256_mul_ps(d_min, _mm256_cvtepi32_ps(_mm256_load_si256((const __m256i *) min)));
        const __m256 sign  = _mm256_set1_ps(-0.0f);
        const __m256 most  = _mm256_max_ps(_mm256_andnot_ps(sign, below), _mm256_andnot_ps(sign, _mm256_fmsub_ps(step, _mm256_set1_ps(15.0f), below)));
        const __m256 by    = _mm256_and_ps(_mm256_div_ps(_mm256_set1_ps(UNPACKED_MOST), most), _mm256_cmp_ps(most, _mm256_set1_ps(1e-30f), _CMP_GT_OQ));
        _mm256_storeu_ps(scales + 16*g, _mm256_mul_ps(most, _mm256_set1_ps(1.0f/UNPACKED_MOST)));
        // q*step - below in units of the scale: step in sixteenths, so that 15 steps are off by half a unit
        const __m256i sixteenths = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_mul_ps(step, by), _mm256_set1_ps(16.0f)));
        const __m256i shift      = _mm256_cvtps_epi32(_mm256_mul_ps(below, by));
        const __m256i steps      = _mm256_blend_epi16(sixteenths, _mm256_slli_epi32(sixteenths, 16), 0xaa);
        const __m256i shifts     = _mm256_blend_epi16(shift,      _mm256_slli_epi32(shift, 16),      0xaa);
        for (int i = 0; i < 4; i++) {
            __m128i pairs[4];
            pairs_of(tile + 128 + 64*(4*(g/2) + i), pairs);
            for (int p = 0; p < 4; p++) {
                const __m256i q = _mm256_cvtepu8_epi16(g%2 ? high_nibbles(pairs[p]) : low_nibbles(pairs[p]));
                const __m256i x = _mm256_sub_epi16(_mm256_mulhrs_epi16(_mm256_slli_epi16(q, 11), steps), shifts);
                _mm256_storeu_si256((__m256i *) (dst + 1024*g + 64*(4*i + p)), x);
            }
        }
    }
}

static void unpack(const aim_stored & w, int64_t column, int64_t k0, int64_t k, uint8_t * dst, float * scales, float * work) {
    if (w.store == AIM_STORE_ROWS) {
        unpack_rows(w, column, k0, k, dst, scales, work);
        return;
    }
    for (int64_t c = 0; c < 16; c += 8) {
        const uint8_t * tile = w.at(column + c, k0);
        for (int64_t i = 0; i < k; i += w.block_k, tile += w.block_bytes) {
            if (w.type == AIM_Q4_0) {
                unpack_q4_0x8(tile, dst + 32*i + 4*c, scales + i/2 + c);
            } else {
                unpack_q4_kx8(tile, dst + 32*i + 4*c, scales + i/2 + c);
            }
        }
    }
}
