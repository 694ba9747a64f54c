#include "aim-state-check.h"

#include "aim-error.h"
#include "aim-kv-cache.h"

#include "llama-context.h"
#include "llama-kv-cache-iswa.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"

#include <algorithm>

namespace {

struct checker {
    const llama_model & model;
    const aim_state_wanted w;

    int32_t n_vocab() const { return model.vocab.n_tokens(); }
    bool has_ids()    const { return model.hparams.n_pos_per_embd() > 1; }

    // every used cell: of sequence 0 alone, at a position there can be, and a token there is. the number of used cells
    int32_t cells(const llama_kv_cells & cells, bool repeats) const {
        int32_t n_used = 0;

        for (uint32_t i = 0; i < cells.size(); ++i) {
            if (cells.is_empty(i)) {
                continue;
            }

            const llama_pos   pos = cells.pos_get(i);
            const llama_token tok = cells.ext_get(i).tok;

            if (pos < 0 || pos >= w.n_pos || cells.seq_count(i) != 1 || !cells.seq_has(i, 0)) {
                aim_fail(AIM_STATUS_INVALID, "cell %u of the state is at position %d, of %d; each is in one sequence", i, pos, w.n_pos);
            }

            if (tok != LLAMA_TOKEN_NULL && (tok < 0 || tok >= n_vocab())) {
                aim_fail(AIM_STATUS_INVALID, "cell %u of the state has token %d, the model has %d", i, tok, n_vocab());
            }

            ++n_used;
        }

        const auto & by_pos = cells.seq_pos_get(0);
        const auto same = [](const auto & a, const auto & b) { return a.first == b.first; };

        if (int32_t(by_pos.size()) != n_used || (!repeats && std::adjacent_find(by_pos.begin(), by_pos.end(), same) != by_pos.end())) {
            aim_fail(AIM_STATUS_INVALID, "two cells of the state are at one position");
        }

        return n_used;
    }

    // layers that keep every row
    void full(const llama_kv_cells & all, bool repeats) const {
        const int32_t n_used = cells(all, repeats);

        if (n_used != w.n_cells || (!repeats && n_used != w.n_pos)) {
            aim_fail(AIM_STATUS_INVALID, "the state has %d cells, the conversation %d tokens at %d positions", n_used, w.n_cells, w.n_pos);
        }
    }

    // layers with a window: the last rows, without a gap
    void window(const llama_kv_cells & some) const {
        const int32_t n_used  = cells(some, has_ids());
        const int32_t n_range = n_used == 0 ? 0 : w.n_pos - some.seq_pos_min(0);

        if (n_used > w.n_cells || (n_used == 0) != (w.n_cells == 0) || (!has_ids() && n_used != n_range)) {
            aim_fail(AIM_STATUS_INVALID, "the state's window has %d cells of the last %d of %d", n_used, n_range, w.n_cells);
        }
    }

    void staged(const aim_kv_cache & kv) const {
        full(kv.get_stage(0)->get_cells(0), false); // a position is a row's number there

        for (size_t s = 1; s < kv.get_plan().size(); ++s) {
            const llama_kv_cells & here   = kv.get_stage(s)->get_cells(0);
            const auto           & before = kv.get_stage(s - 1)->get_cells(0).seq_pos_get(0);
            const int32_t          n_used = cells(here, false);

            const auto is_before = [&](const auto & place) {
                const auto it = before.lower_bound({ place.first, 0 });

                return it != before.end() && it->first == place.first;
            };

            const auto & places = here.seq_pos_get(0);

            if (n_used < w.n_cells - w.n_visual || !std::all_of(places.begin(), places.end(), is_before)) {
                aim_fail(AIM_STATUS_INVALID, "stage %zu of the state has %d cells, at least %d of the stage before", s, n_used, w.n_cells - w.n_visual);
            }
        }
    }

    void recurrent(const llama_memory_recurrent & memory) const {
        for (const auto & cell : memory.cells) {
            const bool is_own = cell.seq_id.size() == 1 && cell.has_seq_id(0);

            if (!cell.is_empty() && (!is_own || cell.pos < 0 || cell.pos >= w.n_pos)) {
                aim_fail(AIM_STATUS_INVALID, "the recurrent state is at position %d, of %d", cell.pos, w.n_pos);
            }
        }

        const llama_pos last = memory.seq_pos_max(0);

        if ((last < 0) != (w.n_cells == 0) || (!has_ids() && last != w.n_pos - 1)) {
            aim_fail(AIM_STATUS_INVALID, "the recurrent state is at position %d, the conversation ends at %d", last, w.n_pos - 1);
        }
    }

    void windows(const llama_kv_cache_iswa & kv) const {
        full(kv.get_base()->get_cells(0), has_ids());
        window(kv.get_swa()->get_cells(0));
    }

    void any(llama_memory_i * memory) const {
        if (const auto * kv = dynamic_cast<const aim_kv_cache *>(memory)) {
            staged(*kv);
        } else if (const auto * kv = dynamic_cast<const llama_kv_cache *>(memory)) {
            full(kv->get_cells(0), has_ids());
        } else if (const auto * kv = dynamic_cast<const llama_kv_cache_iswa *>(memory)) {
            windows(*kv);
        } else if (const auto * both = dynamic_cast<const llama_memory_hybrid *>(memory)) {
            full(both->get_mem_attn()->get_cells(0), has_ids());
            recurrent(*both->get_mem_recr());
        } else if (const auto * both = dynamic_cast<const llama_memory_hybrid_iswa *>(memory)) {
            windows(*both->get_mem_attn());
            recurrent(*both->get_mem_recr());
        } else if (const auto * alone = dynamic_cast<const llama_memory_recurrent *>(memory)) {
            recurrent(*alone);
        } else {
            aim_fail(AIM_STATUS_UNSUPPORTED, "this kind of model has a memory whose states cannot be checked; start the conversation anew");
        }
    }
};

}

void aim_state_check(const llama_context & ctx, const aim_state_wanted & wanted) {
    if (wanted.n_pos < 0 || wanted.n_visual < 0 || wanted.n_cells < wanted.n_visual) {
        aim_fail(AIM_STATUS_INVALID, "%d tokens, %d of them visual, at %d positions cannot be", wanted.n_cells, wanted.n_visual, wanted.n_pos);
    }

    checker{ ctx.get_model(), wanted }.any(ctx.get_memory());
}
