#include "aim-importance.h"

#include "aim-error.h"

#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <deque>

ggml_backend_sched_t aim_backends::get_sched(size_t n_nodes) {
    if (n_nodes > n_nodes_max) {
        sched.reset(ggml_backend_sched_new(backends.data(), bufts.data(), backends.size(), n_nodes, false, false));
        n_nodes_max = n_nodes;
    }

    return sched.get();
}

//
// one small graph
//

class aim_graph {
public:
    // purpose: for errors
    aim_graph(aim_backends & on, size_t n_nodes, const char * purpose) : sched(on.get_sched(n_nodes)), purpose(purpose) {
        const ggml_init_params params = {
            /*.mem_size   =*/ 2*n_nodes*ggml_tensor_overhead() + ggml_graph_overhead_custom(n_nodes, false),
            /*.mem_buffer =*/ nullptr,
            /*.no_alloc   =*/ true,
        };

        ctx_owner.reset(ggml_init(params));
        ctx = ctx_owner.get();
        gf  = ggml_new_graph_custom(ctx, n_nodes, false);
    }

    ~aim_graph() {
        ggml_backend_sched_reset(sched); // it must not look at tensors that are gone
    }

    aim_graph(const aim_graph &) = delete;
    aim_graph & operator=(const aim_graph &) = delete;

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
        if (!ggml_backend_sched_alloc_graph(sched, gf)) {
            aim_fail(AIM_STATUS_FAILED, "not enough memory for %s", purpose);
        }
    }

    void compute() const {
        const ggml_status status = ggml_backend_sched_graph_compute(sched, gf);

        if (status == GGML_STATUS_ABORTED) {
            aim_fail(AIM_STATUS_ABORTED, "aborted in %s", purpose);
        }

        if (status != GGML_STATUS_SUCCESS) {
            aim_fail(AIM_STATUS_FAILED, "%s failed to compute", purpose);
        }
    }

    ggml_context * ctx = nullptr;
    ggml_cgraph  * gf  = nullptr;

private:
    ggml_context_ptr     ctx_owner;
    ggml_backend_sched_t sched;
    const char *         purpose;
};

