#include "aim-weights.h"

#include "llama-impl.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

static const uint32_t STATE_VERSION = 1;

void aim_weights::put(llama_pos pos, float log) {
    if (size_t(pos) >= logs.size()) {
        logs.resize(pos + 1);
    }

    logs[pos] = log;
}

void aim_weights::trim() {
    while (!logs.empty() && logs.back() == 0.0f) {
        logs.pop_back();
    }
}

void aim_weights::set(llama_pos pos, int32_t size) {
    put(pos, std::log(float(size)));
    trim();
}

// every row of [p0, p1) goes to position to(p); below 0 it is gone
template <typename F>
void aim_weights::move(llama_pos p0, llama_pos p1, F && to) {
    const llama_pos n     = logs.size();
    const llama_pos begin = std::clamp(p0, 0, n);
    const llama_pos end   = p1 < 0 ? n : std::clamp(p1, begin, n);

    const std::vector<float> moved(logs.begin() + begin, logs.begin() + end);

    std::fill(logs.begin() + begin, logs.begin() + end, 0.0f);

    for (size_t i = 0; i < moved.size(); ++i) {
        const llama_pos pos = to(begin + llama_pos(i));

        if (moved[i] != 0.0f && pos >= 0) {
            put(pos, std::max(moved[i], get(pos))); // where a division makes two positions one, the larger stays
        }
    }

    trim();
}

void aim_weights::seq_rm(llama_pos p0, llama_pos p1) {
    move(p0, p1, [](llama_pos) { return -1; });
}

void aim_weights::seq_add(llama_pos p0, llama_pos p1, llama_pos shift) {
    move(p0, p1, [&](llama_pos pos) { return pos + shift; });
}

void aim_weights::seq_div(llama_pos p0, llama_pos p1, int d) {
    move(p0, p1, [&](llama_pos pos) { return pos/d; });
}

//
// state: version, number of rows with a weight, position and weight of each
//

void aim_weights::state_write(llama_io_write_i & io) const {
    const uint32_t n = logs.size() - std::count(logs.begin(), logs.end(), 0.0f);

    io.write(&STATE_VERSION, sizeof(STATE_VERSION));
    io.write(&n, sizeof(n));

    for (size_t i = 0; i < logs.size(); ++i) {
        if (logs[i] != 0.0f) {
            const llama_pos pos = i;

            io.write(&pos,     sizeof(pos));
            io.write(&logs[i], sizeof(logs[i]));
        }
    }
}

void aim_weights::state_read(llama_io_read_i & io, llama_pos n_pos) {
    uint32_t version;
    uint32_t n;

    io.read(&version, sizeof(version));

    if (version != STATE_VERSION) {
        throw std::runtime_error(format("the state has weights of rows in form %u, known is %u", version, STATE_VERSION));
    }

    io.read(&n, sizeof(n));

    clear();

    for (uint32_t i = 0; i < n; ++i) {
        llama_pos pos;
        float     log;

        io.read(&pos, sizeof(pos));
        io.read(&log, sizeof(log));

        if (pos < 0 || pos >= n_pos || !(log > 0.0f && log < 32.0f)) {
            throw std::runtime_error(format("the state has weight %g at position %d of %d", log, pos, n_pos));
        }

        put(pos, log);
    }
}
