// what libllama and libmtmd ask of our CPU kernels, through ggml_backend_reg_get_proc_address of a backend
#pragma once

#include "ggml-backend.h"

#include <stdint.h>

// precisions of a matrix product; numbers are part of the interface
enum aim_precision : int32_t {
    AIM_PRECISION_EXACT = 0, // ggml's own kernels
    AIM_PRECISION_16    = 1, // bf16 with AMX, else int16 with a scale per row
    AIM_PRECISION_8     = 2, // int8 with a scale per row, after a rotation
};

// "aim_buffer_type": weights packed for a precision; null where this CPU has no kernels for it
typedef ggml_backend_buffer_type_t (*aim_buffer_type_t)(int32_t precision);

// "aim_kernels_info": name of the kernels in use ("amx", "avx512-vnni", ...; "" where there are none)
typedef const char * (*aim_kernels_info_t)(void);

// "aim_kernels_use": takes other kernels than the fastest, from the next weights on; null: the fastest; "": none; false: this CPU lacks them
typedef bool (*aim_kernels_use_t)(const char * name);

// "aim_set_precision": products and attention of a backend's graphs are computed by our kernels where they can. Of a CPU
// backend, and of one that stands for another machine, whose CPU backend computes each node as it is told (aim-mark.h)
typedef void (*aim_set_precision_t)(ggml_backend_t backend, int32_t precision);

// one of these; null where the CPU backend is not ours
template <typename F> F aim_cpu_function(const char * name) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name("CPU");
    return reg ? (F) ggml_backend_reg_get_proc_address(reg, name) : nullptr;
}

// a GPU has no such function: its kernels are its own
inline void aim_compute_with(ggml_backend_t backend, int32_t precision) {
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(ggml_backend_get_device(backend));
    const auto set = reg ? (aim_set_precision_t) ggml_backend_reg_get_proc_address(reg, "aim_set_precision") : nullptr;
    if (set) {
        set(backend, precision);
    }
}
