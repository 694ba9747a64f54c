// products of aim-walk-kernel.h in floats: AIM_ROWS rows and a panel at a time stay in registers

constexpr int64_t n_rows = AIM_ROWS;

static_assert(n_block % n_rows == 0, "a block is whole groups of rows");

// floats of a packed key, and of a packed query
static inline int64_t n_packed(int64_t n_embd_head) { return n_embd_head; }

struct products_state {
    products_state() {}
};

// a panel: [n_embd_head][n_cols]
AIM_TARGET static void pack(const aim_walk & w, const float * k, int64_t stride, int64_t n, float * panel) {
    for (int64_t i = 0; i < n_cols; ++i) {
        for (int64_t d = 0; d < w.n_embd_head; ++d) {
            panel[d*n_cols + i] = i < n ? k[i*stride + d] : 0.0f;
        }
    }
}

// queries of head h and rows [i0, i0 + n_block) in groups, out: [n_block/n_rows][n_embd_head][n_rows]; the last row again behind the end
AIM_TARGET static void pack_queries(const aim_walk & w, int64_t h, int64_t i0, float * out) {
    for (int64_t r = 0; r < n_block; ++r) {
        const int64_t i = i0 + r < w.n_q ? i0 + r : w.n_q - 1;

        const float * q = w.q + (i*w.n_head + h)*w.n_embd_head;

        for (int64_t d = 0; d < w.n_embd_head; ++d) {
            out[(r/n_rows*w.n_embd_head + d)*n_rows + r%n_rows] = q[d];
        }
    }
}

// a block of queries times a panel; max: the largest so far of each row, by lane
AIM_TARGET static inline void products(int64_t n_embd, const float * q, const float * panel, float * s, int64_t stride, vec * max) {
    for (int64_t r0 = 0; r0 < n_block; r0 += n_rows) {
        vec acc[n_rows][n_vecs] = {};

        for (int64_t d = 0; d < n_embd; ++d) {
            vec k[n_vecs];

            for (int64_t v = 0; v < n_vecs; ++v) {
                k[v] = load(panel + d*n_cols + v*AIM_WIDTH);
            }

            for (int64_t r = 0; r < n_rows; ++r) {
                for (int64_t v = 0; v < n_vecs; ++v) {
                    acc[r][v] += k[v]*q[r0*n_embd + d*n_rows + r];
                }
            }
        }

        for (int64_t r = 0; r < n_rows; ++r) {
            for (int64_t v = 0; v < n_vecs; ++v) {
                store(s + (r0 + r)*stride + v*AIM_WIDTH, acc[r][v]);
                max[r0 + r] = larger(acc[r][v], max[r0 + r]);
            }
        }
    }
}
