#include "aim-importance.h"

#include "ggml.h"
#include "ggml-cpp.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <stdexcept>

//
// small graphs on the context's backends, with a scheduler of their own: llama's graphs and compute buffers stay as they are
//

class aim_graph {
public:
    aim_graph(const aim_backends & on, size_t n_nodes) {
        const ggml_init_params params = {
            /*.mem_size   =*/ 2*n_nodes*ggml_tensor_overhead() + ggml_graph_overhead_custom(n_nodes, false),
            /*.mem_buffer =*/ nullptr,
            /*.no_alloc   =*/ true,
        };

        ctx_owner.reset(ggml_init(params));
        ctx = ctx_owner.get();
        gf  = ggml_new_graph_custom(ctx, n_nodes, false);

        // the scheduler copies nothing, it only reads the lists
        auto backends = on.backends;
        auto bufts    = on.bufts;
        sched.reset(ggml_backend_sched_new(backends.data(), bufts.data(), backends.size(), n_nodes, false, false));
    }

    ggml_tensor * input(ggml_type type, int64_t ne0, int64_t ne1 = 1, int64_t ne2 = 1) const {
        ggml_tensor * res = ggml_new_tensor_3d(ctx, type, ne0, ne1, ne2);
        ggml_set_input(res);
        return res;
    }

    void output(ggml_tensor * t) const {
        ggml_set_output(t);
        ggml_build_forward_expand(gf, t);
    }

    void alloc() const {
        if (!ggml_backend_sched_alloc_graph(sched.get(), gf)) {
            throw std::runtime_error("not enough memory to score a layer");
        }
    }

    void compute() const {
        if (ggml_backend_sched_graph_compute(sched.get(), gf) != GGML_STATUS_SUCCESS) {
            throw std::runtime_error("a scoring graph failed or was aborted");
        }
    }

    ggml_context * ctx = nullptr;
    ggml_cgraph  * gf  = nullptr;

private:
    ggml_context_ptr       ctx_owner;
    ggml_backend_sched_ptr sched;
};

void aim_get_rows(const aim_backends & on, ggml_tensor * matrix, const std::vector<int32_t> & rows, float * out) {
    const aim_graph g(on, 8);

    ggml_tensor * idxs = g.input(GGML_TYPE_I32, rows.size());
    ggml_tensor * res  = ggml_get_rows(g.ctx, matrix, idxs); // [n_embd, n_rows]

    g.output(res);
    g.alloc();

    ggml_backend_tensor_set(idxs, rows.data(), 0, ggml_nbytes(idxs));
    g.compute();

    ggml_backend_tensor_get(res, out, 0, ggml_nbytes(res));
}

//
// one head's scores, in blocks of rows
//

// rows [i0, i1) of the new rows, which see keys [0, n_past + i1)
struct row_block {
    int64_t i0;
    int64_t i1;
};

struct score_plan {
    std::vector<row_block> blocks;

    bool keep; // all blocks of a head fit: softmax once, then five products
};

static std::vector<row_block> split_rows(int64_t n_q, int64_t n_rows) {
    std::vector<row_block> res;

    for (int64_t i0 = 0; i0 < n_q; i0 += n_rows) {
        res.push_back({ i0, std::min(i0 + n_rows, n_q) });
    }

    return res;
}

static score_plan plan_scores(int64_t n_q, int64_t n_k, size_t n_bytes_max, bool on_host) {
    // on the CPU, eight blocks skip nearly half of the square, which the causal mask would clear; a GPU does better with one
    const auto blocks = split_rows(n_q, on_host ? std::max<int64_t>(64, (n_q + 7)/8) : n_q);

    size_t n_bytes = 0;

    for (const row_block & block : blocks) {
        n_bytes += (block.i1 - block.i0)*(n_k - n_q + block.i1)*sizeof(float);
    }

    if (n_bytes <= n_bytes_max) {
        return { blocks, true };
    }

    return { split_rows(n_q, std::max<int64_t>(1, n_bytes_max/(n_k*sizeof(float)))), false };
}

