#include "aim-graph.h"

#include "aim-kv-cache.h"

#include "llama-cparams.h"
#include "llama-impl.h"

static const aim_kv_cache_context * get_mctx(const llama_memory_context_i * mctx) {
    return dynamic_cast<const aim_kv_cache_context *>(mctx);
}

// adds what the rows in a stage's cells weigh to the columns of its mask that a row of the graph sees
template <typename T>
static void weigh_columns(T * mask, size_t n_rows, const std::vector<T> & weights) {
    std::vector<size_t> heavy;

    for (size_t j = 0; j < weights.size(); ++j) {
        if (weights[j] != T(0)) {
            heavy.push_back(j);
        }
    }

    for (size_t i = 0; i < n_rows; ++i) {
        T * row = mask + i*weights.size();

        for (const size_t j : heavy) {
            row[j] = row[j] == T(0) ? weights[j] : row[j]; // or it is -infinity
        }
    }
}

// in a mask of half floats, which flash attention wants, a weight is rounded to 11 bits: by at most 0.002 (of the log of 55 to 2,980 patches)
static void weigh(ggml_tensor * mask, const std::vector<float> & weights) {
    if (weights.empty()) {
        return;
    }

    if (mask->type == GGML_TYPE_F32) {
        weigh_columns((float *) mask->data, ggml_nrows(mask), weights);
        return;
    }

    std::vector<ggml_fp16_t> halves(weights.size());
    ggml_fp32_to_fp16_row(weights.data(), halves.data(), weights.size());

    weigh_columns((ggml_fp16_t *) mask->data, ggml_nrows(mask), halves);
}

// one plain attention input per stage of the graph; what upstream passes around is this object
class aim_graph_input_attn : public llm_graph_input_attn_kv {
public:
    aim_graph_input_attn(const llm_graph_context & graph, const aim_kv_cache_context * mctx) :
        llm_graph_input_attn_kv(graph.hparams, graph.cparams, nullptr),
        whole(mctx),
        range(mctx->get_range()),
        plan(mctx->get_plan()) {
        for (size_t s = range.s_begin; s < range.s_end; ++s) {
            stages.push_back(build_stage(graph, mctx->get_stage(s)));
        }
    }

    void set_input(const llama_ubatch * ubatch) override {
        for (size_t s = range.s_begin; s < range.s_end; ++s) {
            auto & stage = *stages[s - range.s_begin];

            stage.set_input(ubatch);
            weigh(stage.self_kq_mask, whole->get_weights(s, stage.self_kq_mask->ne[0]));
        }
    }

    // the range is part of a graph's topology, and so is the number of cells each stage attends to
    bool can_reuse(const llm_graph_params & params) override {
        const auto * mctx = get_mctx(params.mctx);

        bool res = mctx && mctx->get_range() == range;

        whole = mctx;

        for (size_t s = range.s_begin; res && s < range.s_end; ++s) {
            auto & stage = *stages[s - range.s_begin];

            stage.mctx = mctx->get_stage(s);

            res &= stage.self_k_idxs ->ne[0] == params.ubatch.n_tokens;
            res &= stage.self_kq_mask->ne[0] == stage.mctx->get_n_kv();
            res &= stage.self_kq_mask->ne[1] == params.ubatch.n_tokens;
        }

        return res;
    }

    llm_graph_input_attn_kv * get(int il) const {
        size_t s = range.s_begin;

        while (plan[s].il_end <= il) {
            ++s;
        }

        return stages.at(s - range.s_begin).get();
    }

private:
    const aim_kv_cache_context * whole;

    const aim_range range;
    const aim_plan  plan; // a copy: a reused graph outlives the memory context it was built with

    std::vector<std::unique_ptr<llm_graph_input_attn_kv>> stages;

    static std::unique_ptr<llm_graph_input_attn_kv> build_stage(const llm_graph_context & graph, const llama_kv_cache_context * mctx) {
        auto inp = std::make_unique<llm_graph_input_attn_kv>(graph.hparams, graph.cparams, mctx);

        inp->self_k_idxs = mctx->build_input_k_idxs(graph.ctx0, graph.ubatch);
        inp->self_v_idxs = mctx->build_input_v_idxs(graph.ctx0, graph.ubatch);

        // flash attention requires an f16 mask
        const ggml_type type = graph.cparams.flash_attn ? GGML_TYPE_F16 : GGML_TYPE_F32;

        inp->self_kq_mask = ggml_new_tensor_4d(graph.ctx0, type, mctx->get_n_kv(), graph.n_tokens, 1, 1);
        ggml_set_input(inp->self_kq_mask);
        ggml_set_name(inp->self_kq_mask, "attn_inp_kq_mask");
        inp->self_kq_mask_cnv = inp->self_kq_mask;

        inp->self_k_rot = mctx->build_input_k_rot(graph.ctx0);
        inp->self_v_rot = mctx->build_input_v_rot(graph.ctx0);

        return inp;
    }
};

// the rotary ids of rows that have several, [4*n_tokens]: time, row and column of all rows, one after the other, then zeros
class aim_graph_input_ids : public llm_graph_input_i {
public:
    aim_graph_input_ids(const llm_graph_context & graph, const aim_kv_cache_context * mctx) : mctx(mctx) {
        ids = ggml_new_tensor_1d(graph.ctx0, GGML_TYPE_I32, int64_t(graph.n_tokens)*graph.hparams.n_pos_per_embd());
        ggml_set_input(ids);
        graph.cb(ids, "inp_pos", -1);
    }

