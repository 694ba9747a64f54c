// the staged KV cache: consecutive layers that hold the same rows are a stage, and each stage has a llama_kv_cache of its own
// knows layers and cells; which rows are missing in a later stage, and why, is the prefill's business (aim-prefill.h)
#pragma once

#include "llama-kv-cache.h"

#include "aim-held-rows.h"
#include "aim-ids.h"
#include "aim-trace.h"
#include "aim-weights.h"

#include <vector>

// layers [il_begin, il_end) keep n_cells cells each
struct aim_stage {
    int32_t  il_begin;
    int32_t  il_end;
    uint32_t n_cells;
};

using aim_plan = std::vector<aim_stage>;

// while in scope, contexts made by this thread get a staged KV cache with this plan; hold is an enum aim_hold
// the plan travels beside llama_context_params, which is a public struct of upstream
class aim_plan_scope {
public:
    aim_plan_scope(const aim_plan & plan, int32_t hold);
    ~aim_plan_scope();

    aim_plan_scope(const aim_plan_scope &) = delete;
    aim_plan_scope & operator=(const aim_plan_scope &) = delete;
};

// the memory for a context made inside an aim_plan_scope, nullptr anywhere else
llama_memory_i * aim_create_memory(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams);

// the part of the model one graph runs: stages [s_begin, s_end), that is layers [il_begin, il_end)
struct aim_range {
    size_t  s_begin;
    size_t  s_end;
    int32_t il_begin;
    int32_t il_end;
    int32_t il_score; // layer whose queries the graph gives out, -1 for none

    bool operator==(const aim_range & other) const {
        return s_begin == other.s_begin && s_end == other.s_end && il_score == other.il_score;
    }
};

class aim_kv_cache : public llama_memory_i {
public:
    aim_kv_cache(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams, aim_plan plan, int32_t hold);

    ~aim_kv_cache() = default;

    //
    // llama_memory_i
    //

    llama_memory_context_ptr init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) override;
    llama_memory_context_ptr init_full() override;
    llama_memory_context_ptr init_update(llama_context * lctx, bool optimize) override;

    bool get_can_shift() const override;

    void clear(bool data) override;

    bool seq_rm  (llama_seq_id seq_id,                              llama_pos p0, llama_pos p1) override;
    void seq_cp  (llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) override;
    void seq_keep(llama_seq_id seq_id)                                                          override;
    void seq_add (llama_seq_id seq_id,                              llama_pos p0, llama_pos p1, llama_pos shift) override;
    void seq_div (llama_seq_id seq_id,                              llama_pos p0, llama_pos p1, int d) override;

    llama_pos seq_pos_min(llama_seq_id seq_id) const override;
    llama_pos seq_pos_max(llama_seq_id seq_id) const override;

    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const override;

    void state_write(llama_io_write_i & io, llama_seq_id seq_id = -1, llama_state_seq_flags flags = 0) const override;
    void state_read (llama_io_read_i  & io, llama_seq_id seq_id = -1, llama_state_seq_flags flags = 0) override;

    //
    // aim_kv_cache specific API
    //

    const aim_plan & get_plan() const;

    llama_kv_cache * get_stage(size_t s) const;

    size_t stage_bytes(size_t s) const;

    // stages [s_begin, s_end) as a range of layers
    aim_range get_range(size_t s_begin, size_t s_end, int32_t il_score) const;

    // rows that run through the stages of the range only
    llama_memory_context_ptr init_range(const aim_range & range, std::vector<llama_ubatch> ubatches);

    // the cells of the first stage, by position
    std::vector<int32_t> get_cells() const;

    // nullptr for a context that holds no rows
    aim_held_rows * get_held() const;

    // whether the later stages can be computed anew: rows are held, and every one of them as it is at its position
    bool is_held() const;

    // the stages after the first: set aside, emptied, taken back
    std::vector<uint8_t> copy_later() const;
    void                 drop_later();
    void                 restore_later(const std::vector<uint8_t> & copy);

    // what rows weigh; a row that is written without a weight has none
    aim_weights weights;

    // rotary ids of all rows, where rows have several; NULL where a position is the id
    aim_ids * get_ids() { return has_ids ? &ids : nullptr; }

    // what the last prefill of this context kept and measured
    aim_trace trace;

private:
    const aim_plan plan;

    std::vector<std::unique_ptr<llama_kv_cache>> stages;

    std::unique_ptr<aim_held_rows> held;

    bool is_stale = false; // rows moved, or came from a state without theirs

    const bool has_ids;

    aim_ids ids;
};

class aim_kv_cache_context : public llama_memory_context_i {
public:
    using slot_info_vec_t = llama_kv_cache::slot_info_vec_t;

    // used for errors
    explicit aim_kv_cache_context(llama_memory_status status);

    // used to create a full-cache context
    explicit aim_kv_cache_context(aim_kv_cache * kv);

    // used to create an update context
    aim_kv_cache_context(aim_kv_cache * kv, llama_context * lctx, bool optimize);

    // used to create a batch processing context, sinfos has one entry per stage of the range
    aim_kv_cache_context(aim_kv_cache * kv, const aim_range & range, std::vector<slot_info_vec_t> sinfos, std::vector<llama_ubatch> ubatches);

    //
    // llama_memory_context_i
    //

    bool next()  override;
    bool apply() override;

    llama_memory_status  get_status() const override;
    const llama_ubatch & get_ubatch() const override;

    //
    // aim_kv_cache_context specific API
    //

    const aim_range & get_range() const;

    // s counts from the first stage of the whole model and has to be in the range
    const llama_kv_cache_context * get_stage(size_t s) const;

    const aim_plan & get_plan() const;

    const aim_held_rows * get_held() const;

    // as of aim_kv_cache
    const aim_ids * get_ids() const;

    // what the rows in the first n_kv cells of a stage weigh, 0 where there is no row; empty where no row of the context has a weight
    std::vector<float> get_weights(size_t s, uint32_t n_kv) const;

private:
    aim_kv_cache * kv = nullptr;

    aim_range range = {};

    // the index of the next ubatch to process
    size_t i_next = 0;

    std::vector<llama_ubatch> ubatches;

    std::vector<llama_memory_context_ptr> stages;

    llama_memory_status status;

    void combine_status();
};
