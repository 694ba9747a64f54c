// the random walk on one layer's sharpened attention, on the CPU: products, mask, softmax and all steps in one pass
// knows plain matrices of floats; where they come from and who runs the jobs is aim-importance.cpp
//
// the walk is p <- p M with M lower triangular: entry j of step k + 1 needs step k at rows >= j only. so rows are taken from the last to
// the first, and when a row is reached, its entry of every step is final but for its own share: a block of rows of M is made in cache,
// used by all steps at once and forgotten. nothing quadratic is ever stored
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#define AIM_WALK_STEPS 5 // AIM (arXiv 2412.03248), section 3.2

// rows of one block; a multiple of every kernel's rows and of two of its vectors
#define AIM_WALK_BLOCK 32

struct aim_walk {
    int64_t n_head;
    int64_t n_head_kv;
    int64_t n_embd_head;
    int64_t n_q; // rows that walk, the last n_q of the keys
    int64_t n_k;

    const float * q; // [n_embd_head, n_head, n_q]

    float scale; // of the products, above 0; softmax temperature included

    const float * bias; // of each key, added to its products before they are scaled, as aim_walk_pad() gives them; NULL for nothing
};

// one instruction set
struct aim_walk_kernel {
    const char * name;

    bool (*is_supported)();

    int64_t n_cols; // keys in a panel

    int64_t (*n_packed)(int64_t n_embd_head); // floats of a packed key

    // keys of one panel and one head, panel: n_cols packed keys. key i is k + i*stride, keys from n on are zero
    void (*pack)(const aim_walk & w, const float * k, int64_t stride, int64_t n, float * panel);

    // p after all steps from 1/n_k, one head: p [n_q], packed: the panels of the head's keys, work: aim_walk_n_work() floats
    // go_on is asked now and then; false ends the call early
    void (*run)(const aim_walk & w, int64_t h, const float * packed, float * work, float * p, bool (*go_on)(void *), void * data);
};

// the best that this CPU runs; with a name that one, NULL if it is unknown or the CPU cannot run it
const aim_walk_kernel * aim_walk_get_kernel(const char * name = nullptr);

std::string aim_walk_kernel_names();

int64_t aim_walk_n_panels(const aim_walk_kernel & kernel, const aim_walk & w);

// floats: packed keys of one KV head; what one head needs while it is computed
size_t aim_walk_n_packed(const aim_walk_kernel & kernel, const aim_walk & w);
size_t aim_walk_n_work  (const aim_walk_kernel & kernel, const aim_walk & w);

// bias [n_k] for whole panels of a kernel, zeros behind it
std::vector<float> aim_walk_pad(const aim_walk_kernel & kernel, const aim_walk & w, const float * bias);

// a walk on the caller's thread: keys [n_embd_head, n_head_kv, n_k], p [n_q, n_head]
void aim_walk_run(const aim_walk_kernel & kernel, const aim_walk & w, const float * keys, float * p);

// while it lives, numbers below 1e-38 count as zero in this thread: with them, an x86 core is many times slower
struct aim_walk_flush {
    aim_walk_flush();
    ~aim_walk_flush();

    aim_walk_flush(const aim_walk_flush &) = delete;
    aim_walk_flush & operator=(const aim_walk_flush &) = delete;

private:
    unsigned mode = 0;
};
