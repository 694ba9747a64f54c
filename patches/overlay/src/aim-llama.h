// what aim-local adds to libllama: a plain C interface, called from Python through ctypes
//
// staged prefill: visual rows of a prompt are pruned between layers, and a pruned row is gone: later layers neither compute it nor
// keep it in their KV cache. the caller plans the counts, see aim_context_init() and aim_prefill_params::n_keep; nothing here
// knows a schedule. method: AIM (arXiv 2412.03248)
//
// functions that can fail return an enum aim_status below zero (or NULL), and aim_last_error() says why. none of them aborts on bad input
#pragma once

#include "aim-status.h"
#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// the `patch` line of patches/VERSION this library was built from; a stock library lacks the symbol
LLAMA_API int32_t aim_llama_patch_version(void);

// how this thread's last call that can fail ended: one line about why it failed, "" if it did not, valid until the thread's next
// call; and its enum aim_status, which NULL and false do not tell
LLAMA_API const char * aim_last_error(void);
LLAMA_API int32_t      aim_last_status(void);

// functions of llama.h that may throw, for callers that cannot catch: the i-th one's name, and in `call` a function of the same type
// that throws nothing. where that fails, aim_last_status() is below zero and the result a number below zero, 0 or NULL. NULL behind
// the last one
LLAMA_API const char * aim_guarded_call(int32_t i, void ** call);

// the text architectures that can be staged: "llama qwen2 ..."
LLAMA_API const char * aim_architectures(void);

// whether the model's text architecture can be staged; if not, aim_last_error() names those that can
LLAMA_API bool aim_supported(const struct llama_model * model);

// a context whose KV cache has one part per stage: layers from il_begin[s] up to the next stage's keep n_cells[s] cells each
// il_begin[0] is 0, both arrays have n_stages entries. n_cells must not grow from stage to stage; it is rounded up to a multiple of
// 8, of 256 where the cache is in device memory, as the kernels there want it. params.n_ctx is set from n_cells[0], n_seq_max has to be 1
// everything llama.h does with a context works: llama_decode runs all layers, each on its stage's cells
// hold: what is held of every row that leaves the first stage, so that a later aim_prefill can rank earlier rows anew (n_held)
LLAMA_API struct llama_context * aim_context_init(
        struct llama_model          * model,
        struct llama_context_params   params,
        int32_t                       n_stages,
        const int32_t               * il_begin,
        const int32_t               * n_cells,
        int32_t                       hold);

enum aim_hold {
    AIM_HOLD_NOTHING = 0,
    AIM_HOLD_ROWS    = 1, // hidden states: enough where neither pagerank ranks at the first stage's last layer
    AIM_HOLD_QUERIES = 2, // and the queries of that layer
};

enum aim_row {
    AIM_ROW_TOKEN  = 0, // a token id
    AIM_ROW_VISUAL = 1, // an embedding that may be pruned
    AIM_ROW_EMBD   = 2, // an embedding that stays
};

enum aim_importance {
    AIM_IMPORTANCE_PAGERANK   = 0, // AIM: five steps of a random walk on sharpened attention
    AIM_IMPORTANCE_LAST_QUERY = 1, // FastV: attention of the last row, mean over heads
    AIM_IMPORTANCE_RANDOM     = 2, // seeded; no scores
    AIM_IMPORTANCE_GRID       = 3, // evenly spaced; no scores

    AIM_IMPORTANCE_PAGERANK_RELATIVE = 4, // pagerank over what a row gets where every row attends evenly (by size) to all that it sees
    AIM_IMPORTANCE_QUESTION          = 5, // attention of the question's rows, summed over them, mean over heads
    AIM_IMPORTANCE_QUESTION_VALUE    = 6, // the same, of each head times the length of the row's value vector as the cache has it
};

// chooses n_keep of the n visual rows that entered layer il: writes their indices in [0, n) to kept, which has room for n, in any
// order, and returns how many; below zero gives up. called between graphs, on the thread that called aim_prefill
typedef int32_t (*aim_select_callback)(void * user_data, int32_t il, const float * importance, int32_t n, int32_t n_keep, int32_t * kept);

struct aim_prefill_params {
    int32_t             n_rows;
    int32_t             n_held;     // of them, the first n_held are in the context already: all of its rows, or 0. then all are ranked
    const int8_t      * rows;       // [n_rows] enum aim_row; the last row has to be a token
    const llama_token * tokens;     // [n_rows] read where a new row is a token
    const float       * embd;       // [number of other new rows][llama_model_n_embd_inp()], in order
    const int32_t     * ids;        // [n_rows][3] read of new rows, of models whose rows have several rotary ids (M-RoPE): time, row, column.
                                    // NULL: each goes on behind the row before it, as text does
    const int32_t     * sizes;      // [n_rows] patches that a row stands for, read where a new row is visual; NULL: one each. log(size) is added to
                                    // the row's column of the attention logits, before the softmax: in every layer that keeps the row, for as
                                    // long as the context holds it, and in the scores that rank, whose temperature leaves it as it is
    int32_t             n_stages;
    const int32_t     * n_keep;     // [n_stages] visual rows that enter each stage, not growing; n_keep[0] is all of them
    int32_t             importance; // enum aim_importance
    int32_t             n_query;    // rows of the question: the last n_query rows, new ones and tokens; 0: all such rows at the end
    uint32_t            seed;       // for AIM_IMPORTANCE_RANDOM
    aim_select_callback select;     // NULL: the highest scores stay. needs an importance that scores
    void              * select_data;
    int64_t             n_bytes_scores; // memory for one head's scores where ggml's ops rank: on a device, 0 is 384 MiB there; above 0 on the CPU
                                        // too, whose own kernel holds a few rows at a time. more rows than fit are scored in blocks, slower
};

