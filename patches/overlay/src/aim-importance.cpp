#include "aim-importance.h"

#include "aim-error.h"
#include "aim-walk.h"

#include "ggml.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

ggml_backend_sched_t aim_backends::get_sched(size_t n_nodes) {
    if (n_nodes > n_nodes_max) {
        sched.reset(ggml_backend_sched_new(backends.data(), bufts.data(), backends.size(), n_nodes, false, false));
        n_nodes_max = n_nodes;
    }

    return sched.get();
}

static bool is_elsewhere(ggml_backend_buffer_t buf) {
    ggml_backend_dev_t dev = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(buf));

    return dev && strcmp(ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev)), "RPC") == 0;
}

aim_near_keys::aim_near_keys(ggml_tensor * k_there, const std::vector<int32_t> & cells) : k(k_there) {
    if (cells.empty() || !is_elsewhere(k_there->buffer)) {
        return;
    }

    ctx.reset(ggml_init({ ggml_tensor_overhead(), nullptr, true }));

    k = ggml_new_tensor_2d(ctx.get(), k_there->type, k_there->ne[0], *std::max_element(cells.begin(), cells.end()) + 1);

    buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), ggml_backend_cpu_buffer_type()));

    if (!buf) {
        aim_fail(AIM_STATUS_FAILED, "not enough memory for the keys of a layer");
    }

    ggml_backend_tensor_get(k_there, k->data, 0, ggml_nbytes(k));
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

    // an op of ours: a backend that stands for another machine (ggml-rpc) says that it supports any, and would call our address there
    ggml_tensor * on_host(ggml_tensor * t) const {
        ggml_backend_sched_set_tensor_backend(sched, t, ggml_backend_sched_get_backend(sched, ggml_backend_sched_get_n_backends(sched) - 1));
        return t;
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
    const auto whole = split_rows(n_q, n_q);

    if (n_bytes_of(whole, n_k - n_q) <= n_bytes_max) {
        return { whole, true };
    }

    // a device multiplies with p from a block's first row on, and Vulkan aborts at an offset that its buffers do not allow:
    // multiples of 256 bytes are right everywhere
    const int64_t n_step = on_host ? 1 : 256/sizeof(float);
    const int64_t n_fit  = n_bytes_max/(n_k*sizeof(float))/n_step*n_step;

    return { split_rows(n_q, std::max(n_step, n_fit)), false };
}

// what keys weigh, as it is added to products that are not scaled yet
static std::vector<float> unscaled_weights(const aim_scored_layer & layer, float scale) {
    std::vector<float> res = layer.weights;

    for (float & x : res) {
        x /= scale;
    }

    return res;
}

