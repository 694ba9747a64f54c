// what the layers after the first stage are computed from: the rows that left that stage and, where its last layer ranks, their
// queries there. one per cell of the first stage, written by every graph that runs it, prefill and decode alike, so that the later
// stages can be computed anew (aim_prefill_params::n_held). knows tensors and cells, nothing of ranking
#pragma once

#include "ggml-cpp.h"
#include "llama-io.h"

#include <cstdint>
#include <vector>

struct llama_model;

class aim_held_rows {
public:
    // il: the last layer of the first stage; memory is touched only where rows are written
    aim_held_rows(const llama_model & model, int32_t il, uint32_t n_cells, bool has_q, ggml_backend_buffer_type_t buft);

    int32_t get_il() const { return il; }

    ggml_tensor * get_hidden() const { return hidden; } // [n_embd, n_cells]; [n_embd_inp, n_cells] where layers behind it add to rows
    ggml_tensor * get_q()      const { return q; }      // [n_embd_head*n_head, n_cells], NULL where nothing ranks

    size_t row_bytes() const;
    size_t n_bytes()   const;

    ggml_backend_buffer_type_t get_buft() const { return ggml_backend_buffer_get_type(buf.get()); }

    // the rows of these cells of hidden or q, one after the other
    static void read(const ggml_tensor * t, const std::vector<int32_t> & cells, float * dst);

    void state_write(llama_io_write_i & io, const std::vector<int32_t> & cells) const;
    void state_read (llama_io_read_i  & io, const std::vector<int32_t> & cells);

    // passes over the rows of a state that nobody keeps, of so many cells
    static void state_skip(llama_io_read_i & io, size_t n_cells);

private:
    const int32_t il;

    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buf;

    ggml_tensor * hidden = nullptr;
    ggml_tensor * q      = nullptr;

    std::vector<ggml_tensor *> tensors() const;
};
