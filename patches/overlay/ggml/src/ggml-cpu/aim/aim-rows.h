// what all kernels do with rows: packing, softmax, norms, and what becomes of a product; same rules as aim-simd.h
#pragma once

#include "aim-simd.h"

// --- packing -------------------------------------------------------------------------------------------------------

static inline void rotate_64(float * x) { // times a Hadamard matrix, 8 times as long afterwards
    f16x a = f_load(x), b = f_load(x + 16), c = f_load(x + 32), d = f_load(x + 48);
    const f16x s = f_add(a, c), t = f_add(b, d), u = f_sub(a, c), v = f_sub(b, d);
    f16x y[4] = { f_add(s, t), f_sub(s, t), f_add(u, v), f_sub(u, v) };
    for (int i = 0; i < 4; i++) {
        f_store(x + 16*i, f_butterfly_1(f_butterfly_2(f_butterfly_4(f_butterfly_8(y[i])))));
    }
}

// the factor to whole numbers, of k values
static inline float whole_factor(aim_pack type, float highest, float norm2, int64_t k) {
    if (!(highest > 1e-30f)) {
        return highest == 0 || highest <= 1e-30f ? 0.0f : highest; // zeros; NaN
    }
    if (type == AIM_PACK_I8) {
        return 127.0f / highest;
    }
    // |a| |b| < 2^31 in whole numbers, with room for what rounding adds
    // squares leave float's range long before the values do: then the norm is at most that of k values like the highest
    const bool  measured = highest > 1e-15f && highest < 1e15f;
    const float squares  = measured ? norm2 : (float) k;
    const float by_norm  = 45000.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(squares))) / (measured ? 1.0f : highest);
    const float by_type = 32000.0f / highest;
    return by_norm < by_type ? by_norm : by_type;
}

// sixteen values from i on; zeros from k on
static inline f16x load_source(aim_source src, int64_t i, int64_t k) {
    if (i + 16 <= k) {
        return src.half ? f_load_half((const uint16_t *) src.data + i) : f_load((const float *) src.data + i);
    }
    const int n = k > i ? (int) (k - i) : 0;
    if (!src.half) {
        return f_load_n((const float *) src.data + i, n);
    }
    uint16_t halves[16] = {};
    __builtin_memcpy(halves, (const uint16_t *) src.data + i, n*sizeof(uint16_t));
    return f_load_half(halves);
}

static void pack_bf16(aim_source src, int64_t k, int64_t k_padded, uint8_t * dst, size_t chunk_stride) {
    for (int64_t i = 0; i < k_padded; i += 32) {
        uint8_t * chunk = dst + i/32*chunk_stride;
        f_store_bf16(chunk,      load_source(src, i, k));
        f_store_bf16(chunk + 32, load_source(src, i + 16, k));
    }
}

// the row into work, rotated and padded with zeros; highest magnitude and sum of squares
static void measure(aim_pack type, aim_source src, int64_t k, int64_t k_padded, float * work, float * highest, float * norm2) {
    const int64_t step = type == AIM_PACK_I8 ? 64 : 16;
    f16x high = f_set(0), squares = f_set(0), wrong = f_set(0);
    for (int64_t i = 0; i < k_padded; i += step) {
        for (int64_t j = i; j < i + step; j += 16) {
            f_store(work + j, load_source(src, j, k));
        }
        if (type == AIM_PACK_I8) {
            rotate_64(work + i);
        }
        for (int64_t j = i; j < i + step; j += 16) {
            const f16x x = f_load(work + j);
            high    = f_max(high, f_abs(x));
            squares = f_fma(x, x, squares);
            wrong   = f_fma(x, f_set(0), wrong); // NaN where there is an infinity or a NaN
        }
    }
    *highest = f_highest(high) + f_sum(wrong);
    *norm2   = f_sum(squares);
}

// flip: 0x80 where int8 is stored with 128 added
static int32_t pack_scaled(aim_pack type, aim_source src, int64_t k, int64_t k_padded, uint8_t * dst, size_t chunk_stride, float * scale,
                           float * work, uint8_t flip) {
    float highest, norm2;
    measure(type, src, k, k_padded, work, &highest, &norm2);
    const float factor = whole_factor(type, highest, norm2, k);
    const f16x  by     = f_set(factor == factor ? factor : 0.0f);
    f16x total = f_set(0); // whole numbers below 2^24
    for (int64_t i = 0; i < k_padded; i += type == AIM_PACK_I8 ? 64 : 32) {
        if (type == AIM_PACK_I8) {
            uint8_t * chunk = dst + i / 64 * chunk_stride;
            for (int j = 0; j < 64; j += 16) {
                const f16x whole = f_round(f_mul(f_load(work + i + j), by));
                total = f_add(total, whole);
                f_store_i8(chunk + j, whole, flip);
            }
        } else {
            uint8_t * chunk = dst + i / 32 * chunk_stride;
            f_store_i16(chunk,      f_mul(f_load(work + i),      by));
            f_store_i16(chunk + 32, f_mul(f_load(work + i + 16), by));
        }
    }
    // rotated vectors have 64 times the product of the plain ones
    const float unit = factor != factor ? factor : factor > 0 ? 1.0f / factor : 0.0f;
    *scale = type == AIM_PACK_I8 ? unit * 0.125f : unit;
    return (int32_t) f_sum(total);
}

