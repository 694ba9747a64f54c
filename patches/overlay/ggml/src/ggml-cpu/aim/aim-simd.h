// sixteen floats as one AVX-512 or two AVX2 registers, and what the kernels need of them
// included by files that are compiled for one CPU each: everything is static, nothing comes from the C++ library, since
// the linker would be free to take a function compiled for a newer CPU for all of them
#pragma once

#include <immintrin.h>

#include "aim-kernels.h"

#if defined(__AVX512F__)

struct f16x { __m512 v; };
static inline f16x f_load(const float * p)              { return { _mm512_loadu_ps(p) }; }
static inline f16x f_load_half(const uint16_t * p)      { return { _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)) }; }
static inline void f_store(float * p, f16x a)           { _mm512_storeu_ps(p, a.v); }
// the first n of 16; zeros behind them
static inline f16x f_load_n(const float * p, int n)     { return { _mm512_maskz_loadu_ps((__mmask16) ((1u << n) - 1), p) }; }
static inline void f_store_n(float * p, f16x a, int n)  { _mm512_mask_storeu_ps(p, (__mmask16) ((1u << n) - 1), a.v); }
static inline f16x f_set(float a)                       { return { _mm512_set1_ps(a) }; }
static inline f16x f_add(f16x a, f16x b)                { return { _mm512_add_ps(a.v, b.v) }; }
static inline f16x f_sub(f16x a, f16x b)                { return { _mm512_sub_ps(a.v, b.v) }; }
static inline f16x f_mul(f16x a, f16x b)                { return { _mm512_mul_ps(a.v, b.v) }; }
static inline f16x f_div(f16x a, f16x b)                { return { _mm512_div_ps(a.v, b.v) }; }
static inline f16x f_fma(f16x a, f16x b, f16x c)        { return { _mm512_fmadd_ps(a.v, b.v, c.v) }; }
static inline f16x f_max(f16x a, f16x b)                { return { _mm512_max_ps(a.v, b.v) }; }
static inline f16x f_min(f16x a, f16x b)                { return { _mm512_min_ps(a.v, b.v) }; }
static inline f16x f_abs(f16x a)                        { return { _mm512_abs_ps(a.v) }; }
static inline f16x f_round(f16x a)                      { return { _mm512_roundscale_ps(a.v, 0) }; }
static inline f16x f_inverse(f16x a) { // 14 bits and one step of Newton's
    const __m512 x = _mm512_rcp14_ps(a.v);
    return { _mm512_mul_ps(x, _mm512_fnmadd_ps(a.v, x, _mm512_set1_ps(2.0f))) };
}
static inline float f_sum(f16x a)                       { return _mm512_reduce_add_ps(a.v); }
static inline float f_highest(f16x a)                   { return _mm512_reduce_max_ps(a.v); }
static inline f16x f_from_i32(const int32_t * p)        { return { _mm512_cvtepi32_ps(_mm512_loadu_si512(p)) }; }
// a * 2^n, for whole n
static inline f16x f_scale2(f16x a, f16x n)             { return { _mm512_scalef_ps(a.v, n.v) }; }
static inline f16x f_sign_of(f16x a, f16x sign) { // |a| with the sign of sign
    const __m512i s = _mm512_and_si512(_mm512_castps_si512(sign.v), _mm512_set1_epi32(INT32_MIN));
    return { _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(_mm512_abs_ps(a.v)), s)) };
}
// nearest whole numbers, 16 to a vector
static inline void f_store_i8(uint8_t * p, f16x a, uint8_t flip) {
    _mm_storeu_si128((__m128i *) p, _mm_xor_si128(_mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v)), _mm_set1_epi8((char) flip)));
}
static inline void f_store_i16(uint8_t * p, f16x a) {
    _mm256_storeu_si256((__m256i *) p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a.v)));
}
static inline void f_store_bf16(uint8_t * p, f16x a) { // to nearest even
#if defined(__AVX512BF16__)
    _mm256_storeu_si256((__m256i *) p, (__m256i) _mm512_cvtneps_pbh(a.v));
#else
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i odd  = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up   = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i *) p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
#endif
}

