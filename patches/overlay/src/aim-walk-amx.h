// products of aim-walk-kernel.h with AMX tiles, as near to floats as floats are: a float is the sum of three bf16 of eight bits each,
// and six of the nine products of two such sums are computed; the others are below 2^-23 of the whole
//
// a block of queries and a panel of keys are tiles of 16 x 32 numbers: [steps of 32 along the head][part][two tiles of 16 rows]

static_assert(n_block == 32 && n_cols == 32, "two tiles of queries, two of keys");

constexpr int64_t n_tile = 1024/sizeof(float); // floats of memory
constexpr int64_t n_step = 3*2*n_tile;

typedef uint16_t halves __attribute__((vector_size(2*AIM_WIDTH), aligned(2), may_alias));

static inline int64_t n_steps (int64_t n_embd_head) { return (n_embd_head + 31)/32; }
static inline int64_t n_packed(int64_t n_embd_head) { return n_steps(n_embd_head)*n_step/32; }

// the shape of every tile while it lives: 16 rows of 64 bytes
struct products_state {
    products_state() {
        struct alignas(64) tiles {
            uint8_t  palette_id = 1, start_row = 0, reserved[14] = {};
            uint16_t colsb[16]  = { 64, 64, 64, 64, 64, 64, 64, 64 };
            uint8_t  rows[16]   = { 16, 16, 16, 16, 16, 16, 16, 16 };
        };
        static constexpr tiles shape;
        __asm__ volatile("ldtilecfg %0" : : "m"(shape));
    }

    ~products_state() { __asm__ volatile("tilerelease"); }

    products_state(const products_state &) = delete;
    products_state & operator=(const products_state &) = delete;
};

// 16 numbers from x on, of n that are left, in three parts that sum up to them
AIM_TARGET static inline void split(const float * x, int64_t n, halves part[3]) {
    vec left = {};

    if (n >= AIM_WIDTH) {
        left = load(x);
    } else {
        for (int64_t i = 0; i < n; ++i) {
            left[i] = x[i];
        }
    }

    for (int p = 0; p < 3; ++p) {
        union { vec f; ivec i; } high = { left };

        high.i &= ~0xffff;
        part[p] = __builtin_convertvector(high.i >> 16, halves);
        left   -= high.f;
    }
}

// queries: tiles of rows
AIM_TARGET static void pack_queries(const aim_walk & w, int64_t h, int64_t i0, float * out) {
    for (int64_t r = 0; r < n_block; ++r) {
        const int64_t i = i0 + r < w.n_q ? i0 + r : w.n_q - 1;

        const float * q = w.q + (i*w.n_head + h)*w.n_embd_head;

        for (int64_t d = 0; d < 32*n_steps(w.n_embd_head); d += AIM_WIDTH) {
            halves part[3];
            split(q + d, w.n_embd_head - d, part);

            for (int p = 0; p < 3; ++p) {
                *(halves *) (out + d/32*n_step + (2*p + r/16)*n_tile + r%16*16 + d%32/2) = part[p];
            }
        }
    }
}

// keys: tiles of pairs, [16 pairs along the head][16 keys][2]
AIM_TARGET static void pack(const aim_walk & w, const float * k, int64_t stride, int64_t n, float * panel) {
    typedef uint32_t pair __attribute__((may_alias));

    for (int64_t d = 0; d < 32*n_steps(w.n_embd_head); d += AIM_WIDTH) {
        for (int64_t i = 0; i < n_cols; ++i) {
            halves part[3];
            split(k + i*stride + d, i < n ? w.n_embd_head - d : 0, part);

            for (int p = 0; p < 3; ++p) {
                pair * to = (pair *) (panel + d/32*n_step + (2*p + i/16)*n_tile + d%32/2*16 + i%16);

                for (int j = 0; j < AIM_WIDTH/2; ++j) {
                    to[16*j] = ((const pair *) &part[p])[j];
                }
            }
        }
    }
}

// a row of tiles of part P, and what they are multiplied into: queries 4 and 5, keys 6 and 7, products 0 to 3
#define AIM_LOAD(tile, from)  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((size_t) 64) : "memory")
#define AIM_STORE(tile, to)   __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"((size_t) (4*stride)) : "memory")
#define AIM_DOT(c, a, b)      __asm__ volatile("tdpbf16ps %tmm" #b ", %tmm" #a ", %tmm" #c)
#define AIM_QUERIES(part)     AIM_LOAD(4, q + 2*part*n_tile); AIM_LOAD(5, q + (2*part + 1)*n_tile)
#define AIM_KEYS(part)        AIM_LOAD(6, panel + 2*part*n_tile); AIM_LOAD(7, panel + (2*part + 1)*n_tile)
#define AIM_DOTS()            AIM_DOT(0, 4, 6); AIM_DOT(1, 4, 7); AIM_DOT(2, 5, 6); AIM_DOT(3, 5, 7)

// a block of queries times a panel; max: the largest so far of each row, by lane
AIM_TARGET static inline void products(int64_t n_embd, const float * q, const float * panel, float * s, int64_t stride, vec * max) {
    __asm__ volatile("tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3");

    for (int64_t step = 0; step < n_steps(n_embd); ++step, q += n_step, panel += n_step) {
        AIM_QUERIES(2); AIM_KEYS(0); AIM_DOTS();
        AIM_QUERIES(1);              AIM_DOTS();
                        AIM_KEYS(1); AIM_DOTS();
        AIM_QUERIES(0);              AIM_DOTS();
                        AIM_KEYS(2); AIM_DOTS();
                        AIM_KEYS(0); AIM_DOTS();
    }

    AIM_STORE(0, s);
    AIM_STORE(1, s + 16);
    AIM_STORE(2, s + 16*stride);
    AIM_STORE(3, s + 16*stride + 16);

    for (int64_t r = 0; r < n_block; ++r) {
        for (int64_t v = 0; v < n_vecs; ++v) {
            max[r] = larger(load(s + r*stride + v*AIM_WIDTH), max[r]);
        }
    }
}

#undef AIM_LOAD
#undef AIM_STORE
#undef AIM_DOT
#undef AIM_QUERIES
#undef AIM_KEYS
#undef AIM_DOTS