void aim_get_rows(aim_backends & on, ggml_tensor * matrix, const std::vector<int32_t> & rows, float * out) {
    const aim_graph g(on, 8, "the token embeddings");

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

static size_t n_bytes_of(const std::vector<row_block> & blocks, int64_t n_past) {
    size_t res = 0;

    for (const row_block & block : blocks) {
        res += (block.i1 - block.i0)*(n_past + block.i1)*sizeof(float);
    }

    return res;
}

static score_plan plan_scores(int64_t n_q, int64_t n_k, size_t n_bytes_max, bool on_host) {
    // on the CPU, eight blocks skip nearly half of the square, which the causal mask would clear; a GPU does better with one
    // one op takes all of them, see product_host(), and GGML_MAX_SRC is 10
    const auto blocks = split_rows(n_q, on_host ? std::max<int64_t>(128, (n_q + 7)/8) : n_q);

    if (n_bytes_of(blocks, n_k - n_q) <= n_bytes_max) {
        return { blocks, true };
    }

    return { split_rows(n_q, std::max<int64_t>(1, n_bytes_max/(n_k*sizeof(float)))), false };
}

size_t aim_importance_bytes(int64_t n_rows) {
    const score_plan plan = plan_scores(n_rows, n_rows, AIM_SCORES_MAX_BYTES, true);

    return plan.keep ? n_bytes_of(plan.blocks, 0) : AIM_SCORES_MAX_BYTES;
}

// columns whose sums stay in the L1 cache
static constexpr int64_t N_CHUNK = 1024;

// sum[j] += sum over rows i of p[i]*m[i][j], rows of m are stride floats apart
static void add_rows(float * sum, const float * m, const float * p, int64_t n_rows, int64_t n_cols, int64_t stride) {
    int64_t i = 0;

    for (; i + 4 <= n_rows; i += 4) {
        const float * m0 = m + i*stride;
        const float * m1 = m0 + stride;
        const float * m2 = m1 + stride;
        const float * m3 = m2 + stride;

        for (int64_t j = 0; j < n_cols; ++j) {
            sum[j] += (p[i]*m0[j] + p[i + 1]*m1[j]) + (p[i + 2]*m2[j] + p[i + 3]*m3[j]);
        }
    }

    for (; i < n_rows; ++i) {
        for (int64_t j = 0; j < n_cols; ++j) {
            sum[j] += p[i]*m[i*stride + j];
        }
    }
}

struct product_args {
    std::vector<row_block> blocks; // descending: the first one has the most columns

    int64_t n_past;
    bool    add; // to what dst holds
};

// dst (+)= p M over the rows of some blocks; sources: p and the blocks' scores, behind dst itself if it is added to
static void product_op(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & args = *(const product_args *) userdata;

    const ggml_tensor * const * srcs = dst->src + (args.add ? 1 : 0);

    // threads share the columns, so no sum is written by two of them
    const int64_t n_cols = args.blocks.front().i1;
    const int64_t n_per  = ((n_cols + nth - 1)/nth + 15)/16*16;
    const int64_t j_end  = std::min(n_cols, n_per*(ith + 1));

    for (int64_t j0 = n_per*ith; j0 < j_end; j0 += N_CHUNK) {
        const int64_t j1 = std::min(j0 + N_CHUNK, j_end);

        float * out = (float *) dst->data + j0;
        float   sum[N_CHUNK] = { 0.0f };

        if (args.add) {
            std::copy_n(out, j1 - j0, sum);
        }

        for (size_t b = 0; b < args.blocks.size(); ++b) {
            const row_block & block = args.blocks[b];

            const ggml_tensor * m = srcs[1 + b];

            // rows before the chunk's first column do not see it, columns behind the block's last row are not seen by it
            const int64_t i0 = std::max(block.i0, j0);
            const int64_t n  = std::min(block.i1, j1) - j0;

            const int64_t stride = m->nb[1]/sizeof(float);

            add_rows(sum, (const float *) m->data + (i0 - block.i0)*stride + args.n_past + j0,
                    (const float *) srcs[0]->data + i0, block.i1 - i0, n, stride);
        }

        std::copy_n(sum, j1 - j0, out);
    }
}

// the graph of one layer's scores
// on the CPU the products run as an op of ours: ggml's would need M transposed, which costs more than the products themselves
class score_graph {
public:
    score_graph(aim_backends & on, const aim_scored_layer & layer, float temperature) :
        layer(layer),
        n_k(layer.cells.size()),
        n_q(layer.n_q),
        n_past(n_k - n_q),
        scale(layer.kq_scale/temperature),
        on_host(ggml_backend_buffer_is_host(layer.k->buffer)),
        plan(plan_scores(n_q, n_k, layer.n_bytes_max, on_host)),
        g(on, 64 + (plan.keep ? 32 : 80)*layer.n_head*plan.blocks.size(), "the scores of a layer") {
        cells = g.input(GGML_TYPE_I32, n_k);
        q     = g.input(GGML_TYPE_F32, layer.n_embd_head, n_q, layer.n_head);

        ggml_tensor * rows = ggml_view_2d(g.ctx, layer.k, layer.k->ne[0], layer.k->ne[1], layer.k->nb[1], 0);

        k = ggml_get_rows(g.ctx, rows, cells);                                    // [n_embd_head*n_head_kv, n_k] f32
        k = ggml_reshape_3d(g.ctx, k, layer.n_embd_head, layer.n_head_kv, n_k);
        k = ggml_cont(g.ctx, ggml_permute(g.ctx, k, 0, 2, 1, 3));                 // [n_embd_head, n_k, n_head_kv]

        factors.resize(plan.blocks.size());

        if (!on_host) {
            for (const row_block & block : plan.blocks) {
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
    std::vector<ggml_tensor *> factors; // of the head being built, one per block
    std::deque<product_args>   args;    // the ops keep pointers to these

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

    // the products of blocks [b0, b1) with p, added to sum if there is one
    ggml_tensor * product_host(ggml_tensor * sum, ggml_tensor * p, size_t b0, size_t b1) {
        std::vector<ggml_tensor *> srcs = { p };

        args.push_back({ {}, n_past, sum != nullptr });

        for (size_t b = b1; b-- > b0;) {
            args.back().blocks.push_back(plan.blocks[b]);
            srcs.push_back(factors[b]);
        }

        return sum ? ggml_custom_inplace(g.ctx, sum, srcs.data(), srcs.size(), product_op, GGML_N_TASKS_MAX, &args.back())
                   : ggml_custom_4d(g.ctx, GGML_TYPE_F32, n_q, 1, 1, 1, srcs.data(), srcs.size(), product_op, GGML_N_TASKS_MAX, &args.back());
    }

    ggml_tensor * product_device(ggml_tensor * sum, ggml_tensor * p, size_t b) const {
        const row_block & block = plan.blocks[b];

        ggml_tensor * pb  = ggml_view_1d(g.ctx, p, block.i1 - block.i0, block.i0*p->nb[0]);
        ggml_tensor * res = ggml_mul_mat(g.ctx, factors[b], pb); // [i1]
        ggml_prec_set_acc(res, GGML_PREC_F32);

        return sum ? ggml_add(g.ctx, sum, ggml_pad(g.ctx, res, n_q - block.i1, 0, 0, 0)) : res;
    }

    // one step, p M; blocks in descending order, because the last one has every column
    ggml_tensor * step(int64_t h, ggml_tensor * p, bool is_first) {
        ggml_tensor * sum = nullptr;

        for (size_t b = plan.blocks.size(); b-- > 0;) {
            if (is_first || !plan.keep) {
                factors[b] = factor(h, b);
            }

            if (!on_host) {
                sum = product_device(sum, p, b);
            } else if (!plan.keep) {
                sum = product_host(sum, p, b, b + 1);
            }

            // in this order the allocator can use a dropped block's memory for the next one
            ggml_build_forward_expand(g.gf, sum ? sum : factors[b]);
        }

        return on_host && plan.keep ? product_host(nullptr, p, 0, plan.blocks.size()) : sum;
    }

    ggml_tensor * walk(int64_t h) {
        ggml_tensor * p = p0;

        for (int i = 0; i < AIM_PAGERANK_STEPS; ++i) {
            p = step(h, p, i == 0);

            ggml_build_forward_expand(g.gf, p);
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

std::vector<float> aim_importance_pagerank(aim_backends & on, const aim_scored_layer & layer) {
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

std::vector<float> aim_importance_last_query(aim_backends & on, const aim_scored_layer & layer) {
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