    void set_input(const llama_ubatch * ubatch) override {
        std::vector<llama_pos> data(ids->ne[0]);

        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            const aim_id id = mctx->get_ids()->get(ubatch->pos[i]);

            for (size_t j = 0; j < id.size(); ++j) {
                data[j*ubatch->n_tokens + i] = id[j];
            }
        }

        ggml_backend_tensor_set(ids, data.data(), 0, ggml_nbytes(ids));
    }

    bool can_reuse(const llm_graph_params & params) override {
        mctx = get_mctx(params.mctx);

        return mctx && ids->ne[0] == int64_t(params.ubatch.n_tokens)*params.hparams.n_pos_per_embd();
    }

    ggml_tensor * ids;

private:
    const aim_kv_cache_context * mctx;
};

ggml_tensor * aim_build_inp_pos(const llm_graph_context & graph) {
    const auto * mctx = get_mctx(graph.mctx);

    if (!mctx || !mctx->get_ids()) {
        return nullptr;
    }

    return static_cast<aim_graph_input_ids *>(graph.res->add_input(std::make_unique<aim_graph_input_ids>(graph, mctx)))->ids;
}

aim_layers aim_graph_layers(const llm_graph_context & graph) {
    const auto * mctx = get_mctx(graph.mctx);

    if (!mctx) {
        return { 0, int(graph.n_layer) };
    }

    return { mctx->get_range().il_begin, mctx->get_range().il_end };
}

// rows to their cells of the first stage, [n_row, n_tokens]
static void hold(const llm_graph_context & graph, ggml_tensor * held, ggml_tensor * rows) {
    const aim_graph_input_attn * staged = nullptr;

    for (const auto & inp : graph.res->inputs) {
        staged = staged ? staged : dynamic_cast<const aim_graph_input_attn *>(inp.get());
    }

    GGML_ASSERT(staged && "a graph of a staged context has its attention input before its layers");

    ggml_build_forward_expand(graph.gf, ggml_set_rows(graph.ctx0, held, rows, staged->get(0)->get_k_idxs()));
}

static void hold_hidden(const llm_graph_context & graph, ggml_tensor * cur) {
    const auto * mctx = get_mctx(graph.mctx);
    const auto * held = mctx ? mctx->get_held() : nullptr;

    if (!held || mctx->get_range().s_begin > 0) {
        return;
    }

    if (mctx->get_range().il_end > held->get_il() + 1) {
        cur = ggml_graph_get_tensor(graph.gf, format("deepstack_out-%d", held->get_il()).c_str()); // where the layer adds to rows
        cur = cur ? cur : ggml_graph_get_tensor(graph.gf, format("l_out-%d", held->get_il()).c_str());
        GGML_ASSERT(cur && "the architecture's graph names what leaves a layer l_out");
    }

    const int64_t n_added = held->get_hidden()->ne[0] - cur->ne[0];

    if (n_added > 0) {
        ggml_tensor * inp = graph.res->t_inp_embd;
        cur = ggml_concat(graph.ctx0, cur, ggml_view_2d(graph.ctx0, inp, n_added, inp->ne[1], inp->nb[1], cur->ne[0]*sizeof(float)), 0);
    }

    hold(graph, held->get_hidden(), cur);
}

bool aim_graph_end(const llm_graph_context & graph, ggml_tensor * cur) {
    hold_hidden(graph, cur);

    if (aim_graph_layers(graph).end == graph.n_layer) {
        return false;
    }

    graph.cb(cur, "aim_stage_out", -1);
    graph.res->t_embd = cur;

    ggml_build_forward_expand(graph.gf, cur);

    return true;
}

llm_graph_input_attn_kv * aim_build_attn_inp(const llm_graph_context & graph) {
    const auto * mctx = get_mctx(graph.mctx);

    if (!mctx) {
        return nullptr;
    }

    return static_cast<llm_graph_input_attn_kv *>(graph.res->add_input(std::make_unique<aim_graph_input_attn>(graph, mctx)));
}

llm_graph_input_attn_kv * aim_attn_inp(llm_graph_input_attn_kv * inp, int il) {
    const auto * staged = dynamic_cast<const aim_graph_input_attn *>(inp);

    return staged ? staged->get(il) : inp;
}

void aim_export_q(const llm_graph_context & graph, ggml_tensor * q, int il) {
    const auto * mctx = get_mctx(graph.mctx);
    const auto * held = mctx ? mctx->get_held() : nullptr;

    if (held && held->get_q() && held->get_il() == il) {
        hold(graph, held->get_q(), ggml_reshape_2d(graph.ctx0, ggml_cont(graph.ctx0, q), q->ne[0]*q->ne[1], q->ne[2]));
    }

    if (!mctx || mctx->get_range().il_score != il) {
        return;
    }

    if (q->view_src || !ggml_is_contiguous(q)) {
        q = ggml_cont(graph.ctx0, q); // an output has to have memory of its own
    }

    ggml_set_name(q, AIM_TENSOR_Q);
    ggml_set_output(q);

    ggml_build_forward_expand(graph.gf, q);
}
