// Qwen2.5-VL's tower, whose layers attend inside windows but for every n-th: each window by itself, where upstream computes all pairs of
// patches and masks those of two windows. patches lie window by window, windows of one size together: the whole ones, then those that
// the right and the lower edge cut.
// ref: transformers 5, models/qwen2_5_vl/modeling_qwen2_5_vl.py: get_window_index, Qwen2_5_VLVisionAttention
#pragma once

#include "../aim-clip.h"

#include <functional>

struct clip_graph_qwen25vl_windows : clip_graph {
    clip_graph_qwen25vl_windows(clip_ctx * ctx, const clip_image_f32 & img) : clip_graph(ctx, img) {}

    // a tower with windows that was loaded for other than exact arithmetic
    static bool handles(const clip_ctx * ctx, const clip_model & model);

    ggml_cgraph * build() override;

private:
    ggml_tensor * build_patches(ggml_tensor * order);
    ggml_tensor * build_window_attn(const clip_layer & layer, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, int il);
    ggml_tensor * build_layer(ggml_tensor * inp, ggml_tensor * positions, int il);
};

// fills the inputs of such a graph; false for any other graph
bool aim_set_window_inputs(ggml_cgraph * gf, const clip_hparams & hparams, int width, int height);
