// inside of our part of ggml-cpu: who computes what
#pragma once

#include "aim.h"
#include "aim-cpu.h"
#include "aim-kernels.h"

#include "traits.h"

// kernels and element type that a weight was packed for: its tensor->extra, as a ggml::cpu::tensor_traits *
struct aim_packing : ggml::cpu::tensor_traits {
    const aim_kernels * kernels;
    aim_pack            type;

    aim_packing(const aim_kernels * kernels, aim_pack type) : kernels(kernels), type(type) {}
    bool work_size(int n_threads, const ggml_tensor * op, size_t & size) override;
    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override;
};

// null unless the tensor is a packed weight
const aim_packing * aim_packing_of(const ggml_tensor * tensor);

// a packed weight: [n/16][k_bytes/4][16][4], then a scale per column, then a sum per column
struct aim_weight {
    int64_t     k, n, k_padded;
    size_t      k_bytes;
    aim_operand operand;
};
aim_weight aim_weight_of(const ggml_tensor * tensor);
size_t     aim_weight_size(const ggml_tensor * tensor, aim_pack type);

// attention: null unless marked
ggml::cpu::tensor_traits * aim_attention_traits(const ggml_tensor * op);
// nodes after i that are computed with it, 0 if none
int aim_fused_attention(const ggml_cgraph * graph, int i, ggml_compute_params * params);

// a language model's product: null unless marked, and packed by ggml in a way that our kernels can read
ggml::cpu::tensor_traits * aim_unpacked_traits(const ggml_tensor * op);

// products and attention that our kernels shall compute, see aim_mark_graph
bool aim_marked(const ggml_tensor * op);
bool aim_marked_weight(const ggml_tensor * op);

const aim_kernels * aim_kernels_in_use(void); // null where this CPU has none

// --- sharing work among threads -------------------------------------------------------------------------------------

// Units of work in one order, taken from ggml's counter: a thread without a core costs the unit it holds, not its half.
// After a phase each thread holds one unit of the next, so that the counter need not be set again.
struct aim_units {
    ggml_compute_params * params;
    int64_t               before = 0; // units of earlier phases
    int64_t               mine;

    explicit aim_units(ggml_compute_params * params);
    // calls f(unit) for this thread's share of n units, and waits for the others
    template <typename F> void share(int64_t n, F && f) {
        for (; mine < before + n; mine = next()) {
            f(mine - before);
        }
        before += n;
        wait();
    }
    // the last phase: the graph waits
    template <typename F> void finish(int64_t n, F && f) {
        for (; mine < before + n; mine = next()) {
            f(mine - before);
        }
    }

  private:
    int64_t next();
    void    wait();
};

// the threads' part of the work buffer
struct aim_arena {
    uint8_t * at;
    explicit aim_arena(void * wdata) : at((uint8_t *) (((uintptr_t) wdata + 63) / 64 * 64)) {}
    template <typename T> T * take(size_t n) {
        T * found = (T *) at;
        at += aim_up((int64_t) (n * sizeof(T)), 64);
        return found;
    }
};
