#include "aim-held-rows.h"

#include "llama-impl.h"
#include "llama-model.h"

#include <stdexcept>

aim_held_rows::aim_held_rows(const llama_model & model, int32_t il, uint32_t n_cells, bool has_q, ggml_backend_buffer_type_t buft) : il(il) {
    const auto & hparams = model.hparams;

    ctx.reset(ggml_init({ 2*ggml_tensor_overhead(), nullptr, true }));

    if (!ctx) {
        throw std::runtime_error("failed to create a ggml context for held rows");
    }

    // with what layers behind it add, where they do
    const int64_t n_row = uint32_t(il + 1) < hparams.n_deepstack_layers ? hparams.n_embd_inp() : hparams.n_embd;

    hidden = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n_row, n_cells);
    ggml_set_name(hidden, "aim_held_rows");

    if (has_q) {
        q = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, hparams.n_embd_head_k(il)*hparams.n_head(il), n_cells);
        ggml_set_name(q, "aim_held_q");
    }

    // as llama_kv_cache does it; not cleared, since rows are read after they were written only, and clearing would touch the memory
    if (hparams.no_alloc) {
        buf.reset(ggml_backend_buft_alloc_buffer(buft, 0));

        for (ggml_tensor * t : tensors()) {
            t->buffer = buf.get();
        }
    } else {
        buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft));
    }

    if (!buf) {
        throw std::runtime_error("failed to allocate a buffer for held rows");
    }

    LLAMA_LOG_INFO("%s: rows after layer %d, %u cells, size = %.2f MiB\n", __func__, il, n_cells, n_bytes()/1024.0/1024.0);
}

std::vector<ggml_tensor *> aim_held_rows::tensors() const {
    return q ? std::vector<ggml_tensor *>{ hidden, q } : std::vector<ggml_tensor *>{ hidden };
}

size_t aim_held_rows::row_bytes() const {
    size_t res = 0;

    for (const ggml_tensor * t : tensors()) {
        res += t->nb[1];
    }

    return res;
}

size_t aim_held_rows::n_bytes() const {
    return row_bytes()*hidden->ne[1];
}

// f(i, n): of each run of neighbouring cells its first one and how many they are. they are moved at once: a tensor may be on another
// machine, where each move is a way there and back
template <typename F>
static void for_each_run(const std::vector<int32_t> & cells, F && f) {
    for (size_t i = 0; i < cells.size();) {
        size_t n = 1;

        while (i + n < cells.size() && cells[i + n] == cells[i] + int32_t(n)) {
            ++n;
        }

        f(i, n);

        i += n;
    }
}

void aim_held_rows::read(const ggml_tensor * t, const std::vector<int32_t> & cells, float * dst) {
    for_each_run(cells, [&](size_t i, size_t n) {
        ggml_backend_tensor_get(t, dst + i*t->ne[0], cells[i]*t->nb[1], n*t->nb[1]);
    });
}

//
// state: number of rows and bytes of each, then tensor by tensor, by position
//

void aim_held_rows::state_write(llama_io_write_i & io, const std::vector<int32_t> & cells) const {
    const uint32_t n_rows = cells.size();
    const uint64_t size   = row_bytes();

    io.write(&n_rows, sizeof(n_rows));
    io.write(&size,   sizeof(size));

    for (ggml_tensor * t : tensors()) {
        for_each_run(cells, [&](size_t i, size_t n) { io.write_tensor(t, cells[i]*t->nb[1], n*t->nb[1]); });
    }
}

static std::pair<uint32_t, uint64_t> read_sizes(llama_io_read_i & io) {
    uint32_t n_rows;
    uint64_t size;

    io.read(&n_rows, sizeof(n_rows));
    io.read(&size,   sizeof(size));

    return { n_rows, size };
}

void aim_held_rows::state_read(llama_io_read_i & io, const std::vector<int32_t> & cells) {
    const auto [n_rows, size] = read_sizes(io);

    if (n_rows != cells.size() || size != row_bytes()) {
        throw std::runtime_error(format("the state has %u rows of %zu bytes, this context holds %zu of %zu", n_rows, size_t(size),
                    cells.size(), row_bytes()));
    }

    for (ggml_tensor * t : tensors()) {
        for_each_run(cells, [&](size_t i, size_t n) { io.read_tensor(t, cells[i]*t->nb[1], n*t->nb[1]); });
    }
}

void aim_held_rows::state_skip(llama_io_read_i & io, size_t n_cells) {
    const auto [n_rows, size] = read_sizes(io);

    if (n_rows != n_cells || size > (1 << 26)) {
        throw std::runtime_error(format("the state has %u rows of %zu bytes for %zu cells", n_rows, size_t(size), n_cells));
    }

    std::vector<uint8_t> row(std::min<uint64_t>(size, 1 << 20));

    for (uint64_t n_left = n_rows*size; n_left > 0;) {
        const uint64_t n = std::min<uint64_t>(n_left, row.size());
        io.read(row.data(), n);
        n_left -= n;
    }
}
