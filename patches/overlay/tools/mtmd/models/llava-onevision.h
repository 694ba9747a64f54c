// LLaVA-OneVision in libmtmd: SigLIP tower, two-layer projector, one square tile at a time
// what surrounds the tiles (pooling, anyres assembly, newlines, token merging) is in aim-visual-tokens.cpp and aim-merge.cpp
#pragma once

#include "llava-tower.h"

struct clip_graph_llava_onevision : clip_graph_llava_tower {
    clip_graph_llava_onevision(clip_ctx * ctx, const clip_image_f32 & img) : clip_graph_llava_tower(ctx, img) {}
    ggml_cgraph * build() override;
};

void llava_onevision_load_hparams(clip_hparams & hparams);

// loads mm.0, mm.2 and v.image_newline; throws std::runtime_error naming the tensor whose shape does not fit the tower
void llava_onevision_load_tensors(clip_model & model, const clip_get_tensor_fn & get_tensor);
