#include "aim-cpu.h"
#include "aim-llama.h"

#include "aim-calls.h"
#include "aim-error.h"
#include "aim-importance.h"
#include "aim-live.h"
#include "aim-prefill.h"
#include "aim-state-check.h"
#include "aim-stop.h"

#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>

static thread_local aim_outcome last;

aim_outcome & aim_llama_last() {
    return last;
}

int32_t aim_llama_patch_version(void) {
    return AIM_PATCH_VERSION;
}

const char * aim_last_error(void) {
    return last.text.c_str();
}

int32_t aim_last_status(void) {
    return last.status;
}

static void expect_context(const llama_context * ctx) {
    aim_expect_live(ctx, aim_kind::CONTEXT, "context");
    aim_expect_live(&ctx->get_model(), aim_kind::MODEL, "context's model");
}

//
// contexts
//

// text architectures whose graphs can run a range of layers: hooks 0013 and 0014
static const char * const STAGED[] = { "llama", "qwen2", "qwen2vl", "qwen3", "qwen3vl" };

static std::string staged_names(const char * between) {
    std::string names;

    for (const char * name : STAGED) {
        names += (names.empty() ? "" : between) + std::string(name);
    }

    return names;
}

static void check_supported(const llama_model & model) {
    const auto & hparams = model.hparams;

    const auto is_known = [&](const auto & name) { return model.arch_name() == name; };
    const bool is_arch  = std::any_of(std::begin(STAGED), std::end(STAGED), is_known);

    // what the architecture's name could hide: each of these would need rows, masks or layers that stages do not have
    const bool is_plain =
        hparams.swa_type == LLAMA_SWA_TYPE_NONE && !hparams.use_alibi && !hparams.attn_soft_cap && !hparams.use_kq_norm &&
        hparams.f_embedding_scale == 0.0f && hparams.n_layer_nextn == 0 && hparams.causal_attn && model.tok_embd;

    if (!is_arch || !is_plain) {
        throw aim_error(AIM_STATUS_UNSUPPORTED, format("visual tokens cannot be pruned in text architecture %s%s; supported are %s",
                    model.arch_name().c_str(), is_arch ? " of this kind" : "", staged_names(", ").c_str()));
    }
}

static aim_plan make_plan(const llama_model & model, int32_t n_stages, const int32_t * il_begin, const int32_t * n_cells, bool offload) {
    const int32_t n_layer = model.hparams.n_layer();

    if (n_stages < 1 || n_stages > n_layer || !il_begin || !n_cells) {
        throw aim_error(AIM_STATUS_INVALID, format("%d stages for %d layers; there is at least one stage and at most one per layer", n_stages, n_layer));
    }

    // kernels of GPU backends take whole tiles of cells; on the CPU any number is as fast. where nothing is pruned, cells are as
    // many as llama.cpp would have, since sums over more of them, empty ones too, may be rounded otherwise
    const bool on_device = offload && !model.devices.empty() && model.n_gpu_layers() > 0;
    const int64_t n_pad  = on_device || n_stages == 1 ? 256 : 8;

    aim_plan plan;

    for (int32_t s = 0; s < n_stages; ++s) {
        const int32_t il_end = s + 1 < n_stages ? il_begin[s + 1] : n_layer;

        if ((s == 0 && il_begin[s] != 0) || il_begin[s] >= il_end || il_end > n_layer) {
            throw aim_error(AIM_STATUS_INVALID, format("stage %d has layers %d to %d; stages begin at layer 0, ascend, and end at layer %d",
                        s, il_begin[s], il_end - 1, n_layer - 1));
        }

        if (n_cells[s] < 1 || (s > 0 && n_cells[s] > n_cells[s - 1])) {
            throw aim_error(AIM_STATUS_INVALID, format("stage %d has %d cells; there is at least one, and no more than in the stage before", s, n_cells[s]));
        }

        plan.push_back({ il_begin[s], il_end, uint32_t(GGML_PAD(int64_t(n_cells[s]), n_pad)) });
    }

    return plan;
}

const char * aim_architectures(void) {
    return aim_guarded(last, [] {
        static const std::string names = staged_names(" ");

        return names.c_str();
    });
}

bool aim_supported(const llama_model * model) {
    return aim_guarded(last, [&] {
        aim_expect_live(model, aim_kind::MODEL, "model");
        check_supported(*model);

        return true;
    });
}

