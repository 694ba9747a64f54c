// what our two LLaVA graphs share: with f32 weights the whole tower is f32
#pragma once

#include "../aim-clip.h"
#include "tower-merge.h"

#include <functional>
#include <string>

// what the graphs of this thread give out while it lives: the projected rows, or what the projector would read, or that with the
// keys of the layer behind it: [n_embd] or [n_embd | n_embd] a patch
enum aim_tower_output {
    AIM_TOWER_PROJECTED,
    AIM_TOWER_FEATURES,
    AIM_TOWER_FEATURES_AND_KEYS,
};

struct aim_tower_gives {
    explicit aim_tower_gives(aim_tower_output output);
    ~aim_tower_gives();
};

// (tensor name, required) -> tensor; the helper inside clip_model_loader::load_tensors, which throws for what is missing
using clip_get_tensor_fn = std::function<ggml_tensor *(const std::string &, bool)>;

struct clip_graph_llava_tower : clip_graph {
    clip_graph_llava_tower(clip_ctx * ctx, const clip_image_f32 & img);

    const aim_tower_merge & merging;
    ggml_tensor * owners = nullptr; // I32 [n_pos]: the row of each position, null where none were merged

    // the layers over [n_embd, n_pos], of which the first n_first rows are no patches: all of them, or some, then owners is set
    ggml_tensor * build_layers(ggml_tensor * inp, int n_pos, int n_first, ggml_tensor * positions);

    // patch embedding without the float16 pixels of ggml_conv_2d: [n_embd, n_patches]
    ggml_tensor * build_patches() const;

    // the projector's two layers with the exact gelu (projector_hidden_act "gelu" in transformers), as the graph's output, a row for
    // each of `wanted` positions (I32, null: all): [n_embd, n] -> [n_mmproj_embd, n_wanted]
    // where the thread asked for something else (aim_tower_gives), that is the output
    ggml_cgraph * finish_projected(ggml_tensor * cur, ggml_tensor * wanted = nullptr);

    // ggml's CPU gelu and quick_gelu read a float16 table (1e-3 off). An f32 file is a
    // reference, so what enters its matmuls is computed in full; other types keep the table, which is faster
    ggml_tensor * build_mm(ggml_tensor * w, ggml_tensor * x) const override;

private:
    ggml_tensor * build_layer(ggml_tensor * inp, int il, ggml_tensor * mask) const;
    ggml_cgraph * finish_features(ggml_tensor * cur, ggml_tensor * wanted);
    ggml_tensor * build_keys(ggml_tensor * cur) const;
};
