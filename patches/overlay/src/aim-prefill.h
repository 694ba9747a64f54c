// one staged prefill: rows in, segment by segment through the layers, fewer rows after each
#pragma once

#include "aim-importance.h"
#include "aim-kv-cache.h"
#include "aim-llama.h"

struct llama_context;
class  llm_graph_result;

// a friend of llama_context: it drives process_ubatch() with ubatches that llama_decode() would refuse (gaps in the positions,
// hidden states of a middle layer) and delivers the logits the way llama_decode() does
struct aim_prefill_run {
    aim_prefill_run(llama_context & ctx, const aim_prefill_params & params);

    // throws aim_error; the context is then as it was
    void run();

    static aim_kv_cache * get_kv(const llama_context & ctx);

    // the next graph of ctx and its buffers are made anew: an exception may have left them half made
    static void reserve_again(llama_context & ctx);

private:
    // consecutive stages that the same rows run through
    struct segment {
        size_t s_begin;
        size_t s_end;
        bool   is_scored;
    };

    struct row {
        llama_pos pos;
        int32_t   i_visual; // index into the call's visual rows, -1 for others
    };

    llama_context            & ctx;
    const aim_prefill_params & params;
    aim_kv_cache             & kv;

    const int64_t   n_embd;
    const int64_t   n_embd_inp; // of a row of the prompt: wider where the first layers add features of the vision tower (deepstack)
    const llama_pos p0;

    size_t n_query = 0; // rows of the question, the last ones

    std::vector<row>   rows;   // at first the new ones; all of them from the second stage on where earlier ones are ranked again
    std::vector<float> hidden; // [n_embd_inp, rows.size()], the first n_embd of each row are overwritten by each segment

    std::vector<uint8_t> later; // the later stages as they were, where they have been dropped

    std::vector<float> q; // queries of a scored layer, [n_embd_head, n_head, n_q]

    aim_backends backends; // for graphs of our own

    aim_trace trace;

    // checks
    void check_context() const;
    void check_params() const;
    void check_question();
    void check_held() const;
    void check_cells() const;

    // steps
    void                 embed_rows();
    void                 weigh_rows();
    void                 turn_rows();
    std::vector<segment> plan_segments() const;
    void                 run_segment(const segment & seg);
    void                 rejoin();
    void                 prune(const segment & seg);
    void                 undo();

    // parts of steps
    void                 check_stop() const;
    llama_ubatch         make_ubatch(size_t i0, size_t n) const;
    void                 collect(llm_graph_result & res, const llama_ubatch & ubatch, size_t i0, const segment & seg);
    void                 read_hidden(const ggml_tensor * t, size_t i0, size_t n);
    void                 collect_q(llm_graph_result & res, size_t i0, size_t n);
    void                 read_q(const std::vector<int32_t> & cells);
    bool                 has_held_q(const segment & seg) const;
    size_t               n_queries() const;
    std::vector<float>   score(int32_t il, const segment & seg);
    std::vector<float>   scores_of(int32_t il, llama_kv_cache & stage, const aim_scored_layer & layer);
    std::vector<int32_t> select(int32_t il, const std::vector<float> & importance, int32_t n, int32_t n_keep) const;
    void                 gather(const std::vector<int32_t> & kept);

    std::vector<int32_t> visual_indices() const;
};
