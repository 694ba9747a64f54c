#include "aim-edge.h"
#include "aim-calls.h"
#include "aim-llama.h"
#include "aim-prefill.h"

#include "llama-context.h"

int32_t aim_decoding(llama_context * ctx, const std::function<int32_t()> & f) {
    const bool is_causal = ctx->get_cparams().causal_attn;

    try {
        return f();
    } catch (const aim_error &) { // thrown where nothing was half made
        throw;
    } catch (...) {
        ctx->set_causal_attn(is_causal);
        aim_prefill_run::reserve_again(*ctx);
        throw;
    }
}

static int32_t decode(llama_context * ctx, llama_batch batch) {
    return aim_decoding(ctx, [&] { return llama_decode(ctx, batch); });
}

#define LAST aim_llama_last

// all that aim_local/native calls of llama.h, but for what reads a number or frees
static const aim_edge_call CALLS[] = {
    AIM_EDGE(llama_backend_init),
    AIM_EDGE(llama_model_load_from_file),
    AIM_EDGE(llama_init_from_model),
    AIM_EDGE(llama_model_quantize),
    AIM_EDGE(llama_tokenize),
    AIM_EDGE(llama_token_to_piece),
    AIM_EDGE_AS("llama_decode", decode),
    AIM_EDGE(llama_get_logits_ith),
    AIM_EDGE(llama_synchronize),
    AIM_EDGE(llama_set_causal_attn),
    AIM_EDGE(llama_memory_clear),
    AIM_EDGE(llama_memory_seq_rm),
    AIM_EDGE(llama_state_get_size),
    AIM_EDGE(llama_state_get_data),
    AIM_EDGE(llama_state_set_data),
    AIM_EDGE(llama_state_seq_get_size_ext),
    AIM_EDGE(llama_state_seq_get_data_ext),
    AIM_EDGE(llama_state_seq_set_data_ext),
    AIM_EDGE(llama_sampler_chain_init),
    AIM_EDGE(llama_sampler_chain_add),
    AIM_EDGE(llama_sampler_init_dist),
    AIM_EDGE(llama_sampler_init_greedy),
    AIM_EDGE(llama_sampler_init_min_p),
    AIM_EDGE(llama_sampler_init_penalties),
    AIM_EDGE(llama_sampler_init_temp),
    AIM_EDGE(llama_sampler_init_top_k),
    AIM_EDGE(llama_sampler_init_top_p),
    AIM_EDGE(llama_sampler_accept),
    AIM_EDGE(llama_sampler_apply),
    AIM_EDGE(llama_sampler_sample),
};

const char * aim_guarded_call(int32_t i, void ** call) {
    return aim_edge_find(CALLS, i, call);
}
