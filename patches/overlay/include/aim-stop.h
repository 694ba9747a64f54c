// stopping from outside: a caller's callback in the place of a backend's abort callback, asked now and then
// belongs to one llama_context or clip_ctx, which computes one graph at a time
#pragma once

#include "aim-status.h"

#include "ggml.h"
#include "ggml-backend.h"

#include <cstdint>

class aim_stop {
public:
    aim_stop(aim_stop_callback poll, void * data) : poll(poll), data(data) {}

    // a ggml_abort_callback. ggml asks after every node; one token has a thousand of them and takes a few ms
    static bool ask(void * stop) {
        return static_cast<aim_stop *>(stop)->ask_if_due();
    }

    // whether the last call was stopped; reset() begins a new one
    bool is_stopped() const {
        return stopped;
    }

    void reset() {
        stopped = false;
    }

    // NULL takes it away. backends without abort callbacks are left alone
    static void install(ggml_backend_t backend, aim_stop * stop) {
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));

        using setter = ggml_backend_set_abort_callback_t;

        const auto set = reg ? (setter) ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_abort_callback") : nullptr;

        if (set) {
            set(backend, stop ? ask : nullptr, stop);
        }
    }

private:
    static constexpr int64_t INTERVAL_US = 50*1000;

    const aim_stop_callback poll;
    void * const            data;

    int64_t t_next_us = 0;
    bool    stopped   = false;

    // true once: the graph that asked ends with it, and so does the call
    bool ask_if_due() {
        if (ggml_time_us() < t_next_us) {
            return false;
        }

        stopped   = poll(data);
        t_next_us = ggml_time_us() + INTERVAL_US;

        return stopped;
    }
};