// one step of a Hadamard transform inside the vector: pairs that are `span` lanes apart
static inline f16x f_butterfly_8(f16x a) {
    const __m512 other = _mm512_shuffle_f32x4(a.v, a.v, 0x4e);
    return { _mm512_mask_sub_ps(_mm512_add_ps(other, a.v), 0xff00, other, a.v) };
}
static inline f16x f_butterfly_4(f16x a) {
    const __m512 other = _mm512_shuffle_f32x4(a.v, a.v, 0xb1);
    return { _mm512_mask_sub_ps(_mm512_add_ps(other, a.v), 0xf0f0, other, a.v) };
}
static inline f16x f_butterfly_2(f16x a) {
    const __m512 other = _mm512_permute_ps(a.v, 0x4e);
    return { _mm512_mask_sub_ps(_mm512_add_ps(other, a.v), 0xcccc, other, a.v) };
}
static inline f16x f_butterfly_1(f16x a) {
    const __m512 other = _mm512_permute_ps(a.v, 0xb1);
    return { _mm512_mask_sub_ps(_mm512_add_ps(other, a.v), 0xaaaa, other, a.v) };
}

#else

struct f16x { __m256 lo, hi; };
static inline f16x f_load(const float * p)              { return { _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
static inline f16x f_load_half(const uint16_t * p) {
    return { _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p + 1)) };
}
static inline void f_store(float * p, f16x a)           { _mm256_storeu_ps(p, a.lo); _mm256_storeu_ps(p + 8, a.hi); }
// the first n of 16; zeros behind them
static inline __m256i f8_mask(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline f16x f_load_n(const float * p, int n) {
    return { _mm256_maskload_ps(p, f8_mask(n)), _mm256_maskload_ps(p + 8, f8_mask(n - 8)) };
}
static inline void f_store_n(float * p, f16x a, int n) {
    _mm256_maskstore_ps(p, f8_mask(n), a.lo);
    _mm256_maskstore_ps(p + 8, f8_mask(n - 8), a.hi);
}
static inline f16x f_set(float a)                       { return { _mm256_set1_ps(a), _mm256_set1_ps(a) }; }
static inline f16x f_add(f16x a, f16x b)                { return { _mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi) }; }
static inline f16x f_sub(f16x a, f16x b)                { return { _mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi) }; }
static inline f16x f_mul(f16x a, f16x b)                { return { _mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi) }; }
static inline f16x f_div(f16x a, f16x b)                { return { _mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi) }; }
static inline f16x f_fma(f16x a, f16x b, f16x c)        { return { _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) }; }
static inline f16x f_max(f16x a, f16x b)                { return { _mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi) }; }
static inline f16x f_min(f16x a, f16x b)                { return { _mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi) }; }
static inline __m256 f8_abs(__m256 a)                   { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline f16x f_abs(f16x a)                        { return { f8_abs(a.lo), f8_abs(a.hi) }; }
static inline f16x f_round(f16x a)                      { return { _mm256_round_ps(a.lo, 8), _mm256_round_ps(a.hi, 8) }; }
static inline f16x f_inverse(f16x a)                     { return f_div(f_set(1.0f), a); }
static inline float f_sum(f16x a) {
    const __m256 s = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float f_highest(f16x a) {
    const __m256 s = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline f16x f_from_i32(const int32_t * p) {
    return { _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *) p)), _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *) p + 1)) };
}
static inline __m256 f8_scale2(__m256 a, __m256 n) {
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}
static inline f16x f_scale2(f16x a, f16x n)             { return { f8_scale2(a.lo, n.lo), f8_scale2(a.hi, n.hi) }; }
static inline __m256 f8_sign_of(__m256 a, __m256 sign) {
    return _mm256_or_ps(f8_abs(a), _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
static inline f16x f_sign_of(f16x a, f16x sign)         { return { f8_sign_of(a.lo, sign.lo), f8_sign_of(a.hi, sign.hi) }; }
static inline __m256i f_to_i16(f16x a) {
    const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)); // lo.0 hi.0 lo.1 hi.1
    return _mm256_permute4x64_epi64(both, 0xd8);
}
static inline void f_store_i16(uint8_t * p, f16x a)     { _mm256_storeu_si256((__m256i *) p, f_to_i16(a)); }
static inline void f_store_i8(uint8_t * p, f16x a, uint8_t flip) {
    const __m256i w = f_to_i16(a);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
    _mm_storeu_si128((__m128i *) p, _mm_xor_si128(bytes, _mm_set1_epi8((char) flip)));
}
static inline __m256i f8_bf16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd  = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
static inline void f_store_bf16(uint8_t * p, f16x a) {
    _mm256_storeu_si256((__m256i *) p, _mm256_permute4x64_epi64(_mm256_packus_epi32(f8_bf16(a.lo), f8_bf16(a.hi)), 0xd8));
}

