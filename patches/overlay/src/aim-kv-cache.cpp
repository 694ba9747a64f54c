#include "aim-kv-cache.h"

#include "aim-llama.h"
#include "aim-state-buffer.h"

#include "llama-batch.h"
#include "llama-cparams.h"
#include "llama-impl.h"
#include "llama-io.h"
#include "llama-model.h"

#include <cassert>
#include <stdexcept>

static thread_local const aim_plan * plan_pending = nullptr;
static thread_local int32_t          hold_pending = AIM_HOLD_NOTHING;

// in a state's number of stages: held rows follow the stages
static const uint32_t STATE_HAS_ROWS = 1u << 31;

// and behind those, what rows weigh; a state without it has rows that weigh the same
static const uint32_t STATE_HAS_WEIGHTS = 1u << 30;

// and behind those, rotary ids, where rows have several
static const uint32_t STATE_HAS_IDS = 1u << 29;

aim_plan_scope::aim_plan_scope(const aim_plan & plan, int32_t hold) {
    plan_pending = &plan;
    hold_pending = hold;
}

aim_plan_scope::~aim_plan_scope() {
    plan_pending = nullptr;
}

llama_memory_i * aim_create_memory(const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams) {
    return plan_pending ? new aim_kv_cache(model, params, cparams, *plan_pending, hold_pending) : nullptr;
}

//
// aim_kv_cache
//

aim_kv_cache::aim_kv_cache(
        const llama_model & model, const llama_memory_params & params, const llama_cparams & cparams, aim_plan plan, int32_t hold) :
    plan(std::move(plan)), has_ids(model.hparams.n_pos_per_embd() > 1) {
    for (const aim_stage & stage : this->plan) {
        const layer_filter_cb filter = [&](int32_t il) { return il >= stage.il_begin && il < stage.il_end; };

        LLAMA_LOG_INFO("%s: creating KV cache of layers %d..%d, size = %u cells\n", __func__, stage.il_begin, stage.il_end - 1, stage.n_cells);

        stages.push_back(std::make_unique<llama_kv_cache>(
                model, model.hparams, params.type_k, params.type_v,
                !cparams.flash_attn, cparams.offload_kqv, cparams.kv_unified, stage.n_cells, cparams.n_seq_max, 1,
                0, LLAMA_SWA_TYPE_NONE, nullptr, filter, nullptr, nullptr));
    }

    if (hold != AIM_HOLD_NOTHING) {
        const int32_t il = this->plan.front().il_end - 1;

        held = std::make_unique<aim_held_rows>(model, il, this->plan.front().n_cells, hold == AIM_HOLD_QUERIES,
                ggml_backend_buffer_get_type(stages.front()->get_k_storage(il)->buffer));
    }
}

void aim_kv_cache::clear(bool data) {
    for (auto & stage : stages) {
        stage->clear(data);
    }

    trace    = {};
    is_stale = false;

    weights.clear();
    ids.clear();
}

bool aim_kv_cache::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    if (has_ids && p1 >= 0 && p1 <= seq_pos_max(0)) {
        return false; // the rows behind a gap would be turned by ids that count it
    }

    bool res = true;

    for (auto & stage : stages) {
        res = stage->seq_rm(seq_id, p0, p1) && res;
    }

    weights.seq_rm(p0, p1);
    ids.cut(p0);

    return res;
}

void aim_kv_cache::seq_cp(llama_seq_id seq_id_src, llama_seq_id seq_id_dst, llama_pos p0, llama_pos p1) {
    for (auto & stage : stages) {
        stage->seq_cp(seq_id_src, seq_id_dst, p0, p1);
    }
}

void aim_kv_cache::seq_keep(llama_seq_id seq_id) {
    for (auto & stage : stages) {
        stage->seq_keep(seq_id);
    }

    if (seq_pos_max(0) < 0) {
        weights.clear(); // another sequence was to be kept, and there is one
        ids.clear();
    }
}

void aim_kv_cache::seq_add(llama_seq_id seq_id, llama_pos p0, llama_pos p1, llama_pos shift) {
    for (auto & stage : stages) {
        stage->seq_add(seq_id, p0, p1, shift);
    }

    weights.seq_add(p0, p1, shift);

    is_stale = true; // queries are held after RoPE
}

void aim_kv_cache::seq_div(llama_seq_id seq_id, llama_pos p0, llama_pos p1, int d) {
    for (auto & stage : stages) {
        stage->seq_div(seq_id, p0, p1, d);
    }

    weights.seq_div(p0, p1, d);

    is_stale = true;
}

llama_pos aim_kv_cache::seq_pos_min(llama_seq_id seq_id) const {
    // nothing is pruned before the first layer, so the first stage has every position the others have
    return stages.front()->seq_pos_min(seq_id);
}

llama_pos aim_kv_cache::seq_pos_max(llama_seq_id seq_id) const {
    return stages.front()->seq_pos_max(seq_id);
}