// dst[j] (+)= sum over the block's rows i of p[i0 + i]*m[i][n_past + j], for the block's columns j < i1
struct product_args {
    row_block block;
    int64_t   n_past;
};

static void product_op(ggml_tensor * dst, const ggml_tensor * m, const ggml_tensor * p, const product_args & args, bool add, int ith, int nth) {
    constexpr int64_t n_chunk = 1024; // columns whose sums stay in the L1 cache

    const int64_t n_cols = args.block.i1;
    const int64_t n_rows = args.block.i1 - args.block.i0;

    // threads share the columns, so no sum is written by two of them
    const int64_t n_per  = ((n_cols + nth - 1)/nth + 15)/16*16;
    const int64_t j_end  = std::min(n_cols, n_per*(ith + 1));

    const float * pd  = (const float *) p->data + args.block.i0;
    float       * out = (float *) dst->data;

    for (int64_t j0 = n_per*ith; j0 < j_end; j0 += n_chunk) {
        const int64_t n = std::min(n_chunk, j_end - j0);

        float sum[n_chunk];
        if (add) {
            memcpy(sum, out + j0, n*sizeof(float));
        } else {
            memset(sum, 0, n*sizeof(float));
        }

        // rows before the first column of the chunk do not see it
        int64_t i = std::max<int64_t>(0, j0 - args.block.i0);

        for (; i + 4 <= n_rows; i += 4) {
            const float * m0 = (const float *) ((const char *) m->data + i*m->nb[1]) + args.n_past + j0;
            const float * m1 = (const float *) ((const char *) m0 + m->nb[1]);
            const float * m2 = (const float *) ((const char *) m1 + m->nb[1]);
            const float * m3 = (const float *) ((const char *) m2 + m->nb[1]);

            for (int64_t j = 0; j < n; ++j) {
                sum[j] += (pd[i]*m0[j] + pd[i + 1]*m1[j]) + (pd[i + 2]*m2[j] + pd[i + 3]*m3[j]);
            }
        }

        for (; i < n_rows; ++i) {
            const float * m0 = (const float *) ((const char *) m->data + i*m->nb[1]) + args.n_past + j0;

            for (int64_t j = 0; j < n; ++j) {
                sum[j] += pd[i]*m0[j];
            }
        }

        memcpy(out + j0, sum, n*sizeof(float));
    }
}

static void product_set(ggml_tensor * dst, int ith, int nth, void * args) {
    product_op(dst, dst->src[0], dst->src[1], *(const product_args *) args, false, ith, nth);
}

static void product_add(ggml_tensor * dst, int ith, int nth, void * args) {
    product_op(dst, dst->src[1], dst->src[2], *(const product_args *) args, true, ith, nth);
}

// the graph of one layer's scores
// on the CPU the products run as an op of ours: ggml's would need M transposed, which costs more than the products themselves
class score_graph {
public:
    score_graph(const aim_backends & on, const aim_scored_layer & layer, float temperature) :
        layer(layer),
        n_k(layer.cells.size()),
        n_q(layer.n_q),
        n_past(n_k - n_q),
        scale(layer.kq_scale/temperature),
        on_host(ggml_backend_buffer_is_host(layer.k->buffer)),
        plan(plan_scores(n_q, n_k, layer.n_bytes_max, on_host)),
        g(on, 64 + (plan.keep ? 32 : 80)*layer.n_head*plan.blocks.size()) {
        cells = g.input(GGML_TYPE_I32, n_k);
        q     = g.input(GGML_TYPE_F32, layer.n_embd_head, n_q, layer.n_head);

        ggml_tensor * rows = ggml_view_2d(g.ctx, layer.k, layer.k->ne[0], layer.k->ne[1], layer.k->nb[1], 0);

        k = ggml_get_rows(g.ctx, rows, cells);                                    // [n_embd_head*n_head_kv, n_k] f32
        k = ggml_reshape_3d(g.ctx, k, layer.n_embd_head, layer.n_head_kv, n_k);
        k = ggml_cont(g.ctx, ggml_permute(g.ctx, k, 0, 2, 1, 3));                 // [n_embd_head, n_k, n_head_kv]

        for (const row_block & block : plan.blocks) {
            args.push_back({ block, n_past });

            if (!on_host) {
                masks.push_back(g.input(GGML_TYPE_F16, n_past + block.i1, block.i1 - block.i0));
            }
        }
    }

