// merging inside a vision tower: rows that enter one layer are clustered by Ward's criterion, the layers behind it compute the means
// alone, and behind the projector every patch gets its cluster's row. so whoever reads the tower sees as many rows as ever
// attention to a mean is weighed by its size, as in ToMe (arXiv 2210.09461, proportional attention)
#pragma once

#include "ggml.h"

#include <cstdint>

// belongs to one clip_ctx. retain 1: off
struct aim_tower_merge {
    aim_tower_merge(); // what aim_tower_merge_next said on this thread; towers after it are not merged

    double retain; // share of the patches
    double depth;  // of the layers that come before

    bool    on() const { return retain < 1.0; }
    int32_t layer(int32_t n_layer) const;   // the first that computes merged rows, of two layers or more: neither the first of all nor none
    int32_t count(int32_t n_patches) const; // rows left of them
};

void aim_tower_merge_next(double retain, double depth);

struct aim_merged_rows {
    ggml_tensor * rows;   // [n_embd, n_kept]
    ggml_tensor * mask;   // [n_kept, n_kept]: log of a row's size, in its column
    ggml_tensor * owners; // I32 [n]: the row that each input row went into
};

// x: [n_embd, n] to n_kept rows, of which the first n_first (a class token) stay as they are. rows keep their order
aim_merged_rows aim_build_tower_merge(ggml_context * ctx, ggml_tensor * x, int32_t n_first, int32_t n_kept);