llama_context * aim_context_init(
        llama_model * model, llama_context_params params, int32_t n_stages, const int32_t * il_begin, const int32_t * n_cells,
        int32_t hold) {
    return aim_guarded(last, [&] {
        aim_expect_live(model, aim_kind::MODEL, "model");
        check_supported(*model);

        if (params.n_seq_max > 1 || params.ctx_type != LLAMA_CONTEXT_TYPE_DEFAULT || params.embeddings) {
            throw aim_error(AIM_STATUS_INVALID, "a staged context holds one sequence and gives logits: n_seq_max 1, no embeddings, default type");
        }

        const aim_plan plan = make_plan(*model, n_stages, il_begin, n_cells, params.offload_kqv);

        if (hold < AIM_HOLD_NOTHING || hold > AIM_HOLD_QUERIES || (hold != AIM_HOLD_NOTHING && plan.size() < 2)) {
            throw aim_error(AIM_STATUS_INVALID, format("hold %d with %zu stages; 0 is nothing, 1 rows, 2 rows and queries, of two stages at least",
                        hold, plan.size()));
        }

        params.n_ctx = plan.front().n_cells;

        const aim_plan_scope scope(plan, hold);

        llama_context * ctx = llama_init_from_model(model, params);

        if (!ctx) {
            throw aim_error(AIM_STATUS_FAILED, "llama.cpp could not make the context, its log says why (memory, or a KV type that needs flash attention)");
        }

        return ctx;
    });
}

//
// prefill
//

static aim_kv_cache & get_kv(const llama_context * ctx) {
    expect_context(ctx);

    aim_kv_cache * kv = aim_prefill_run::get_kv(*ctx);

    if (!kv) {
        throw aim_error(AIM_STATUS_UNSUPPORTED, "the context has no staged KV cache; make it with aim_context_init");
    }

    return *kv;
}

int32_t aim_prefill_params_size(void) {
    return sizeof(aim_prefill_params);
}

int32_t aim_prefill(llama_context * ctx, const aim_prefill_params * params) {
    return aim_guarded(last, [&]() -> int32_t {
        get_kv(ctx);
        aim_expect(params, "params");

        return aim_decoding(ctx, [&]() -> int32_t {
            aim_prefill_run(*ctx, *params).run();

            return AIM_STATUS_OK;
        });
    });
}

//
// what the last prefill did
//

template <typename T>
static int32_t copy_out(const std::vector<T> & src, T * dst, int32_t n_max) {
    if (dst && n_max > 0) {
        std::copy_n(src.begin(), std::min(src.size(), size_t(n_max)), dst);
    }

    return src.size();
}

static size_t find_stage(const aim_kv_cache & kv, int32_t il) {
    const auto & plan = kv.get_plan();

    for (size_t s = 0; s < plan.size(); ++s) {
        if (il >= plan[s].il_begin && il < plan[s].il_end) {
            return s;
        }
    }

    throw aim_error(AIM_STATUS_INVALID, format("there is no layer %d, the model has %d", il, plan.back().il_end));
}

int32_t aim_stage_info_size(void) {
    return sizeof(aim_stage_info);
}

int32_t aim_next_id(const llama_context * ctx) {
    return aim_guarded(last, [&]() -> int32_t {
        aim_kv_cache & kv = get_kv(ctx);

        return kv.get_ids() ? kv.get_ids()->next() : kv.seq_pos_max(0) + 1;
    });
}

int32_t aim_n_stages(const llama_context * ctx) {
    return aim_guarded(last, [&]() -> int32_t {
        expect_context(ctx);

        const aim_kv_cache * kv = aim_prefill_run::get_kv(*ctx);

        return kv ? kv->get_plan().size() : 0;
    });
}

int32_t aim_get_stage(const llama_context * ctx, int32_t s, aim_stage_info * info) {
    return aim_guarded(last, [&]() -> int32_t {
        const aim_kv_cache & kv = get_kv(ctx);

        if (s < 0 || size_t(s) >= kv.get_plan().size() || !info) {
            throw aim_error(AIM_STATUS_INVALID, format("there is no stage %d, the context has %zu", s, kv.get_plan().size()));
        }

        const aim_stage        & stage = kv.get_plan()[s];
        const aim_trace::stage   done  = size_t(s) < kv.trace.stages.size() ? kv.trace.stages[s] : aim_trace::stage{};

        *info = {
            /*.il_begin      =*/ stage.il_begin,
            /*.il_end        =*/ stage.il_end,
            /*.n_cells       =*/ int32_t(stage.n_cells),
            /*.n_rows        =*/ done.n_rows,
            /*.n_visual      =*/ int32_t(done.kept.size()),
            /*.kv_bytes      =*/ int64_t(kv.stage_bytes(s)),
            /*.prefill_ms    =*/ done.prefill_ms,
            /*.importance_ms =*/ done.importance_ms,
        };

        return AIM_STATUS_OK;
    });
}

int32_t aim_get_kept(const llama_context * ctx, int32_t il, int32_t * kept, int32_t n_max) {
    return aim_guarded(last, [&]() -> int32_t {
        const aim_kv_cache & kv = get_kv(ctx);

        const size_t s = find_stage(kv, il);

        return s < kv.trace.stages.size() ? copy_out(kv.trace.stages[s].kept, kept, n_max) : 0;
    });
}

