// what our two LLaVA graphs share: with f32 weights the whole tower is f32
#pragma once

#include "../aim-clip.h"

struct clip_graph_llava_tower : clip_graph {
    using clip_graph::clip_graph;

    // patch embedding without the float16 pixels of ggml_conv_2d: [n_embd, n_patches]
    ggml_tensor * build_patches() const;

    // the projector's two layers with the exact gelu (projector_hidden_act "gelu" in transformers), as the graph's output:
    // [n_embd, n] -> [n_mmproj_embd, n]
    ggml_cgraph * finish_projected(ggml_tensor * cur);

    // ggml's CPU gelu and quick_gelu read a float16 table (1e-3 off). An f32 file is a
    // reference, so what enters its matmuls is computed in full; other types keep the table, which is faster
    ggml_tensor * build_mm(ggml_tensor * w, ggml_tensor * x) const override;
};
