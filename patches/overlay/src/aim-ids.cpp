#include "aim-ids.h"

#include "llama-impl.h"

#include <algorithm>
#include <stdexcept>

static const uint32_t STATE_VERSION = 1;

llama_pos aim_ids::next() const {
    return rows.empty() ? 0 : 1 + *std::max_element(rows.back().begin(), rows.back().end());
}

aim_id aim_ids::get(llama_pos pos) const {
    if (pos >= 0 && size_t(pos) < rows.size()) {
        return rows[pos];
    }

    const llama_pos id = next() + std::max(0, pos - llama_pos(rows.size()));

    return { id, id, id };
}

void aim_ids::set(llama_pos pos, const aim_id & id) {
    cut(pos);

    if (size_t(pos) != rows.size()) {
        throw std::runtime_error(format("a row at position %d, the last one is at %zu", pos, rows.size() - 1));
    }

    rows.push_back(id);
}

void aim_ids::set_text(llama_pos pos) {
    cut(pos);

    const llama_pos id = next();

    set(pos, { id, id, id });
}

void aim_ids::cut(llama_pos p0) {
    if (size_t(std::max(p0, 0)) < rows.size()) {
        rows.resize(std::max(p0, 0));
    }
}

//
// state: version, number of rows, ids of each
//

void aim_ids::state_write(llama_io_write_i & io) const {
    const uint32_t n = rows.size();

    io.write(&STATE_VERSION, sizeof(STATE_VERSION));
    io.write(&n, sizeof(n));

    io.write(rows.data(), n*sizeof(aim_id));
}

void aim_ids::state_read(llama_io_read_i & io, llama_pos n_pos) {
    uint32_t version;
    uint32_t n;

    io.read(&version, sizeof(version));

    if (version != STATE_VERSION) {
        throw std::runtime_error(format("the state has ids of rows in form %u, known is %u", version, STATE_VERSION));
    }

    io.read(&n, sizeof(n));

    if (n_pos < 0 || n != uint32_t(n_pos)) {
        throw std::runtime_error(format("the state has ids of %u rows, and %d rows", n, n_pos));
    }

    clear();

    for (uint32_t i = 0; i < n; ++i) {
        aim_id id;
        io.read(id.data(), sizeof(id));

        if (std::any_of(id.begin(), id.end(), [](llama_pos p) { return p < 0 || p > AIM_MAX_ID; })) {
            throw std::runtime_error(format("the state has ids %d, %d, %d of row %u", id[0], id[1], id[2], i));
        }

        set(i, id);
    }
}
