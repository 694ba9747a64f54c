// importance of prompt rows from one layer's queries and cached keys; throws aim_error
// flash attention keeps no scores, so they are computed apart: on the CPU by the kernels of aim-walk.h, on the threads of its backend; for
// keys on a device head by head, in row blocks, with ggml ops on the backend that holds them; keys on another machine are copied to this one's CPU
#pragma once

#include "aim-walk.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cstdint>
#include <utility>
#include <vector>

// temperature 0.1 and five steps: AIM (arXiv 2412.03248), section 3.2
#define AIM_PAGERANK_TEMPERATURE 0.1f
#define AIM_PAGERANK_STEPS       AIM_WALK_STEPS

// one head's scores on a device, enough for 192 frames of 49 visual tokens
#define AIM_SCORES_MAX_BYTES (size_t(384)*1024*1024)

// a context's backends with a scheduler of their own: llama's graphs and compute buffers stay as they are
// the scheduler keeps its memory from graph to graph: fresh pages cost as much as a small layer's scores
class aim_backends {
public:
    aim_backends(std::vector<ggml_backend_t> backends, std::vector<ggml_backend_buffer_type_t> bufts) :
        backends(std::move(backends)), bufts(std::move(bufts)) {
    }

    // takes graphs of up to n_nodes; valid until a larger one is asked for
    ggml_backend_sched_t get_sched(size_t n_nodes);

private:
    std::vector<ggml_backend_t>             backends;
    std::vector<ggml_backend_buffer_type_t> bufts;

    ggml_backend_sched_ptr sched;
    size_t                 n_nodes_max = 0;
};

// queries after RoPE and keys as the cache holds them, of the rows present at the layer
struct aim_scored_layer {
    int64_t n_head;
    int64_t n_head_kv;
    int64_t n_embd_head;
    float   kq_scale;

    int64_t       n_q; // rows of this prefill, the last n_q of the keys
    const float * q;   // [n_embd_head, n_head, n_q]

    ggml_tensor *        k;     // the layer's K cache: [n_embd_head*n_head_kv, n_cells, 1]
    std::vector<int32_t> cells; // the cell of each key, by position

    std::vector<float> weights; // of each key, added to its logits over the temperature: as so many keys like it would have together; empty: none has one

    size_t n_bytes_max; // above 0 ggml ops rank, on the CPU as well: scores of one head that fit are computed once, more in blocks for each step anew

    ggml_abort_callback abort; // null if there is none
    void *              abort_data;
};

// a K cache as this machine has it: one on another machine (ggml-rpc) is copied up to its last used cell. the queries are here already, and
// a layer's keys are small beside them and beside the masks that ranking over there would need; any other is taken as it is
class aim_near_keys {
public:
    aim_near_keys(ggml_tensor * k, const std::vector<int32_t> & cells);

    ggml_tensor * get() const { return k; }

private:
    ggml_tensor *           k;
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buf;
};

// p <- p M from uniform p over all keys, M = softmax(Q K^T / sqrt(d) / temperature) with a causal mask; RMS over heads
// attention only flows back, so rows of earlier prefills cannot reach the new ones: their rows of M are not needed, only their columns
// returns one score per new row
std::vector<float> aim_importance_pagerank(aim_backends & on, const aim_scored_layer & layer);

// its last step: root of the mean square over heads, p: [n_q, n_head]
std::vector<float> aim_importance_rms(const std::vector<float> & p, int64_t n_head);

// the same over what the walk gives a row where each row attends evenly to all that it sees, in proportion to sizes where rows have weights:
// a causal walk goes to early rows whatever they show
std::vector<float> aim_importance_pagerank_relative(aim_backends & on, const aim_scored_layer & layer);

// that walk: one number per new row. weights: of each of the n_k keys, empty for none
std::vector<double> aim_even_walk(int64_t n_q, int64_t n_k, const std::vector<float> & weights);

// attention of the n_q last rows, summed over them, mean over heads, returns one score per key. norms: [n_k, n_head_kv], what each head's
// share of a key counts, empty: 1
std::vector<float> aim_importance_question(aim_backends & on, const aim_scored_layer & layer, const std::vector<float> & norms);

// lengths of value vectors, [number of cells, n_head_kv]; v: a view of a V cache as llama_kv_cache::get_v() gives it, on any device
std::vector<float> aim_value_norms(const ggml_tensor * v, const std::vector<int32_t> & cells);

// FastV (arXiv 2403.06764): attention of the last row, mean over heads; n_q has to be 1, returns one score per key
std::vector<float> aim_importance_last_query(aim_backends & on, const aim_scored_layer & layer);

// what the first one holds on the CPU beside queries and cached keys, where all n_rows keys are new ones
size_t aim_importance_bytes(int64_t n_rows, int64_t n_head, int64_t n_head_kv, int64_t n_embd_head);

// rows of an embedding matrix of any type as f32
void aim_get_rows(aim_backends & on, ggml_tensor * matrix, const std::vector<int32_t> & rows, float * out);