    // the last softmax row of every head: [n_k, n_head]
    std::vector<float> last_rows() {
        std::vector<ggml_tensor *> heads;

        for (int64_t h = 0; h < layer.n_head; ++h) {
            heads.push_back(scores(h, plan.blocks.size() - 1));
        }

        return run(heads);
    }

    // five steps of every head: [n_q, n_head]
    std::vector<float> walks() {
        p0 = g.input(GGML_TYPE_F32, n_q);

        std::vector<ggml_tensor *> heads;

        for (int64_t h = 0; h < layer.n_head; ++h) {
            heads.push_back(walk(h));
        }

        return run(heads);
    }

private:
    const aim_scored_layer & layer;

    const int64_t n_k;
    const int64_t n_q;
    const int64_t n_past;
    const float   scale;
    const bool    on_host;

    const score_plan plan;

    const aim_graph g;

    ggml_tensor * cells;
    ggml_tensor * q;
    ggml_tensor * k;
    ggml_tensor * p0 = nullptr;

    std::vector<ggml_tensor *> masks;
    std::deque<product_args>   args; // the ops keep pointers to these

    // softmax of the scores of block b of head h: [n_past + i1, i1 - i0]
    ggml_tensor * scores(int64_t h, size_t b) const {
        const row_block & block = plan.blocks[b];

        const int64_t h_kv = h/(layer.n_head/layer.n_head_kv);
        const int64_t n_kb = n_past + block.i1;

        ggml_tensor * kh = ggml_view_2d(g.ctx, k, layer.n_embd_head, n_kb, k->nb[1], h_kv*k->nb[2]);
        ggml_tensor * qh = ggml_view_2d(g.ctx, q, layer.n_embd_head, block.i1 - block.i0, q->nb[1], h*q->nb[2] + block.i0*q->nb[1]);

        ggml_tensor * m = ggml_mul_mat(g.ctx, kh, qh);
        ggml_prec_set_acc(m, GGML_PREC_F32);

        // the CPU masks in place; the mask op is not everywhere, a mask tensor is
        if (on_host) {
            m = ggml_diag_mask_inf_inplace(g.ctx, m, n_past + block.i0);
        }

        return ggml_soft_max_ext_inplace(g.ctx, m, on_host ? nullptr : masks[b], scale, 0.0f);
    }

    // what a product reads of block b: the scores themselves on the CPU, elsewhere the new columns transposed, [i1 - i0, i1]
    ggml_tensor * factor(int64_t h, size_t b) const {
        ggml_tensor * m = scores(h, b);

        if (on_host) {
            return m;
        }

        m = ggml_view_2d(g.ctx, m, plan.blocks[b].i1, m->ne[1], m->nb[1], n_past*m->nb[0]);

        return ggml_cont(g.ctx, ggml_transpose(g.ctx, m));
    }

    // the part of p M that the rows of block b give, added to sum
    ggml_tensor * product(ggml_tensor * sum, ggml_tensor * f, ggml_tensor * p, size_t b) {
        const row_block & block = plan.blocks[b];

        ggml_tensor * srcs[2] = { f, p };

        if (on_host) {
            return sum ? ggml_custom_inplace(g.ctx, sum, srcs, 2, product_add, GGML_N_TASKS_MAX, &args[b])
                       : ggml_custom_4d(g.ctx, GGML_TYPE_F32, n_q, 1, 1, 1, srcs, 2, product_set, GGML_N_TASKS_MAX, &args[b]);
        }

        ggml_tensor * pb  = ggml_view_1d(g.ctx, p, block.i1 - block.i0, block.i0*p->nb[0]);
        ggml_tensor * res = ggml_mul_mat(g.ctx, f, pb); // [i1]
        ggml_prec_set_acc(res, GGML_PREC_F32);

        return sum ? ggml_add(g.ctx, sum, ggml_pad(g.ctx, res, n_q - block.i1, 0, 0, 0)) : res;
    }