// sizeof(struct aim_prefill_params) here, for bindings to compare with their own
LLAMA_API int32_t aim_prefill_params_size(void);

// appends rows to the context's sequence 0, at the positions after its last one, stage by stage; the next-token logits of the last
// row are then at llama_get_logits_ith(ctx, -1). with n_held 0, rows of earlier calls are keys only: neither pruned nor ranked again
// with n_held > 0 the call does what a first prefill of all n_rows would: the first stage runs the new rows only, then all rows are
// ranked and run through the later stages. kept rows and importance are then counted over all n_rows
// a call that fails leaves the context as it was before
LLAMA_API int32_t aim_prefill(struct llama_context * ctx, const struct aim_prefill_params * params);

//
// what the last aim_prefill of a context did
//

struct aim_stage_info {
    int32_t  il_begin;
    int32_t  il_end;
    int32_t  n_cells;
    int32_t  n_rows;        // rows of the last prefill that ran through the stage
    int32_t  n_visual;      // visual ones among them
    int64_t  kv_bytes;
    double   prefill_ms;    // stages that the same rows ran through are computed together; their time is split by layers
    double   importance_ms; // scoring and selecting at the stage's last layer
};

// sizeof(struct aim_stage_info) here, for bindings to compare with their own
LLAMA_API int32_t aim_stage_info_size(void);

// the rotary id that text gets behind the last row, of models whose rows have several; elsewhere the next position
LLAMA_API int32_t aim_next_id(const struct llama_context * ctx);

// 0 for a context that is not staged
LLAMA_API int32_t aim_n_stages(const struct llama_context * ctx);

LLAMA_API int32_t aim_get_stage(const struct llama_context * ctx, int32_t s, struct aim_stage_info * info);

// the visual rows that entered layer il, as indices into the call's visual rows, sorted; returns their number
// writes at most n_max; NULL with n_max 0 asks for the number
LLAMA_API int32_t aim_get_kept(const struct llama_context * ctx, int32_t il, int32_t * kept, int32_t n_max);

// bytes held of each row in the context, 0 if none are or those of some rows are missing (moved, or from a state without them)
LLAMA_API int64_t aim_held_row_bytes(const struct llama_context * ctx);

// one score per row of aim_get_kept(il); 0 if layer il was not scored
LLAMA_API int32_t aim_get_importance(const struct llama_context * ctx, int32_t il, float * importance, int32_t n_max);

//
// any context, staged or not
//

// How a prefill's attention is computed on a CPU: 0 exact (ggml's kernels), 1 by matrix products of sixteen bits. Any context.
LLAMA_API int32_t aim_set_precision(struct llama_context * ctx, int32_t precision);

// from now on `poll` can stop what this context computes: llama_decode then returns 2 and keeps the ubatches before, aim_prefill
// returns AIM_STATUS_ABORTED with the context as it was. takes the place of llama_set_abort_callback. NULL takes it away
// poll and data have to live as long as they are set
LLAMA_API int32_t aim_set_stop(struct llama_context * ctx, aim_stop_callback poll, void * data);

// llama_sampler_init_grammar with the rule "root", for grammars of anybody: what llama.cpp would not come to an end with is refused.
// NULL: aim_last_error() says what the grammar has or lacks ("has no rule root"), AIM_STATUS_INVALID
LLAMA_API struct llama_sampler * aim_grammar_init(const struct llama_vocab * vocab, const char * text);

// bounds on what grammars take on this thread from now on: time, and memory of the ways to go on. passing them is AIM_STATUS_INVALID in
// aim_grammar_init, llama_sampler_apply and llama_sampler_accept (through aim_guarded_call); the sampler is then good for nothing but
// llama_sampler_free. poll can end them too (AIM_STATUS_ABORTED). n_ms 0 takes the bounds away, and they have to be taken away
LLAMA_API void aim_grammar_bounds(int32_t n_ms, int64_t n_bytes, aim_stop_callback poll, void * data);

// after a context took a state that somebody else may have written, before anything is computed with it: whether it holds what the
// caller knows of it, n_cells rows of sequence 0 at positions below n_pos, n_visual of them visual (layers may have dropped those).
// llama.cpp reads a state within the bounds of its buffers, and believes what it says of rows. a context that fails is emptied
LLAMA_API int32_t aim_check_state(struct llama_context * ctx, int32_t n_pos, int32_t n_cells, int32_t n_visual);

//
// memory, in bytes
//

// compute buffers of a context over all backends; of a model loaded with no_alloc, what they would be
LLAMA_API int64_t aim_compute_bytes(const struct llama_context * ctx);

// what aim_prefill holds while it ranks n_rows rows on the CPU, beside their queries and the cached keys (pagerank, the context was empty)
LLAMA_API int64_t aim_score_bytes(int32_t n_rows, int32_t n_head, int32_t n_head_kv, int32_t n_embd_head);

//
// scoring on the CPU by itself, for tests
//

// the kernels that this CPU runs, best first: "avx512 avx2 plain"
LLAMA_API const char * aim_score_kernels(void);

// pagerank scores [n_q] of the last n_q of n_k rows, from queries [n_q][n_head][n_embd_head] and keys [n_k][n_head_kv][n_embd_head], on
// the caller's thread. scale: of the products, softmax temperature included. bias: [n_k] added to each key's products before they are
// scaled, NULL for nothing
LLAMA_API int32_t aim_score_with(const char * kernel, int32_t n_head, int32_t n_head_kv, int32_t n_embd_head, int32_t n_q, int32_t n_k,
        float scale, const float * q, const float * k, const float * bias, float * scores);

#ifdef __cplusplus
}
#endif