std::map<ggml_backend_buffer_type_t, size_t> aim_kv_cache::memory_breakdown() const {
    std::map<ggml_backend_buffer_type_t, size_t> mb;

    for (const auto & stage : stages) {
        for (const auto & [buft, size] : stage->memory_breakdown()) {
            mb[buft] += size;
        }
    }

    if (held) {
        mb[held->get_buft()] += held->n_bytes();
    }

    return mb;
}

llama_memory_context_ptr aim_kv_cache::init_batch(llama_batch_allocr & balloc, uint32_t n_ubatch, bool embd_all) {
    GGML_UNUSED(embd_all);

    balloc.split_reset();

    std::vector<llama_ubatch> ubatches;
    while (true) {
        auto ubatch = balloc.split_simple(n_ubatch);

        if (ubatch.n_tokens == 0) {
            break;
        }

        ubatches.push_back(std::move(ubatch)); // NOLINT
    }

    if (balloc.get_n_used() < balloc.get_n_tokens()) {
        return std::make_unique<aim_kv_cache_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
    }

    for (size_t i = 0; has_ids && i < ubatches.size(); ++i) {
        for (uint32_t j = 0; j < ubatches[i].n_tokens; ++j) {
            ids.set_text(ubatches[i].pos[j]);
        }
    }

    return init_range(get_range(0, stages.size(), -1), std::move(ubatches));
}

llama_memory_context_ptr aim_kv_cache::init_range(const aim_range & range, std::vector<llama_ubatch> ubatches) {
    for (llama_ubatch & ubatch : ubatches) {
        ubatch.n_pos = 1; // cells know rows by their number alone, whatever ids these have
    }

    std::vector<llama_kv_cache::slot_info_vec_t> sinfos;

    for (size_t s = range.s_begin; s < range.s_end; ++s) {
        sinfos.push_back(stages[s]->prepare(ubatches));

        if (sinfos.back().empty()) {
            return std::make_unique<aim_kv_cache_context>(LLAMA_MEMORY_STATUS_FAILED_PREPARE);
        }
    }

    return std::make_unique<aim_kv_cache_context>(this, range, std::move(sinfos), std::move(ubatches));
}

llama_memory_context_ptr aim_kv_cache::init_full() {
    return std::make_unique<aim_kv_cache_context>(this);
}

llama_memory_context_ptr aim_kv_cache::init_update(llama_context * lctx, bool optimize) {
    return std::make_unique<aim_kv_cache_context>(this, lctx, optimize);
}

bool aim_kv_cache::get_can_shift() const {
    for (const auto & stage : stages) {
        if (!stage->get_can_shift()) {
            return false;
        }
    }

    return true;
}

void aim_kv_cache::state_write(llama_io_write_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) const {
    const uint32_t n_stages = stages.size();
    const uint32_t head     = n_stages | (is_held() ? STATE_HAS_ROWS : 0) | (weights.empty() ? 0 : STATE_HAS_WEIGHTS) |
        (has_ids ? STATE_HAS_IDS : 0);
    io.write(&head, sizeof(head));

    for (uint32_t s = 0; s < n_stages; ++s) {
        io.write(&plan[s].il_begin, sizeof(plan[s].il_begin));

        stages[s]->state_write(io, seq_id, flags);
    }

    if (is_held()) {
        held->state_write(io, get_cells());
    }

    if (!weights.empty()) {
        weights.state_write(io);
    }

    if (has_ids) {
        ids.state_write(io);
    }
}

void aim_kv_cache::state_read(llama_io_read_i & io, llama_seq_id seq_id, llama_state_seq_flags flags) {
    uint32_t head;
    io.read(&head, sizeof(head));

    const uint32_t n_stages = head & ~(STATE_HAS_ROWS | STATE_HAS_WEIGHTS | STATE_HAS_IDS);

    if (n_stages != stages.size()) {
        throw std::runtime_error(format("the state has %u stages of layers, this context has %zu", n_stages, stages.size()));
    }

    if (has_ids != bool(head & STATE_HAS_IDS)) {
        throw std::runtime_error("the state is of a model whose rows have another number of ids");
    }

    trace = {};
    weights.clear();
    ids.clear();

    try {
        for (uint32_t s = 0; s < n_stages; ++s) {
            int32_t il_begin;
            io.read(&il_begin, sizeof(il_begin));

            if (il_begin != plan[s].il_begin) {
                throw std::runtime_error(format("stage %u of the state begins at layer %d, here at layer %d", s, il_begin, plan[s].il_begin));
            }

            stages[s]->state_read(io, seq_id, flags);
        }

        is_stale = !(head & STATE_HAS_ROWS);

        if (!is_stale && held) {
            held->state_read(io, get_cells());
        } else if (!is_stale) {
            aim_held_rows::state_skip(io, get_cells().size());
        }

        if (head & STATE_HAS_WEIGHTS) {
            weights.state_read(io, seq_pos_max(0) + 1);
        }

        if (has_ids) {
            ids.state_read(io, seq_pos_max(0) + 1);
        }
    } catch (...) {
        // a sequence that is in some stages only would answer from half of its past
        for (auto & stage : stages) {
            stage->state_clear(seq_id);
        }

        weights.clear();
        ids.clear();

        throw;
    }
}

const aim_plan & aim_kv_cache::get_plan() const {
    return plan;
}