    ggml_tensor * walk(int64_t h) {
        const size_t n_blocks = plan.blocks.size();

        std::vector<ggml_tensor *> factors(n_blocks);

        ggml_tensor * p = p0;

        for (int step = 0; step < AIM_PAGERANK_STEPS; ++step) {
            ggml_tensor * sum = nullptr;

            // the last block sees every column, so it comes first and sets the sum
            for (size_t b = n_blocks; b-- > 0;) {
                if (step == 0 || !plan.keep) {
                    factors[b] = factor(h, b);
                }

                sum = product(sum, factors[b], p, b);

                // in this order the allocator can use a dropped block's memory for the next one
                ggml_build_forward_expand(g.gf, sum);
            }

            p = sum;
        }

        return p;
    }

    void set_mask(ggml_tensor * mask, const row_block & block) const {
        std::vector<ggml_fp16_t> data(ggml_nelements(mask), ggml_fp32_to_fp16(-INFINITY));

        for (int64_t i = block.i0; i < block.i1; ++i) {
            const auto row = data.begin() + (i - block.i0)*mask->ne[0];

            std::fill(row, row + n_past + i + 1, ggml_fp32_to_fp16(0.0f));
        }

        ggml_backend_tensor_set(mask, data.data(), 0, ggml_nbytes(mask));
    }

    std::vector<float> run(const std::vector<ggml_tensor *> & heads) const {
        for (ggml_tensor * t : heads) {
            g.output(t);
        }

        g.alloc();

        ggml_backend_tensor_set(cells, layer.cells.data(), 0, ggml_nbytes(cells));
        ggml_backend_tensor_set(q,     layer.q,            0, ggml_nbytes(q));

        if (p0) {
            const std::vector<float> uniform(n_q, 1.0f/n_k);
            ggml_backend_tensor_set(p0, uniform.data(), 0, ggml_nbytes(p0));
        }

        for (size_t b = 0; b < masks.size(); ++b) {
            if (masks[b]->buffer) { // the last row needs the last block's mask only
                set_mask(masks[b], plan.blocks[b]);
            }
        }

        g.compute();

        std::vector<float> res;

        for (const ggml_tensor * t : heads) {
            const size_t n = res.size();
            res.resize(n + ggml_nelements(t));
            ggml_backend_tensor_get(t, res.data() + n, 0, ggml_nbytes(t));
        }

        return res;
    }
};

std::vector<float> aim_importance_pagerank(const aim_backends & on, const aim_scored_layer & layer) {
    const std::vector<float> p = score_graph(on, layer, AIM_PAGERANK_TEMPERATURE).walks();

    std::vector<float> res(layer.n_q);

    for (int64_t i = 0; i < layer.n_q; ++i) {
        double sum = 0.0;

        for (int64_t h = 0; h < layer.n_head; ++h) {
            sum += double(p[h*layer.n_q + i])*p[h*layer.n_q + i];
        }

        res[i] = std::sqrt(sum/layer.n_head);
    }

    return res;
}

std::vector<float> aim_importance_last_query(const aim_backends & on, const aim_scored_layer & layer) {
    const size_t n_k = layer.cells.size();

    const std::vector<float> p = score_graph(on, layer, 1.0f).last_rows();

    std::vector<float> res(n_k);

    for (size_t i = 0; i < n_k; ++i) {
        double sum = 0.0;

        for (int64_t h = 0; h < layer.n_head; ++h) {
            sum += p[h*n_k + i];
        }

        res[i] = sum/layer.n_head;
    }

    return res;
}
