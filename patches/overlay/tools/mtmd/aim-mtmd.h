// what aim-local adds to libmtmd: a plain C interface, called from Python through ctypes
//
// rows: float32, [n, n_embd], row-major, one row per visual token. slots: raster indices (row * width + column) in a patch
// grid. shares: the part that is retained, in (0, 1]. Functions return a count (>= 0) or an enum aim_status, and
// aim_mtmd_last_error() says why one failed. No exception leaves this interface. Everything but aim_mtmd_encode and
// aim_mtmd_set_stop may be called from several threads at once; a context encodes one tile at a time.
#pragma once

#include "aim-status.h"
#include "mtmd.h"

#ifdef __cplusplus
extern "C" {
#endif

// the `patch` line of patches/VERSION this library was built from; a stock library lacks the symbol
MTMD_API int32_t aim_mtmd_patch_version(void);

// how this thread's last call that can fail ended: why it failed, empty if it did not, valid until the thread's next call;
// and its enum aim_status
MTMD_API const char * aim_mtmd_last_error(void);
MTMD_API int32_t      aim_mtmd_last_status(void);

// as aim_guarded_call of aim-llama.h, for functions of mtmd.h
MTMD_API const char * aim_mtmd_guarded_call(int32_t i, void ** call);

//
// the loaded mmproj (aim-mtmd.cpp)
//

// clip.projector_type, e.g. "llava_onevision"; null and AIM_STATUS_UNSUPPORTED without a vision tower
MTMD_API const char * aim_mtmd_projector(mtmd_context * ctx);

// Precision of the next tower that the calling thread loads: 0 exact (ggml's kernels, and for those after it), 1 sixteen bits, 2 int8.
// A CPU without kernels of ours, and a GPU, stay exact; aim_mtmd_precision tells.
MTMD_API int32_t aim_mtmd_set_precision(int32_t precision);
MTMD_API int32_t aim_mtmd_precision(mtmd_context * ctx);

// Merging inside the next tower that the calling thread loads: from the layer at `depth` of all (share, in (0, 1)) on it computes the
// share `retain` of the patches, in (0, 1], 1 is off; it still gives a row for every patch. Only towers that aim_mtmd_merges take it.
MTMD_API int32_t aim_mtmd_set_merging(double retain, double depth);
// 1 if this tower is merged where aim_mtmd_set_merging says so: "llava_onevision", and LLaVA-1.5 files that name their feature layer, of
// two layers or more
MTMD_API int32_t aim_mtmd_merges(mtmd_context * ctx);

// Kernels that packed weights are computed with: "amx", "avx512-vnni", "avx-vnni", "avx512", "avx2", or "" without any.
MTMD_API const char * aim_mtmd_kernels(void);
// Takes other kernels than the fastest, for towers that are loaded afterwards; null is the fastest, "" none.
MTMD_API int32_t aim_mtmd_use_kernels(const char * name);

// For tests and measurements: out = residual + gamma * act(norm(x) w^T + bias), float32, rows of x and w are [k]. Null pointers are
// left out. act: 0 none, 1 gelu, 2 gelu_erf, 3 gelu_quick, 4 silu, 5 relu. precision as in aim_mtmd_set_precision.
struct aim_probe_product_params {
    int32_t       precision, n_threads, m, k, n, act;
    const float * x;           // [m][k]
    const float * w;           // [n][k]
    const float * norm_weight; // [k]
    const float * bias;        // [n]
    const float * gamma;       // [n]
    const float * residual;    // [m][n]
};
MTMD_API int32_t aim_probe_product(const struct aim_probe_product_params * params, float * out);

// The same of a language model's weight, out = x w^T: quantised rows as a file has them, which go to a buffer type of the CPU backend.
struct aim_probe_stored_params {
    int32_t       precision, n_threads, m, k, n, type; // type: enum ggml_type
    const char *  buffer; // "CPU", "CPU_REPACK", "AMX"
    const float * x;      // [m][k]
    const void *  w;      // n rows of k
};
MTMD_API int32_t aim_probe_stored(const struct aim_probe_stored_params * params, float * out);

// softmax(scale q k^T + mask) v, head by head; out: [n_q][n_head][d]. kv_type: a ggml_type that k and v are rounded to.
struct aim_probe_attention_params {
    int32_t       precision, n_threads, d, n_q, n_kv, n_head, n_head_kv, kv_type;
    float         scale;
    const float * q;    // [n_head][n_q][d]
    const float * k;    // [n_head_kv][n_kv][d]
    const float * v;    // [n_head_kv][n_kv][d]
    const float * mask; // [n_q][n_kv] or null
};
MTMD_API int32_t aim_probe_attention(const struct aim_probe_attention_params * params, float * out);

// 1 if aim_mtmd_encode takes this mmproj, 0 if it goes through mtmd_tokenize
MTMD_API int32_t aim_mtmd_has_tiles(mtmd_context * ctx);

MTMD_API int32_t aim_mtmd_tile_side(mtmd_context * ctx);       // pixels per side of a square tile; towers of any size: of their position table
MTMD_API int32_t aim_mtmd_patches_per_side(mtmd_context * ctx); // 27 for 384 px and patches of 14 px: the rest is cut off
MTMD_API int32_t aim_mtmd_n_embd(mtmd_context * ctx);          // width of a row: projected, and behind it the features for the first layers

// The position table of projector "internvl" begins with the class embedding's row, and its graph puts that embedding behind the patches:
// moves the row to the end, so that every patch has the position it was trained with. Once for a context, by who wants the rows of the
// trained model rather than those of upstream. AIM_STATUS_UNSUPPORTED for other projectors
// ref: https://github.com/ggml-org/llama.cpp/issues/25814 (the same in the graph of LLaVA-1.5)
MTMD_API int32_t aim_mtmd_class_position_last(mtmd_context * ctx);

// copies the newline embedding [n_embd] to out; AIM_STATUS_UNSUPPORTED where the file has none
MTMD_API int32_t aim_mtmd_newline(mtmd_context * ctx, float * out);

// what one run of tower and projector sees. rgb: uint8 [n_frames, height, width, 3], normalised here as (x/255 - mean)/std
// width, height: the tile's side, or, where the tower takes any size, multiples of as many patches as become one row.
// n_frames: 2 are one pair in time
struct aim_tile {
    const uint8_t * rgb;
    int32_t         width;
    int32_t         height;
    int32_t         n_frames;
};

// sizeof(struct aim_tile) here, for bindings to compare with their own
MTMD_API int32_t aim_tile_size(void);

// rows that a tile becomes; rgb is not read. AIM_STATUS_INVALID for sizes that the tower does not take
MTMD_API int32_t aim_mtmd_n_rows(mtmd_context * ctx, const struct aim_tile * tile);

// one tile through tower and projector. out: [aim_mtmd_n_rows, n_embd] in raster order. n_threads <= 0: all cores. Blocks until the
// rows are there; AIM_STATUS_ABORTED when it was stopped, out is then untouched
MTMD_API int32_t aim_mtmd_encode(mtmd_context * ctx, const struct aim_tile * tile, int32_t n_threads, float * out);

// Width of a row before the projector; AIM_STATUS_UNSUPPORTED for towers whose graph is not ours.
MTMD_API int32_t aim_mtmd_n_features(mtmd_context * ctx);
// 1 if the file has the keys of the layer behind those that are run, as our converter writes them for LLaVA-1.5
MTMD_API int32_t aim_mtmd_has_keys(mtmd_context * ctx);
// as aim_mtmd_encode, but what the projector would read. out: [aim_mtmd_n_rows, n_features]; with_keys: [.., 2*n_features], a row's
// features and then its keys (K of that layer)
MTMD_API int32_t aim_mtmd_encode_features(mtmd_context * ctx, const struct aim_tile * tile, int32_t with_keys, int32_t n_threads, float * out);
// rows [n, n_features] through the projector alone -> out [n, n_embd]
MTMD_API int32_t aim_mtmd_project(mtmd_context * ctx, const float * rows, int32_t n, int32_t n_threads, float * out);

// from now on `poll` can stop work of the vision tower: aim_mtmd_encode, and mtmd_encode_chunk, which then fails.
// Null takes it away. poll and data have to live as long as they are set
MTMD_API int32_t aim_mtmd_set_stop(mtmd_context * ctx, aim_stop_callback poll, void * data);

//
// visual tokens of videos and images, no model needed (aim-visual-tokens.cpp)
// ref: transformers 5, models/llava_onevision/modeling_llava_onevision.py: apply_pooling, pack_image_features
//

// ceil(side / 2): a video frame of side x side patches is pooled to the square of this
MTMD_API int32_t aim_pool_side(int32_t side);

// rows [side * side, n_embd] -> out [pool_side^2, n_embd], bilinear, align_corners = False, no antialiasing
MTMD_API int32_t aim_pool_rows(const float * rows, int32_t side, int32_t n_embd, float * out);

// how rows are merged (aim_merge_rows or aim_ward_rows, below)
enum aim_merge_method {
    AIM_MERGE_SIMILARITY = 0,
    AIM_MERGE_WARD       = 1,
};

// how one image becomes tokens: [base view, raster order | tile grid, raster order, one newline after each grid row]
struct aim_anyres_layout {
    int32_t side;      // px per tile side
    int32_t patches;   // patches per tile side
    int32_t best_h;    // px, the chosen resolution
    int32_t best_w;
    int32_t tile_rows; // tiles in the grid, without the base view
    int32_t tile_cols;
    int32_t crop_y;    // first kept row and column of the grid's patches, after the padding is dropped
    int32_t crop_x;
    int32_t crop_h;    // kept patches
    int32_t crop_w;
    int32_t grid_h;    // patches that become tokens: crop, shrunk bilinearly above max_tiles
    int32_t grid_w;
    int32_t n_tiles;   // tiles to encode: base view first, then the grid row by row
    int32_t n_tokens;  // patches^2 + grid_h * (grid_w + 1)
};

// sizeof(struct aim_anyres_layout) here, for bindings to compare with their own
MTMD_API int32_t aim_anyres_layout_size(void);

// pinpoints: n_pinpoints pairs (height, width) in px, multiples of side_px; order decides ties
// max_tiles: 9 of "anyres_max_9"; a grid of more than 1.21 * max_tiles * patches^2 tokens is shrunk
MTMD_API int32_t aim_anyres_plan(int32_t image_h, int32_t image_w, int32_t side_px, int32_t patches_per_side, const int32_t * pinpoints,
        int32_t n_pinpoints, int32_t max_tiles, struct aim_anyres_layout * out);

// tokens of the image with base view and tile grid merged apart; retain = 1 gives layout->n_tokens
MTMD_API int32_t aim_anyres_count(const struct aim_anyres_layout * layout, double retain);

// tile_rows [n_tiles * patches^2, n_embd], newline [n_embd] -> out_rows [aim_anyres_count, n_embd]; returns that count.
// input slots: base view 0 .. patches^2-1, then the grid_h * grid_w grid. Newlines are never merged and stay behind the
// last survivor of their grid row.
// out_slot [count]: surviving slot per output row, -1 for newlines. out_owner [patches^2 + grid_h * grid_w]: the output row
// that each input slot went into. Both may be null
MTMD_API int32_t aim_anyres_pack(const struct aim_anyres_layout * layout, const float * tile_rows, int32_t n_embd, const float * newline,
        int32_t method, double retain, int32_t n_threads, float * out_rows, int32_t * out_slot, int32_t * out_owner);

//
// token merging, no model needed (aim-merge.cpp)
// ref: AIM, arXiv 2412.03248 section 3.1; bipartite soft matching of ToMe, arXiv 2210.09461
//

// rows left of n: max(1, floor(n * retain + 1e-9)), 0 for n = 0
MTMD_API int32_t aim_merge_count(int32_t n, double retain);

// rows [n, n_embd] -> out_rows [aim_merge_count, n_embd]; returns that count. Survivors keep their order
// out_slot [count]: input row that survived. out_owner [n]: output row each input row was averaged into. Both may be null
// n_threads <= 0: all cores. The result does not depend on it
MTMD_API int32_t aim_merge_rows(const float * rows, int32_t n, int32_t n_embd, double retain, int32_t n_threads, float * out_rows,
        int32_t * out_slot, int32_t * out_owner);

// the same, but keys [n, n_key] say how similar two rows are; they are averaged as the rows are
MTMD_API int32_t aim_merge_by_keys(const float * rows, const float * keys, int32_t n, int32_t n_embd, int32_t n_key, double retain,
        int32_t n_threads, float * out_rows, int32_t * out_slot, int32_t * out_owner);

//
// token merging by Ward's clustering, no model needed (aim-ward.cpp; aim-ward.h has it for C++)
//

// rows [n, n_embd] -> out_rows [n_keep, n_embd], the mean of each cluster, in the order of their lowest rows; returns n_keep
// weight [n]: patches that each row stands for already, or null: one each
// out_slot [n_keep]: the lowest row of each cluster. out_medoid [n_keep]: the row nearest to the mean, the lowest of equal
// ones. out_owner [n]: the cluster of each row. All three may be null
// n_threads <= 0: all cores, used where there is much to do. The result does not depend on it
// AIM_STATUS_INVALID: n above 16384, n_keep outside [1, n], weights not above 0, rows that are not finite
MTMD_API int32_t aim_ward_rows(const float * rows, const float * weight, int32_t n, int32_t n_embd, int32_t n_keep, int32_t n_threads,
        float * out_rows, int32_t * out_slot, int32_t * out_medoid, int32_t * out_owner);

// for tests: other products than this CPU's fastest, "avx512", "avx2" or "plain"; null is the fastest
MTMD_API int32_t aim_ward_use_kernel(const char * name);

//
// files before they are used (aim-rehearse.cpp): upstream may end the process in the first two, so call them in one of their own
//

// loads a language model or a mmproj without its weights, as far as a graph; AIM_STATUS_UNSUPPORTED for one that does not fit together
MTMD_API int32_t aim_rehearse_text(const char * path);
MTMD_API int32_t aim_rehearse_vision(const char * path);

// reads all weights of a GGUF; AIM_STATUS_UNSUPPORTED where one is NaN or infinite. n_threads: 0 is all cores
MTMD_API int32_t aim_check_weights(const char * path, int32_t n_threads);

#ifdef __cplusplus
}
#endif
