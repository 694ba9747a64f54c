// what rows weigh in attention, by position: a merged visual row that stands for s patches adds log(s) to its column of the attention
// logits (ToMe, arXiv 2210.09461, section 3). positions are the same in every stage, so one of these serves all of them.
// knows positions and numbers; who adds them to what is aim-graph.cpp (masks) and aim-importance.cpp (scores)
#pragma once

#include "llama.h"
#include "llama-io.h"

#include <cstdint>
#include <vector>

class aim_weights {
public:
    // no row stands for more than one patch
    bool empty() const { return logs.empty(); }

    float get(llama_pos pos) const { return size_t(pos) < logs.size() ? logs[pos] : 0.0f; }

    // size: patches, at least 1
    void set(llama_pos pos, int32_t size);

    // as the functions of llama_memory_i with these names; a negative p0 or p1 is an open end
    void seq_rm (llama_pos p0, llama_pos p1);
    void seq_add(llama_pos p0, llama_pos p1, llama_pos shift);
    void seq_div(llama_pos p0, llama_pos p1, int d);

    void clear() { logs.clear(); }

    void state_write(llama_io_write_i & io) const;

    // positions have to be below n_pos; throws std::runtime_error for what is no state of weights
    void state_read(llama_io_read_i & io, llama_pos n_pos);

private:
    std::vector<float> logs; // by position; 0 is one patch, and what is not there; the last one is not 0

    void put(llama_pos pos, float log);
    void trim();

    template <typename F> void move(llama_pos p0, llama_pos p1, F && to);
};