static inline f16x f_butterfly_8(f16x a)                { return { _mm256_add_ps(a.lo, a.hi), _mm256_sub_ps(a.lo, a.hi) }; }
static inline __m256 f8_pair(__m256 a, __m256 other, __m256 signs) { return _mm256_fmadd_ps(a, signs, other); }
static inline f16x f_butterfly_4(f16x a) {
    const __m256 signs = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
    return { f8_pair(a.lo, _mm256_permute2f128_ps(a.lo, a.lo, 1), signs), f8_pair(a.hi, _mm256_permute2f128_ps(a.hi, a.hi, 1), signs) };
}
static inline f16x f_butterfly_2(f16x a) {
    const __m256 signs = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
    return { f8_pair(a.lo, _mm256_permute_ps(a.lo, 0x4e), signs), f8_pair(a.hi, _mm256_permute_ps(a.hi, 0x4e), signs) };
}
static inline f16x f_butterfly_1(f16x a) {
    const __m256 signs = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
    return { f8_pair(a.lo, _mm256_permute_ps(a.lo, 0xb1), signs), f8_pair(a.hi, _mm256_permute_ps(a.hi, 0xb1), signs) };
}

#endif

// 2^a for a <= 128; below -126 the smallest normal number. Polynomial of least relative error on [-1/2, 1/2], 7.5e-8
static inline f16x f_exp2(f16x a) {
    const f16x x = f_max(f_set(-126.0f), a); // in this order a NaN stays one
    const f16x n = f_round(x);
    const f16x r = f_sub(x, n);
    f16x p = f_fma(f_set(1.3276471524e-3f), r, f_set(9.6755413307e-3f));
    p = f_fma(p, r, f_set(5.5507132749e-2f));
    p = f_fma(p, r, f_set(2.4022119724e-1f));
    p = f_fma(p, r, f_set(6.9314696706e-1f));
    p = f_fma(p, r, f_set(1.0000000717f));
    return f_scale2(p, n);
}

// of at most 87: one over it is a normal number still, others cost ten times as much
static inline f16x f_exp(f16x a) { return f_exp2(f_mul(f_min(f_set(87.0f), a), f_set(1.442695041f))); }

static inline f16x f_sigmoid(f16x a) {
    return f_inverse(f_add(f_set(1.0f), f_exp(f_sub(f_set(0.0f), a))));
}

// Abramowitz and Stegun 7.1.26, 1.5e-7
static inline f16x f_erf(f16x a) {
    const f16x x = f_abs(a);
    const f16x t = f_inverse(f_fma(f_set(0.3275911f), x, f_set(1.0f)));
    f16x p = f_set(1.061405429f);
    p = f_fma(p, t, f_set(-1.453152027f));
    p = f_fma(p, t, f_set(1.421413741f));
    p = f_fma(p, t, f_set(-0.284496736f));
    p = f_fma(p, t, f_set(0.254829592f));
    const f16x tail = f_mul(f_mul(p, t), f_exp(f_max(f_set(-80.0f), f_sub(f_set(0.0f), f_mul(x, x)))));
    return f_sign_of(f_sub(f_set(1.0f), tail), a);
}

static inline f16x f_act(f16x a, aim_act act) {
    switch (act) {
        case AIM_ACT_GELU: { // a * sigmoid(2 sqrt(2/pi) (a + 0.044715 a^3)) = a/2 (1 + tanh(...))
            const f16x cube = f_fma(f_mul(f_mul(a, a), a), f_set(0.044715f), a);
            return f_mul(a, f_sigmoid(f_mul(cube, f_set(1.5957691216057308f))));
        }
        case AIM_ACT_GELU_ERF:
            return f_mul(f_mul(a, f_set(0.5f)), f_add(f_set(1.0f), f_erf(f_mul(a, f_set(0.70710678f)))));
        case AIM_ACT_GELU_QUICK: return f_mul(a, f_sigmoid(f_mul(a, f_set(1.702f))));
        case AIM_ACT_SILU:       return f_mul(a, f_sigmoid(a));
        case AIM_ACT_RELU:       return f_max(a, f_set(0.0f));
        case AIM_ACT_NONE:       break;
    }
    return a;
}