static void pack_row(aim_pack type, aim_source src, int64_t k, int64_t k_padded, uint8_t * dst, size_t chunk_stride, float * scale, float * work) {
    if (type == AIM_PACK_BF16) {
        pack_bf16(src, k, k_padded, dst, chunk_stride);
    } else {
        pack_scaled(type, src, k, k_padded, dst, chunk_stride, scale, work, AIM_ROW_FLIP);
    }
}

static void pack_column(aim_pack type, aim_source src, int64_t k, int64_t k_padded, uint8_t * dst, float * scale, int32_t * sum, float * work) {
    if (type == AIM_PACK_BF16) {
        pack_bf16(src, k, k_padded, dst, 64);
    } else {
        *sum = pack_scaled(type, src, k, k_padded, dst, 64, scale, work, 0);
    }
}

// sixteen columns of two rows, element by element
static inline void store_pairs(aim_pack type, f16x a, f16x b, uint8_t * dst) {
    alignas(64) uint16_t x[16], y[16];
    if (type == AIM_PACK_BF16) {
        f_store_bf16((uint8_t *) x, a);
        f_store_bf16((uint8_t *) y, b);
    } else {
        f_store_i16((uint8_t *) x, a);
        f_store_i16((uint8_t *) y, b);
    }
    const __m256i p = _mm256_load_si256((const __m256i *) x), q = _mm256_load_si256((const __m256i *) y);
    const __m256i low = _mm256_unpacklo_epi16(p, q), high = _mm256_unpackhi_epi16(p, q);
    _mm256_storeu_si256((__m256i *) dst,     _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *) dst + 1, _mm256_permute2x128_si256(low, high, 0x31));
}

static void pack_columns(aim_pack type, aim_source src, int64_t k, int64_t k_padded, int n, uint8_t * dst, float * scales) {
    auto row = [&](int64_t i) { return i < k ? load_source({ src.data + i*src.stride, 0, src.half }, 0, n) : f_set(0); };
    f16x by = f_set(1);
    if (type == AIM_PACK_I16) {
        f16x high = f_set(0), squares = f_set(0);
        for (int64_t i = 0; i < k; i++) {
            const f16x x = row(i);
            high    = f_max(f_abs(x), high); // in this order a NaN stays one
            squares = f_fma(x, x, squares);
        }
        float highest[16], norm2[16];
        f_store(highest, high);
        f_store(norm2, squares);
        for (int i = 0; i < 16; i++) {
            const float wrong  = highest[i]*0 + (norm2[i] == norm2[i] ? 0.0f : norm2[i]); // infinite squares are none
            const float factor = whole_factor(type, highest[i] + wrong, norm2[i], k);
            scales[i]  = factor != factor ? factor : factor > 0 ? 1.0f/factor : 0.0f;
            highest[i] = factor != factor ? 0.0f : factor;
        }
        by = f_load(highest);
    }
    for (int64_t i = 0; i < k_padded; i += 2) {
        store_pairs(type, f_mul(row(i), by), f_mul(row(i + 1), by), dst + 32*i);
    }
}

// --- softmax and norms ---------------------------------------------------------------------------------------------

// sums and maxima of two vectors at a time: one alone would wait for itself
static float softmax(aim_pack type, float * row, const uint16_t * mask, float scale, int64_t k, int64_t k_padded, uint8_t * dst, size_t chunk_stride, float * work) {
    const float inf = __builtin_inff(), log2e = 1.442695041f;
    const aim_source masks = { (const char *) mask, 0, true };
    const f16x by = f_set(scale*log2e);
    f16x high[2] = { f_set(-inf), f_set(-inf) };
    for (int64_t i = 0; i < k; i += 32) {
        for (int j = 0; j < 2; j++) {
            const int64_t at = i + 16*j;
            f16x x = f_mul(f_load(row + at), by);
            x = mask ? f_fma(load_source(masks, at, k), f_set(log2e), x) : x;
            f_store(row + at, x);
            if (at + 16 > k) {
                for (int64_t n = at > k ? at : k; n < at + 16; n++) {
                    row[n] = -inf;
                }
                x = f_load(row + at);
            }
            high[j] = f_max(high[j], x);
        }
    }
    const float highest = f_highest(f_max(high[0], high[1]));
    bool nothing = highest == -inf; // to attend to: zeros
    for (int64_t i = 0; nothing && i < k; i++) {
        nothing = row[i] == row[i]; // maxima pass over NaN, which has to stay
    }
    f16x sum[2] = { f_set(0), f_set(0) };
    for (int64_t i = 0; i < k_padded; i += 32) {
        for (int j = 0; j < 2; j++) {
            const int64_t at = i + 16*j;
            const f16x e = at < k && !nothing ? f_exp2(f_sub(f_load(row + at), f_set(highest))) : f_set(0);
            sum[j] = f_add(sum[j], e);
            if (type == AIM_PACK_BF16) {
                f_store_bf16(dst + i/32*chunk_stride + 32*j, e);
            } else {
                f_store(row + at, e);
            }
        }
    }
    float unit = 1;
    if (type != AIM_PACK_BF16) {
        pack_row(type, { (const char *) row, 0, false }, k_padded, k_padded, dst, chunk_stride, &unit, work);
    }
    return nothing ? 0.0f : unit/f_sum(f_add(sum[0], sum[1]));
}

