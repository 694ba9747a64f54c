// rotary ids of rows, of models whose rows have several (M-RoPE): where a row stands in time and in its picture. in a staged context
// a position is a row's number and says what came before it; how far it is turned is its ids. a pruned row keeps its ids. text goes
// on behind the text before it, whatever ids visual rows before that have: as transformers' generate does, and as a prefill of the
// whole has it (ref: transformers 5, generation/utils.py: position_ids; models/qwen2_5_vl/modeling_qwen2_5_vl.py: get_rope_index)
// knows positions and numbers; who turns what is aim-graph.cpp
#pragma once

#include "llama.h"
#include "llama-io.h"

#include <array>
#include <cstdint>
#include <vector>

static const int32_t AIM_MAX_ID = 1 << 30;

using aim_id = std::array<llama_pos, 3>; // time, row, column

class aim_ids {
public:
    // of the row at a position; a position that is not there yet is text behind all others
    aim_id get(llama_pos pos) const;

    // the id that text gets behind the last row: one more than its largest
    llama_pos next() const;

    // the row at `pos`, which is the last one from now on; the rows before it have to be there
    void set(llama_pos pos, const aim_id & id);
    void set_text(llama_pos pos);

    // rows from p0 on are gone
    void cut(llama_pos p0);

    void clear() { rows.clear(); }

    void state_write(llama_io_write_i & io) const;

    // n_pos rows have to follow; throws std::runtime_error for what is no state of ids
    void state_read(llama_io_read_i & io, llama_pos n_pos);

private:
    std::vector<aim_id> rows; // by position
};
