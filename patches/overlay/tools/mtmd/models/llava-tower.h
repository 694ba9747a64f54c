// what our two LLaVA graphs share: with f32 weights the tower's activations are exact too
#pragma once

#include "../aim-clip.h"

struct clip_graph_llava_tower : clip_graph {
    using clip_graph::clip_graph;

    // ggml's CPU gelu and quick_gelu read a float16 table (6e-4 of the largest output after two layers). An f32 file is a
    // reference, so what enters its matmuls is computed in full; other types keep the table, which is faster
    ggml_tensor * build_mm(ggml_tensor * w, ggml_tensor * x) const override;
};