static void norm(const float * x, int64_t n, float eps, bool rms, const float * gamma, const float * beta, float * y) {
    const int64_t whole = n / 16 * 16;
    f16x sum = f_set(0);
    float rest = 0;
    if (!rms) {
        for (int64_t i = 0; i < whole; i += 16) {
            sum = f_add(sum, f_load(x + i));
        }
        for (int64_t i = whole; i < n; i++) {
            rest += x[i];
        }
    }
    const float mean = (f_sum(sum) + rest) / n;
    f16x squares = f_set(0);
    rest = 0;
    for (int64_t i = 0; i < whole; i += 16) {
        const f16x d = f_sub(f_load(x + i), f_set(mean));
        squares = f_fma(d, d, squares);
    }
    for (int64_t i = whole; i < n; i++) {
        rest += (x[i] - mean)*(x[i] - mean);
    }
    const float by = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss((f_sum(squares) + rest) / n + eps)));
    for (int64_t i = 0; i < whole; i += 16) {
        f16x d = f_mul(f_sub(f_load(x + i), f_set(mean)), f_set(by));
        d = gamma ? f_mul(d, f_load(gamma + i)) : d;
        f_store(y + i, beta ? f_add(d, f_load(beta + i)) : d);
    }
    for (int64_t i = whole; i < n; i++) {
        const float d = (x[i] - mean)*by*(gamma ? gamma[i] : 1.0f);
        y[i] = d + (beta ? beta[i] : 0.0f);
    }
}

// --- what becomes of a product -------------------------------------------------------------------------------------

// sixteen columns from n0 of row m
template <aim_act ACT>
static inline void finish(const aim_out & out, f16x c, int64_t m, int64_t n0) {
    float * dst = out.dst + m*out.dst_stride + n0;
    const float * residual = out.residual ? out.residual + m*out.residual_stride + n0 : nullptr;
    if (out.n - n0 >= 16) {
        c = out.bias ? f_add(c, f_load(out.bias + n0)) : c;
        c = f_act(c, ACT);
        c = out.gamma ? f_mul(c, f_load(out.gamma + n0)) : c;
        f_store(dst, residual ? f_add(c, f_load(residual)) : c);
    } else {
        const int n = (int) (out.n - n0);
        c = out.bias ? f_add(c, f_load_n(out.bias + n0, n)) : c;
        c = f_act(c, ACT);
        c = out.gamma ? f_mul(c, f_load_n(out.gamma + n0, n)) : c;
        f_store_n(dst, residual ? f_add(c, f_load_n(residual, n)) : c, n);
    }
}

template <aim_act ACT>
static inline void finish_rows(aim_pack type, const void * acc, const float * a_scales, const float * b_scales, int64_t m0, int rows, int64_t n0, const aim_out & out) {
    const f16x columns = type == AIM_PACK_BF16 ? f_set(1) : f_load(b_scales + n0);
    for (int r = 0; r < rows; r++) {
        f16x c = type == AIM_PACK_BF16 ? f_load((const float *) acc + 16*r) : f_mul(f_from_i32((const int32_t *) acc + 16*r), columns);
        finish<ACT>(out, a_scales ? f_mul(c, f_set(a_scales[m0 + r])) : c, m0 + r, n0);
    }
}

// rows x 16 accumulators of one column block, in order
static inline void finish_block(aim_pack type, const void * acc, aim_operand a, aim_operand b, int64_t m0, int rows, int64_t block, const aim_out * where) {
    const aim_out out = *where; // what is stored could be this, as far as the compiler knows
    switch (out.act) {
        case AIM_ACT_NONE:       finish_rows<AIM_ACT_NONE>      (type, acc, a.scales, b.scales, m0, rows, 16*block, out); break;
        case AIM_ACT_GELU:       finish_rows<AIM_ACT_GELU>      (type, acc, a.scales, b.scales, m0, rows, 16*block, out); break;
        case AIM_ACT_GELU_ERF:   finish_rows<AIM_ACT_GELU_ERF>  (type, acc, a.scales, b.scales, m0, rows, 16*block, out); break;
        case AIM_ACT_GELU_QUICK: finish_rows<AIM_ACT_GELU_QUICK>(type, acc, a.scales, b.scales, m0, rows, 16*block, out); break;
        case AIM_ACT_SILU:       finish_rows<AIM_ACT_SILU>      (type, acc, a.scales, b.scales, m0, rows, 16*block, out); break;
        case AIM_ACT_RELU:       finish_rows<AIM_ACT_RELU>      (type, acc, a.scales, b.scales, m0, rows, 16*block, out); break;
    }
}
