// LLaVA-1.5 and LLaVA-NeXT in libmtmd as their authors run them: CLIP with the class token first, the selected layer, exact gelu
// upstream's clip_graph_llava puts the class token last while it fills positions and rows for a first one, so every patch
// gets its neighbour's position, and patch 0 is lost: https://github.com/ggml-org/llama.cpp/pull/25844
#pragma once

#include "llava-tower.h"

struct clip_graph_llava_clip : clip_graph_llava_tower {
    // projector "mlp" files that have a class token and say which layer to read (clip.vision.feature_layer, the last one
    // in the file), as our converter writes them; and those with pinpoints and a newline (LLaVA-NeXT), which upstream's script
    // writes with all layers that are run. All others stay with upstream's graph
    static bool handles(const clip_model & model);

    // whether the keys of the layer behind the last one can be given out
    static bool has_keys(const clip_model & model);

    clip_graph_llava_clip(clip_ctx * ctx, const clip_image_f32 & img) : clip_graph_llava_tower(ctx, img) {}
    ggml_cgraph * build() override;
};

// what a projector "mlp" file may have beside what upstream reads: the newline under the name that upstream's script gives it, and
// the keys of the layer behind those that are run (v.blk.N.ln1, v.blk.N.attn_k)
void llava_clip_load_tensors(clip_model & model, const clip_get_tensor_fn & get_tensor);
