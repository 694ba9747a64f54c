// the kernel of aim-walk.h for vectors of AIM_WIDTH floats, in namespace AIM_NAMESPACE; included once per instruction set. how keys and
// queries are packed and multiplied is AIM_PRODUCTS: aim-walk-float.h or aim-walk-amx.h. calls nothing but what is in here: a function of the standard library, compiled for this instruction set, could be
// the copy that the linker takes for everybody
namespace AIM_NAMESPACE {

#if AIM_WIDTH > 1
typedef float   vec  __attribute__((vector_size(4*AIM_WIDTH)));
typedef int32_t ivec __attribute__((vector_size(4*AIM_WIDTH)));
typedef float   uvec __attribute__((vector_size(4*AIM_WIDTH), aligned(4), may_alias)); // in memory, at any address
#define AIM_LANE(v, i) (v)[i]
#else
typedef float   vec;
typedef int32_t ivec;
typedef float   uvec;
#define AIM_LANE(v, i) (v)
#endif

constexpr int64_t n_vecs  = AIM_VECS;         // vectors of a panel
constexpr int64_t n_cols  = n_vecs*AIM_WIDTH; // keys of a panel
constexpr int64_t n_block = AIM_WALK_BLOCK;
constexpr int     N       = AIM_WALK_STEPS;

static_assert(n_block % (2*AIM_WIDTH) == 0, "a block is whole");

AIM_TARGET static inline vec  load (const float * x)        { return *(const uvec *) x; }
AIM_TARGET static inline void store(float * x, vec v)       { *(uvec *) x = v; }
AIM_TARGET static inline vec  larger(vec a, vec b)          { return a > b ? a : b; }

AIM_TARGET static inline float largest(vec v) {
    float res = AIM_LANE(v, 0);

    for (int i = 1; i < AIM_WIDTH; ++i) {
        res = AIM_LANE(v, i) > res ? AIM_LANE(v, i) : res;
    }

    return res;
}

AIM_TARGET static inline float total(vec v) {
    float res = 0.0f;

    for (int i = 0; i < AIM_WIDTH; ++i) {
        res += AIM_LANE(v, i);
    }

    return res;
}

// 2^x for x <= 0, within 1.2e-7 of it; 0 below the smallest normal number, NaN stays
AIM_TARGET static inline vec exp2_of(vec x) {
    const vec z = x + 12582912.0f; // 1.5*2^23: the sum's last bits are the nearest integer to x
    const vec f = x - (z - 12582912.0f);

    // minimax over [-1/2, 1/2], 2e-9
    vec r = f*0.000153533606f + 0.00133988744f;
    r = r*f + 0.00961843736f;
    r = r*f + 0.0555033247f;
    r = r*f + 0.240226479f;
    r = r*f + 0.693147203f;
    r = r*f + 1.0f;

    union { vec f; ivec i; } scale = { z };
    scale.i = (scale.i + 127) << 23;

    return x < -126.0f ? vec{} : r*scale.f;
}

#include AIM_PRODUCTS

// adds its keys' bias to a panel of products, whose largest are others then; max: the largest so far of each row, by lane
AIM_TARGET static void add_bias(const float * bias, float * s, int64_t stride, vec * max) {
    for (int64_t v = 0; v < n_vecs; ++v) {
        const vec b = load(bias + v*AIM_WIDTH);

        for (int64_t r = 0; r < n_block; ++r) {
            const vec x = load(s + r*stride + v*AIM_WIDTH) + b;

            store(s + r*stride + v*AIM_WIDTH, x);
            max[r] = larger(x, max[r]);
        }
    }
}

// a block's products with all panels that its rows see, the future masked with -infinity; max: each row's largest
AIM_TARGET static void scores(const aim_walk & w, int64_t i0, const float * q, const float * packed, float * s, int64_t stride, float * max) {
    const int64_t first = w.n_k - w.n_q + i0; // keys that the first row sees, but for itself
    const int64_t end   = first + n_block < w.n_k ? first + n_block : w.n_k;

    vec best[n_block];   // of the products
    vec biased[n_block]; // with the bias, where there is one

    for (int64_t r = 0; r < n_block; ++r) {
        best[r] = biased[r] = vec{} - INFINITY;
    }

    int64_t j0 = 0;

    // panels that every row sees whole
    for (; j0 + n_cols <= first + 1; j0 += n_cols) {
        products(w.n_embd_head, q, packed + j0*n_packed(w.n_embd_head), s + j0, stride, best);

        if (w.bias) {
            add_bias(w.bias + j0, s + j0, stride, biased);
        }
    }

    for (int64_t r = 0; r < n_block; ++r) {
        max[r] = largest(w.bias ? biased[r] : best[r]);
    }

    for (; j0 < end; j0 += n_cols) {
        products(w.n_embd_head, q, packed + j0*n_packed(w.n_embd_head), s + j0, stride, best);

        if (w.bias) {
            add_bias(w.bias + j0, s + j0, stride, biased);
        }

        for (int64_t r = 0; r < n_block; ++r) {
            const int64_t i = first + r < w.n_k ? first + r : w.n_k - 1; // the last key that the row sees

            for (int64_t j = j0; j < j0 + n_cols; ++j) {
                float & x = s[r*stride + j];

                x      = j > i ? -INFINITY : x;
                max[r] = x > max[r] ? x : max[r];
            }
        }
    }
}

// s <- exp((s - max)*scale) over n whole panels, returns 1/sum
AIM_TARGET static float sharpen(float * s, int64_t n, float max, float scale) {
    vec sum[n_vecs] = {};

    for (int64_t j = 0; j < n; j += n_cols) {
        for (int64_t v = 0; v < n_vecs; ++v) {
            const vec x = exp2_of((load(s + j + v*AIM_WIDTH) - max)*scale);

            store(s + j + v*AIM_WIDTH, x);
            sum[v] += x;
        }
    }

    for (int64_t v = 1; v < n_vecs; ++v) {
        sum[0] += sum[v];
    }

    return 1.0f/total(sum[0]);
}

// p: [n_steps + 1][n], the steps one after the other. rows of a block see its own columns in turn, from the last on
// weight: [n_block][N], what each row gives to step 1, 2, ... of the columns it sees
AIM_TARGET static void walk_corner(const aim_walk & w, int64_t i0, const float * s, int64_t stride, const float * inv, float * p, int64_t n, float * weight) {
    for (int64_t r = n_block - 1; r >= 0; --r) {
        if (i0 + r >= w.n_q) {
            for (int k = 0; k < N; ++k) {
                weight[r*N + k] = 0.0f;
            }
            continue;
        }

        const float * m = s + r*stride;

        for (int k = 0; k < N; ++k) {
            const float x = p[k*n + i0 + r]*inv[r]; // final: later rows have given theirs, and the row its own in the turn before

            for (int64_t j = 0; j <= r; ++j) {
                p[(k + 1)*n + i0 + j] += x*m[j];
            }

            weight[r*N + k] = x;
        }
    }
}

// what a block's rows give to the columns before the block
AIM_TARGET static void walk_rows(int64_t n_before, const float * s, int64_t stride, const float * weight, float * p, int64_t n) {
    for (int64_t j = 0; j < n_before; j += 2*AIM_WIDTH) {
        vec acc[N][2];

        for (int k = 0; k < N; ++k) {
            acc[k][0] = load(p + (k + 1)*n + j);
            acc[k][1] = load(p + (k + 1)*n + j + AIM_WIDTH);
        }

        for (int64_t r = 0; r < n_block; ++r) {
            const vec m0 = load(s + r*stride + j);
            const vec m1 = load(s + r*stride + j + AIM_WIDTH);

            for (int k = 0; k < N; ++k) {
                acc[k][0] += m0*weight[r*N + k];
                acc[k][1] += m1*weight[r*N + k];
            }
        }

        for (int k = 0; k < N; ++k) {
            store(p + (k + 1)*n + j,             acc[k][0]);
            store(p + (k + 1)*n + j + AIM_WIDTH, acc[k][1]);
        }
    }
}

// a head's queries lie far apart: asked for a block ahead, they are there when they are packed
AIM_TARGET static void prefetch_queries(const aim_walk & w, int64_t h, int64_t i0) {
#if defined(__GNUC__)
    for (int64_t r = 0; i0 >= 0 && r < n_block; ++r) {
        for (int64_t d = 0; d < w.n_embd_head; d += 16) {
            __builtin_prefetch(w.q + ((i0 + r)*w.n_head + h)*w.n_embd_head + d);
        }
    }
#else
    GGML_UNUSED(w); GGML_UNUSED(h); GGML_UNUSED(i0);
#endif
}

AIM_TARGET static void run(const aim_walk & w, int64_t h, const float * packed, float * work, float * out, bool (*go_on)(void *), void * data) {
    const int64_t n      = (w.n_q + n_block - 1)/n_block*n_block;
    const int64_t stride = (w.n_k + n_cols  - 1)/n_cols *n_cols;
    const int64_t n_past = w.n_k - w.n_q;

    float * p = work;            // [N + 1][n]
    float * q = p + (N + 1)*n;   // a block of queries, packed
    float * s = q + n_block*n_packed(w.n_embd_head); // [n_block][stride]

    for (int64_t i = 0; i < (N + 1)*n; ++i) {
        p[i] = i < n ? 1.0f/w.n_k : 0.0f;
    }

    const products_state state;

    for (int64_t i0 = n - n_block; i0 >= 0; i0 -= n_block) {
        if (!go_on(data)) {
            return;
        }

        float max[n_block];
        float inv[n_block];
        float weight[n_block*N];

        pack_queries(w, h, i0, q);
        prefetch_queries(w, h, i0 - n_block);
        scores(w, i0, q, packed, s, stride, max);

        const int64_t n_seen = n_past + i0 + n_block < w.n_k ? n_past + i0 + n_block : w.n_k;

        for (int64_t r = 0; r < n_block; ++r) {
            inv[r] = sharpen(s + r*stride, (n_seen + n_cols - 1)/n_cols*n_cols, max[r], w.scale*1.44269504f);
        }

        walk_corner(w, i0, s + n_past + i0, stride, inv, p, n, weight);
        walk_rows(i0, s + n_past, stride, weight, p, n);
    }

    for (int64_t i = 0; i < w.n_q; ++i) {
        out[i] = p[N*n + i];
    }
}

#undef AIM_LANE

} // namespace AIM_NAMESPACE
