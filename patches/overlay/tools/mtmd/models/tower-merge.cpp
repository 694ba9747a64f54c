#include "tower-merge.h"

#include "../aim-mtmd.h"
#include "../aim-ward.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

static thread_local double next_retain = 1.0;
static thread_local double next_depth  = 0.5;

void aim_tower_merge_next(double retain, double depth) {
    next_retain = retain;
    next_depth  = depth;
}

aim_tower_merge::aim_tower_merge() : retain(next_retain), depth(next_depth) {
    next_retain = 1.0;
}

int32_t aim_tower_merge::layer(int32_t n_layer) const {
    return std::clamp((int32_t) std::lround(depth * n_layer), 1, std::max(1, n_layer - 1));
}

int32_t aim_tower_merge::count(int32_t n_patches) const {
    return aim_merge_count(n_patches, retain);
}

// what one op gives, as float32: rows [n_kept][n_embd], log of their sizes [n_kept], the row of each input row [n]
struct packed_layout {
    int64_t n_embd, n, n_kept;

    int64_t sizes_at()  const { return n_kept*n_embd; }
    int64_t owners_at() const { return sizes_at() + n_kept; }
    int64_t total()     const { return owners_at() + n; }
};

static packed_layout layout_of(const ggml_tensor * packed) {
    const ggml_tensor * x = packed->src[0];
    return { x->ne[0], x->ne[1], (packed->ne[0] - x->ne[1]) / (x->ne[0] + 1) };
}

static void write_merged(const packed_layout & at, const float * x, int32_t n_first, float * out) {
    const int32_t n_kept = (int32_t) at.n_kept - n_first;
    const aim_ward_input in = { x + n_first*at.n_embd, (int32_t) at.n - n_first, (int32_t) at.n_embd };
    const std::vector<int32_t> owner = aim_ward_cluster(in, n_kept);
    const std::vector<double>  means = aim_ward_means(in, owner, n_kept);
    std::copy_n(x, n_first*at.n_embd, out);
    std::copy(means.begin(), means.end(), out + n_first*at.n_embd);
    std::vector<int32_t> size(n_kept);
    float * owners = out + at.owners_at();
    for (int32_t i = 0; i < n_first; i++) {
        out[at.sizes_at() + i] = 0.0f;
        owners[i] = (float) i;
    }
    for (int32_t i = 0; i < in.n; i++) {
        owners[n_first + i] = (float) (n_first + owner[i]);
        size[owner[i]]++;
    }
    for (int32_t i = 0; i < n_kept; i++) {
        out[at.sizes_at() + n_first + i] = std::log((float) size[i]);
    }
}

// n_first goes where an op has a pointer for its data
static void merge_op(ggml_tensor * dst, int ith, int, void * n_first) {
    if (ith != 0) {
        return;
    }
    const packed_layout at = layout_of(dst);
    float * out = (float *) dst->data;
    try {
        write_merged(at, (const float *) dst->src[0]->data, (int32_t) (intptr_t) n_first, out);
    } catch (const std::exception &) { // rows that are not finite: nor is what becomes of them
        std::fill_n(out, at.owners_at(), std::numeric_limits<float>::quiet_NaN());
        std::fill_n(out + at.owners_at(), at.n, 0.0f);
    }
}

static void owners_op(ggml_tensor * dst, int ith, int, void *) {
    if (ith != 0) {
        return;
    }
    const packed_layout at = layout_of(dst->src[0]);
    const float * owners = (const float *) dst->src[0]->data + at.owners_at();
    std::transform(owners, owners + at.n, (int32_t *) dst->data, [](float owner) { return (int32_t) owner; });
}

aim_merged_rows aim_build_tower_merge(ggml_context * ctx, ggml_tensor * x, int32_t n_first, int32_t n_kept) {
    const packed_layout at = { x->ne[0], x->ne[1], n_kept };
    ggml_tensor * args[] = { ggml_cont(ctx, x) };
    ggml_tensor * packed = ggml_custom_4d(ctx, GGML_TYPE_F32, at.total(), 1, 1, 1, args, 1, merge_op, 1, (void *) (intptr_t) n_first);
    ggml_tensor * owners = ggml_custom_4d(ctx, GGML_TYPE_I32, at.n, 1, 1, 1, &packed, 1, owners_op, 1, nullptr);
    ggml_tensor * sizes  = ggml_view_2d(ctx, packed, n_kept, 1, n_kept*sizeof(float), at.sizes_at()*sizeof(float));
    return {
        ggml_view_2d(ctx, packed, at.n_embd, n_kept, at.n_embd*sizeof(float), 0),
        ggml_repeat_4d(ctx, sizes, n_kept, n_kept, 1, 1),
        owners,
    };
}