int64_t aim_held_row_bytes(const llama_context * ctx) {
    return aim_guarded(last, [&]() -> int64_t {
        const aim_kv_cache & kv = get_kv(ctx);

        return kv.is_held() ? kv.get_held()->row_bytes() : 0;
    });
}

int32_t aim_get_importance(const llama_context * ctx, int32_t il, float * importance, int32_t n_max) {
    return aim_guarded(last, [&]() -> int32_t {
        const aim_kv_cache & kv = get_kv(ctx);

        find_stage(kv, il);

        const auto it = kv.trace.importance.find(il);

        return it != kv.trace.importance.end() ? copy_out(it->second, importance, n_max) : 0;
    });
}

//
// any context
//

int32_t aim_set_precision(llama_context * ctx, int32_t precision) {
    return aim_guarded(last, [&]() -> int32_t {
        expect_context(ctx);

        ggml_backend_sched_t sched = ctx->get_sched();

        for (int i = 0; i < ggml_backend_sched_get_n_backends(sched); ++i) {
            aim_compute_with(ggml_backend_sched_get_backend(sched, i), precision);
        }

        return AIM_STATUS_OK;
    });
}

int32_t aim_set_stop(llama_context * ctx, aim_stop_callback poll, void * data) {
    return aim_guarded(last, [&]() -> int32_t {
        expect_context(ctx);

        auto stop = poll ? std::make_shared<aim_stop>(poll, data) : nullptr;

        ctx->set_abort_callback(stop ? aim_stop::ask : nullptr, stop.get());
        ctx->stop = std::move(stop); // the earlier one goes when no backend has it any more

        return AIM_STATUS_OK;
    });
}

int32_t aim_check_state(llama_context * ctx, int32_t n_pos, int32_t n_cells, int32_t n_visual) {
    return aim_guarded(last, [&]() -> int32_t {
        expect_context(ctx);

        try {
            aim_state_check(*ctx, { n_pos, n_cells, n_visual });
        } catch (...) {
            ctx->get_memory()->clear(true);
            throw;
        }

        return AIM_STATUS_OK;
    });
}

//
// memory
//

int64_t aim_compute_bytes(const llama_context * ctx) {
    return aim_guarded(last, [&]() -> int64_t {
        expect_context(ctx);

        int64_t res = 0;

        for (const auto & [buft, bytes] : ctx->memory_breakdown()) {
            res += bytes.compute;
        }

        return res;
    });
}

int64_t aim_score_bytes(int32_t n_rows, int32_t n_head, int32_t n_head_kv, int32_t n_embd_head) {
    return aim_guarded(last, [&]() -> int64_t {
        if (n_rows < 0 || n_head < 0 || n_head_kv < 0 || n_embd_head < 0) {
            aim_fail(AIM_STATUS_INVALID, "%d rows have no scores for %d heads (%d of keys) of width %d", n_rows, n_head, n_head_kv, n_embd_head);
        }

        return aim_importance_bytes(n_rows, n_head, n_head_kv, n_embd_head);
    });
}

//
// scoring by itself
//

const char * aim_score_kernels(void) {
    static thread_local std::string names; // the CPU backend's kernels can be chosen anew

    return aim_guarded(last, [] {
        names = aim_walk_kernel_names();

        return names.c_str();
    });
}

int32_t aim_score_with(const char * kernel, int32_t n_head, int32_t n_head_kv, int32_t n_embd_head, int32_t n_q, int32_t n_k,
        float scale, const float * q, const float * k, const float * bias, float * scores) {
    return aim_guarded(last, [&]() -> int32_t {
        const aim_walk_kernel * found = aim_walk_get_kernel(kernel);

        if (!found) {
            aim_fail(AIM_STATUS_UNSUPPORTED, "no scoring kernel %s; this CPU has %s", kernel ? kernel : "NULL", aim_score_kernels());
        }

        if (n_q < 1 || n_k < n_q || n_embd_head < 1 || n_head_kv < 1 || n_head < 1 || n_head % n_head_kv != 0 || !(scale > 0.0f)) {
            aim_fail(AIM_STATUS_INVALID, "%d of %d rows, %d heads (%d of keys) of width %d cannot be scored", n_q, n_k, n_head, n_head_kv, n_embd_head);
        }

        aim_walk w = { n_head, n_head_kv, n_embd_head, n_q, n_k, q, scale, nullptr };

        const std::vector<float> padded = aim_walk_pad(*found, w, bias);
        w.bias = bias ? padded.data() : nullptr;

        std::vector<float> p(size_t(n_head)*n_q);
        aim_walk_run(*found, w, k, p.data());

        const std::vector<float> res = aim_importance_rms(p, n_head);
        std::copy(res.begin(), res.end(), scores);

        return AIM_STATUS_OK;
    });
}
