#include "aim-edge.h"
#include "aim-guard.h"
#include "aim-mtmd.h"

#include "mtmd-helper.h"

#include "../../src/aim-calls.h"

// it decodes in a context of libllama
static int32_t decode_image_chunk(
        mtmd_context * ctx, llama_context * lctx, const mtmd_input_chunk * chunk, float * embd, llama_pos n_past, llama_seq_id seq_id,
        int32_t n_batch, llama_pos * n_past_new, mtmd_helper_post_decode_callback callback, void * data) {
    return aim_decoding(lctx, [&] {
        return mtmd_helper_decode_image_chunk(ctx, lctx, chunk, embd, n_past, seq_id, n_batch, n_past_new, callback, data);
    });
}

#define LAST aim_mtmd_last

// all that aim_local/native calls of mtmd.h, but for what reads a number or frees
static const aim_edge_call CALLS[] = {
    AIM_EDGE(mtmd_init_from_file),
    AIM_EDGE(mtmd_input_chunks_init),
    AIM_EDGE(mtmd_bitmap_init),
    AIM_EDGE(mtmd_tokenize),
    AIM_EDGE(mtmd_encode_chunk),
    AIM_EDGE(mtmd_input_chunk_get_n_tokens),
    AIM_EDGE_AS("mtmd_helper_decode_image_chunk", decode_image_chunk),
};

const char * aim_mtmd_guarded_call(int32_t i, void ** call) {
    return aim_edge_find(CALLS, i, call);
}