// the graph of one layer's scores
// for devices; the CPU has the kernels of aim-walk.h, and runs this one where a caller limits the memory for scores
class score_graph {
public:
    score_graph(aim_backends & on, const aim_scored_layer & layer, float temperature) :
        layer(layer),
        n_k(layer.cells.size()),
        n_q(layer.n_q),
        n_past(n_k - n_q),
        scale(layer.kq_scale/temperature),
        plan(plan_scores(n_q, n_k, layer.n_bytes_max > 0 ? layer.n_bytes_max : AIM_SCORES_MAX_BYTES, ggml_backend_buffer_is_host(layer.k->buffer))),
        g(on, 64 + (plan.keep ? 32 : 80)*layer.n_head*plan.blocks.size(), "the scores of a layer") {
        cells = g.input(GGML_TYPE_I32, n_k);
        q_in  = g.input(GGML_TYPE_F32, layer.n_embd_head, layer.n_head, n_q);
        q     = ggml_cont(g.ctx, ggml_permute(g.ctx, q_in, 0, 2, 1, 3)); // [n_embd_head, n_q, n_head]

        ggml_tensor * rows = ggml_view_2d(g.ctx, layer.k, layer.k->ne[0], layer.k->ne[1], layer.k->nb[1], 0);

        k = ggml_get_rows(g.ctx, rows, cells);                                    // [n_embd_head*n_head_kv, n_k] f32
        k = ggml_reshape_3d(g.ctx, k, layer.n_embd_head, layer.n_head_kv, n_k);
        k = ggml_cont(g.ctx, ggml_permute(g.ctx, k, 0, 2, 1, 3));                 // [n_embd_head, n_k, n_head_kv]

        factors.resize(plan.blocks.size());

        if (!layer.weights.empty()) {
            weights = g.input(GGML_TYPE_F32, n_k);
        }

        for (const row_block & block : plan.blocks) {
            masks.push_back(g.input(GGML_TYPE_F16, n_past + block.i1, block.i1 - block.i0));
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

    // attention of all rows together, of every head: [n_k, n_head]
    std::vector<float> sums() {
        p0       = g.input(GGML_TYPE_F32, n_q);
        p0_value = 1.0f;
        j0       = 0;

        std::vector<ggml_tensor *> heads;

        for (int64_t h = 0; h < layer.n_head; ++h) {
            heads.push_back(step(h, p0, true));
        }

        return run(heads);
    }

    // five steps of every head: [n_q, n_head]
    std::vector<float> walks() {
        p0       = g.input(GGML_TYPE_F32, n_q);
        p0_value = 1.0f/n_k;
        j0       = n_past;

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

    const score_plan plan;

    const aim_graph g;

    ggml_tensor * cells;
    ggml_tensor * q_in;
    ggml_tensor * q;
    ggml_tensor * k;
    ggml_tensor * p0      = nullptr;
    ggml_tensor * weights = nullptr;

    float   p0_value = 0.0f; // of every row
    int64_t j0       = 0;    // the first column that is wanted

    std::vector<ggml_tensor *> masks;
    std::vector<ggml_tensor *> factors; // of the head being built, one per block

    // softmax of the scores of block b of head h: [n_past + i1, i1 - i0]
    ggml_tensor * scores(int64_t h, size_t b) const {
        const row_block & block = plan.blocks[b];

        const int64_t h_kv = h/(layer.n_head/layer.n_head_kv);
        const int64_t n_kb = n_past + block.i1;

        ggml_tensor * kh = ggml_view_2d(g.ctx, k, layer.n_embd_head, n_kb, k->nb[1], h_kv*k->nb[2]);
        ggml_tensor * qh = ggml_view_2d(g.ctx, q, layer.n_embd_head, block.i1 - block.i0, q->nb[1], h*q->nb[2] + block.i0*q->nb[1]);

        ggml_tensor * m = ggml_mul_mat(g.ctx, kh, qh);
        ggml_prec_set_acc(m, GGML_PREC_F32);

        if (weights) { // not in the mask, whose half floats are too coarse at this temperature
            m = ggml_add_inplace(g.ctx, m, ggml_view_1d(g.ctx, weights, n_kb, 0));
        }

        // the mask op is not everywhere, a mask tensor is
        return ggml_soft_max_ext_inplace(g.ctx, m, masks[b], scale, 0.0f);
    }

    // what a product reads of block b: the wanted columns transposed, [i1 - i0, n_past + i1 - j0]
    ggml_tensor * factor(int64_t h, size_t b) const {
        ggml_tensor * m = scores(h, b);

        m = ggml_view_2d(g.ctx, m, m->ne[0] - j0, m->ne[1], m->nb[1], j0*m->nb[0]);

        return ggml_cont(g.ctx, ggml_transpose(g.ctx, m));
    }

    ggml_tensor * product(ggml_tensor * sum, ggml_tensor * p, size_t b) const {
        const row_block & block = plan.blocks[b];

        ggml_tensor * pb  = ggml_view_1d(g.ctx, p, block.i1 - block.i0, block.i0*p->nb[0]);
        ggml_tensor * res = ggml_mul_mat(g.ctx, factors[b], pb); // [n_past + i1 - j0]
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

            sum = product(sum, p, b);

            // in this order the allocator can use a dropped block's memory for the next one
            ggml_build_forward_expand(g.gf, sum);
        }

        return sum;
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
        ggml_backend_tensor_set(q_in,  layer.q,            0, ggml_nbytes(q_in));

        if (p0) {
            const std::vector<float> uniform(n_q, p0_value);
            ggml_backend_tensor_set(p0, uniform.data(), 0, ggml_nbytes(p0));
        }

        if (weights) {
            const std::vector<float> unscaled = unscaled_weights(layer, scale);
            ggml_backend_tensor_set(weights, unscaled.data(), 0, ggml_nbytes(weights));
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

//
// the walk on the CPU: two ops of ours, which give ggml's threads a panel of keys or a head at a time
//

struct walk_jobs {
    walk_jobs(const aim_walk & unbiased, const aim_walk_kernel & kernel, const aim_scored_layer & layer) :
        bias(layer.weights.empty() ? std::vector<float>{} : aim_walk_pad(kernel, unbiased, unscaled_weights(layer, unbiased.scale).data())),
        w(with_bias(unbiased, bias)),
        kernel(kernel),
        layer(layer),
        to_float(ggml_get_type_traits(layer.k->type)->to_float),
        n_embd_kv(w.n_embd_head*w.n_head_kv),
        n_panels(aim_walk_n_panels(kernel, w)),
        n_packed(aim_walk_n_packed(kernel, w)),
        n_work(aim_walk_n_work(kernel, w)) {
    }

    const std::vector<float> bias;
    const aim_walk           w;
    const aim_walk_kernel  & kernel;
    const aim_scored_layer & layer;
    const ggml_to_float_t    to_float; // null for f32

    const int64_t n_embd_kv;
    const int64_t n_panels;
    const int64_t n_packed; // floats of one KV head
    const int64_t n_work;   // floats of one head

    std::atomic<int64_t> i_panel {0};
    std::atomic<int64_t> i_head  {0};
    std::atomic<bool>    stopped {false};

private:
    static aim_walk with_bias(aim_walk w, const std::vector<float> & bias) {
        w.bias = bias.empty() ? nullptr : bias.data();
        return w;
    }
};

// dst: the packed keys of every KV head
static void pack_op(ggml_tensor * dst, int, int, void * userdata) {
    auto & jobs = *(walk_jobs *) userdata;

    const int64_t n_cols = jobs.kernel.n_cols;

    float * packed = (float *) dst->data;

    std::vector<float> panel(n_cols*jobs.n_embd_kv); // as the cache has it
    float * rows = panel.data();

    for (int64_t i; (i = jobs.i_panel.fetch_add(1)) < jobs.n_panels;) {
        const int64_t n = std::min(n_cols, jobs.w.n_k - i*n_cols);

        for (int64_t j = 0; j < n; ++j) {
            const char * src = (const char *) jobs.layer.k->data + jobs.layer.cells[i*n_cols + j]*jobs.layer.k->nb[1];

            if (jobs.to_float) {
                jobs.to_float(src, rows + j*jobs.n_embd_kv, jobs.n_embd_kv);
            } else {
                std::copy_n((const float *) src, jobs.n_embd_kv, rows + j*jobs.n_embd_kv);
            }
        }

        for (int64_t h = 0; h < jobs.w.n_head_kv; ++h) {
            jobs.kernel.pack(jobs.w, rows + h*jobs.w.n_embd_head, jobs.n_embd_kv, n, packed + h*jobs.n_packed + i*n_cols*jobs.kernel.n_packed(jobs.w.n_embd_head));
        }
    }
}

struct walk_poll {
    walk_jobs & jobs;
    bool        is_first; // asks the caller, for all threads

    static bool go_on(void * data) {
        const auto & poll = *(const walk_poll *) data;

        if (poll.is_first && poll.jobs.layer.abort && poll.jobs.layer.abort(poll.jobs.layer.abort_data)) {
            poll.jobs.stopped = true;
        }

        return !poll.jobs.stopped;
    }
};

// dst: [n_q, n_head]
static void walk_op(ggml_tensor * dst, int ith, int, void * userdata) {
    auto & jobs = *(walk_jobs *) userdata;

    const aim_walk_flush flush;

    walk_poll poll = { jobs, ith == 0 };

    float * p = (float *) dst->data;

    std::vector<float> work(jobs.n_work); // a thread's

    for (int64_t h; !jobs.stopped && (h = jobs.i_head.fetch_add(1)) < jobs.w.n_head;) {
        const float * packed = (const float *) dst->src[0]->data + h/(jobs.w.n_head/jobs.w.n_head_kv)*jobs.n_packed;

        jobs.kernel.run(jobs.w, h, packed, work.data(), p + h*jobs.w.n_q, walk_poll::go_on, &poll);
    }
}

// floats of the two ops' results
static int64_t n_floats_packed(const aim_walk_kernel & kernel, const aim_walk & w) {
    return w.n_head_kv*aim_walk_n_packed(kernel, w);
}

static int64_t n_floats_walk(const aim_walk & w) {
    return w.n_head*w.n_q;
}

static aim_walk walk_of(const aim_scored_layer & layer) {
    return {
        /*.n_head      =*/ layer.n_head,
        /*.n_head_kv   =*/ layer.n_head_kv,
        /*.n_embd_head =*/ layer.n_embd_head,
        /*.n_q         =*/ layer.n_q,
        /*.n_k         =*/ int64_t(layer.cells.size()),
        /*.q           =*/ layer.q,
        /*.scale       =*/ layer.kq_scale/AIM_PAGERANK_TEMPERATURE,
        /*.bias        =*/ nullptr,
    };
}

static std::vector<float> walks_on_host(aim_backends & on, const aim_scored_layer & layer) {
    walk_jobs jobs(walk_of(layer), *aim_walk_get_kernel(), layer);

    const aim_graph g(on, 8, "the scores of a layer");

    ggml_tensor * packed = g.on_host(ggml_custom_4d(g.ctx, GGML_TYPE_F32, n_floats_packed(jobs.kernel, jobs.w), 1, 1, 1, nullptr, 0, pack_op, GGML_N_TASKS_MAX, &jobs));
    ggml_tensor * walks  = g.on_host(ggml_custom_4d(g.ctx, GGML_TYPE_F32, n_floats_walk(jobs.w), 1, 1, 1, &packed, 1, walk_op, GGML_N_TASKS_MAX, &jobs));

    g.output(walks);
    g.alloc();
    g.compute();

    if (jobs.stopped) {
        aim_fail(AIM_STATUS_ABORTED, "aborted in the scores of a layer");
    }

    const float * p = (const float *) walks->data;

    return std::vector<float>(p, p + layer.n_head*layer.n_q);
}

size_t aim_importance_bytes(int64_t n_rows, int64_t n_head, int64_t n_head_kv, int64_t n_embd_head) {
    const aim_walk          w      = { n_head, n_head_kv, n_embd_head, n_rows, n_rows, nullptr, 1.0f, nullptr };
    const aim_walk_kernel & kernel = *aim_walk_get_kernel();

    // and what a thread works in, of which there are few
    return sizeof(float)*(n_floats_packed(kernel, w) + n_floats_walk(w) + aim_walk_n_work(kernel, w));
}

std::vector<float> aim_importance_rms(const std::vector<float> & p, int64_t n_head) {
    std::vector<double> sum(p.size()/n_head);

    for (size_t i = 0; i < p.size(); ++i) {
        sum[i % sum.size()] += double(p[i])*p[i];
    }

    std::vector<float> res(sum.size());

    for (size_t i = 0; i < res.size(); ++i) {
        res[i] = std::sqrt(sum[i]/n_head);
    }

    return res;
}

std::vector<float> aim_importance_pagerank(aim_backends & on, const aim_scored_layer & layer) {
    const bool on_host = ggml_backend_buffer_is_host(layer.k->buffer) && layer.n_bytes_max == 0;

    return aim_importance_rms(on_host ? walks_on_host(on, layer) : score_graph(on, layer, AIM_PAGERANK_TEMPERATURE).walks(), layer.n_head);
}

std::vector<double> aim_even_walk(int64_t n_q, int64_t n_k, const std::vector<float> & weights) {
    std::vector<double> size(n_k, 1.0);
    std::vector<double> seen(n_k); // sizes of all keys up to one

    for (int64_t j = 0; j < n_k; ++j) {
        size[j] = weights.empty() ? 1.0 : std::exp(double(weights[j]));
        seen[j] = size[j] + (j > 0 ? seen[j - 1] : 0.0);
    }

    const int64_t n_past = n_k - n_q;

    std::vector<double> p(n_q, 1.0/n_k);

    for (int step = 0; step < AIM_PAGERANK_STEPS; ++step) {
        double given = 0.0; // by each row from this one on, to each patch it sees

        for (int64_t i = n_q - 1; i >= 0; --i) {
            given += p[i]/seen[n_past + i];
            p[i]   = given*size[n_past + i];
        }
    }

    return p;
}

std::vector<float> aim_importance_pagerank_relative(aim_backends & on, const aim_scored_layer & layer) {
    std::vector<float> res = aim_importance_pagerank(on, layer);

    const std::vector<double> even = aim_even_walk(layer.n_q, layer.cells.size(), layer.weights);

    for (size_t i = 0; i < res.size(); ++i) {
        res[i] = res[i]/even[i];
    }

    return res;
}

// mean over heads of p [n_k, n_head], each head's share of a key counted by norms [n_k, n_head_kv]; empty: 1
static std::vector<float> mean_over_heads(const aim_scored_layer & layer, const std::vector<float> & p, const std::vector<float> & norms) {
    const size_t n_k = layer.cells.size();

    std::vector<float> res(n_k);

    for (size_t i = 0; i < n_k; ++i) {
        double sum = 0.0;

        for (int64_t h = 0; h < layer.n_head; ++h) {
            const int64_t h_kv = h/(layer.n_head/layer.n_head_kv);

            sum += double(p[h*n_k + i])*(norms.empty() ? 1.0 : norms[h_kv*n_k + i]);
        }

        res[i] = sum/layer.n_head;
    }

    return res;
}

std::vector<float> aim_importance_question(aim_backends & on, const aim_scored_layer & layer, const std::vector<float> & norms) {
    return mean_over_heads(layer, score_graph(on, layer, 1.0f).sums(), norms);
}

std::vector<float> aim_value_norms(const ggml_tensor * v, const std::vector<int32_t> & cells) {
    const ggml_tensor * storage = v->view_src ? v->view_src : v;

    std::vector<char> copy;
    const char * data = (const char *) storage->data;

    if (!ggml_backend_buffer_is_host(storage->buffer)) {
        copy.resize(ggml_nbytes(storage));
        ggml_backend_tensor_get(storage, copy.data(), 0, copy.size());
        data = copy.data();
    }

    const auto to_float = ggml_get_type_traits(v->type)->to_float; // null for f32

    // [n_embd_head, n_head_kv, n_cells], or [n_cells, n_head_kv, n_embd_head] without flash attention
    const bool    is_transposed = v->nb[1] > v->nb[2];
    const int64_t n_head_kv     = v->ne[1];

    std::vector<float>  row(v->ne[0]);
    std::vector<double> sums(cells.size()*n_head_kv);

    const auto read = [&](int64_t i1, int64_t i2) {
        const char * src = data + v->view_offs + i1*v->nb[1] + i2*v->nb[2];

        if (to_float) {
            to_float(src, row.data(), row.size());
        } else {
            std::copy_n((const float *) src, row.size(), row.data());
        }
    };

    for (int64_t h = 0; h < n_head_kv; ++h) {
        double * sum = sums.data() + h*cells.size();

        for (int64_t d = 0; is_transposed && d < v->ne[2]; ++d) {
            read(h, d);

            for (size_t i = 0; i < cells.size(); ++i) {
                sum[i] += double(row[cells[i]])*row[cells[i]];
            }
        }

        for (size_t i = 0; !is_transposed && i < cells.size(); ++i) {
            read(h, cells[i]);

            for (const float x : row) {
                sum[i] += double(x)*x;
            }
        }
    }

    std::vector<float> res(sums.size());
    std::transform(sums.begin(), sums.end(), res.begin(), [](double x) { return float(std::sqrt(x)); });

    return res;
}

std::vector<float> aim_importance_last_query(aim_backends & on, const aim_scored_layer & layer) {
    return mean_over_heads(layer, score_graph(on, layer, 1.0f).last_rows(), {});
}