llama_kv_cache * aim_kv_cache::get_stage(size_t s) const {
    return stages.at(s).get();
}

size_t aim_kv_cache::stage_bytes(size_t s) const {
    size_t res = 0;

    for (const auto & [buft, size] : stages.at(s)->memory_breakdown()) {
        res += size;
    }

    return res;
}

std::vector<int32_t> aim_kv_cache::get_cells() const {
    std::vector<int32_t> res;

    for (const auto & [pos, cell] : stages.front()->get_cells(0).seq_pos_get(0)) {
        res.push_back(cell);
    }

    return res;
}

aim_held_rows * aim_kv_cache::get_held() const {
    return held.get();
}

bool aim_kv_cache::is_held() const {
    return held && !is_stale;
}

std::vector<uint8_t> aim_kv_cache::copy_later() const {
    aim_state_writer io;

    for (size_t s = 1; s < stages.size(); ++s) {
        stages[s]->state_write(io);
    }

    return std::move(io.data);
}

void aim_kv_cache::drop_later() {
    for (size_t s = 1; s < stages.size(); ++s) {
        stages[s]->clear(false);
    }
}

void aim_kv_cache::restore_later(const std::vector<uint8_t> & copy) {
    aim_state_reader io(copy);

    for (size_t s = 1; s < stages.size(); ++s) {
        stages[s]->state_read(io);
    }
}

aim_range aim_kv_cache::get_range(size_t s_begin, size_t s_end, int32_t il_score) const {
    return { s_begin, s_end, plan.at(s_begin).il_begin, plan.at(s_end - 1).il_end, il_score };
}

//
// aim_kv_cache_context
//

aim_kv_cache_context::aim_kv_cache_context(llama_memory_status status) : status(status) {}

aim_kv_cache_context::aim_kv_cache_context(aim_kv_cache * kv) : kv(kv), range(kv->get_range(0, kv->get_plan().size(), -1)) {
    for (size_t s = 0; s < kv->get_plan().size(); ++s) {
        stages.push_back(kv->get_stage(s)->init_full());
    }

    combine_status();
}

aim_kv_cache_context::aim_kv_cache_context(
        aim_kv_cache * kv, llama_context * lctx, bool optimize) : kv(kv), range(kv->get_range(0, kv->get_plan().size(), -1)) {
    for (size_t s = 0; s < kv->get_plan().size(); ++s) {
        stages.push_back(kv->get_stage(s)->init_update(lctx, optimize));
    }

    combine_status();
}

aim_kv_cache_context::aim_kv_cache_context(
        aim_kv_cache * kv, const aim_range & range, std::vector<slot_info_vec_t> sinfos, std::vector<llama_ubatch> ubatches) :
    kv(kv), range(range), ubatches(std::move(ubatches)) {
    for (size_t i = 0; i < sinfos.size(); ++i) {
        // note: here we copy the ubatches, as iSWA does; their rows are shared or point to the caller's
        stages.push_back(std::make_unique<llama_kv_cache_context>(kv->get_stage(range.s_begin + i), std::move(sinfos[i]), this->ubatches));
    }

    combine_status();
}

void aim_kv_cache_context::combine_status() {
    status = LLAMA_MEMORY_STATUS_NO_UPDATE;

    for (const auto & stage : stages) {
        status = llama_memory_status_combine(status, stage->get_status());
    }
}

bool aim_kv_cache_context::next() {
    assert(status == LLAMA_MEMORY_STATUS_SUCCESS);

    for (auto & stage : stages) {
        stage->next();
    }

    return ++i_next < ubatches.size();
}

bool aim_kv_cache_context::apply() {
    assert(!llama_memory_status_is_fail(status));

    bool res = true;

    for (auto & stage : stages) {
        res = stage->apply() && res;
    }

    return res;
}

llama_memory_status aim_kv_cache_context::get_status() const {
    return status;
}

const llama_ubatch & aim_kv_cache_context::get_ubatch() const {
    assert(status == LLAMA_MEMORY_STATUS_SUCCESS);

    return ubatches[i_next];
}

const aim_range & aim_kv_cache_context::get_range() const {
    return range;
}

const llama_kv_cache_context * aim_kv_cache_context::get_stage(size_t s) const {
    return static_cast<const llama_kv_cache_context *>(stages.at(s - range.s_begin).get());
}

const aim_plan & aim_kv_cache_context::get_plan() const {
    return kv->get_plan();
}

const aim_held_rows * aim_kv_cache_context::get_held() const {
    return kv->get_held();
}

const aim_ids * aim_kv_cache_context::get_ids() const {
    return kv->get_ids();
}

std::vector<float> aim_kv_cache_context::get_weights(size_t s, uint32_t n_kv) const {
    if (kv->weights.empty()) {
        return {};
    }

    const llama_kv_cells & cells = kv->get_stage(s)->get_cells(0);

    std::vector<float> res(n_kv);

    for (uint32_t i = 0; i < n_kv; ++i) {
        res[i] = cells.is_empty(i) ? 0.0f : kv->weights.get(cells.pos_get(i));
    }

    return res;
}
