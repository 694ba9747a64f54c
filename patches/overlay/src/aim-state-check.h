// whether the cells of a context are those that its caller expects, after a state of somebody else's was read into them
// knows llama.cpp's kinds of memory; what is in the tensors of a cell cannot be checked
#pragma once

#include <cstdint>

struct llama_context;

struct aim_state_wanted {
    int32_t n_pos;    // the next row is at this position
    int32_t n_cells;  // rows
    int32_t n_visual; // of them, such as later layers may lack
};

// throws aim_error, AIM_STATUS_INVALID
void aim_state_check(const llama_context & ctx, const aim_state_wanted & wanted);
