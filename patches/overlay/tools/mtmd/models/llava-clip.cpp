#include "llava-clip.h"

bool clip_graph_llava_clip::handles(const clip_model & model) {
    const auto & layers  = model.hparams.feature_layers;
    const bool   is_said = layers.size() == 1 && layers[0] == model.hparams.n_layer;
    const bool   is_next = layers.empty() && !model.hparams.image_res_candidates.empty() && model.image_newline;
    return model.proj_type == PROJECTOR_TYPE_MLP && model.class_embedding && model.mm_2_w && (is_said || is_next);
}

bool clip_graph_llava_clip::has_keys(const clip_model & model) {
    return handles(model) && (int) model.layers.size() > model.hparams.n_layer;
}

void llava_clip_load_tensors(clip_model & model, const clip_get_tensor_fn & get_tensor) {
    if (model.image_newline == nullptr) {
        model.image_newline = get_tensor("model.image_newline", false);
    }
    const int il = model.hparams.n_layer;
    clip_layer keys;
    keys.ln_1_w = get_tensor(string_format(TN_LN_1,   "v", il, "weight"), false);
    keys.ln_1_b = get_tensor(string_format(TN_LN_1,   "v", il, "bias"),   false);
    keys.k_w    = get_tensor(string_format(TN_ATTN_K, "v", il, "weight"), false);
    keys.k_b    = get_tensor(string_format(TN_ATTN_K, "v", il, "bias"),   false);
    const int64_t n_embd = model.hparams.n_embd;
    if (keys.ln_1_w && keys.k_w && keys.ln_1_w->ne[0] == n_embd && keys.k_w->ne[0] == n_embd && keys.k_w->ne[1] == n_embd) {
        model.layers.push_back(keys);
    }
}

static ggml_tensor * new_indices(ggml_context * ctx, const char * name, int64_t n) {
    ggml_tensor * indices = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n);
    ggml_set_name(indices, name);
    ggml_set_input(indices);
    return indices;
}

ggml_cgraph * clip_graph_llava_clip::build() {
    const int n_pos = n_patches + 1;

    // clip_encode fills both for projector "mlp": 0 .. n_patches, and 1 .. n_patches
    ggml_tensor * positions = new_indices(ctx0, "positions", n_pos);
    ggml_tensor * patches   = new_indices(ctx0, "patches",   n_patches);

    ggml_tensor * inp = build_patches();                                                  // [n_embd, n_patches]
    inp = ggml_concat(ctx0, ggml_reshape_2d(ctx0, model.class_embedding, n_embd, 1), inp, 1); // [n_embd, n_pos]

    ggml_tensor * cur = build_layers(inp, n_pos, 1, ggml_get_rows(ctx0, model.position_embeddings, positions));

    return finish_projected(cur, patches);
}
