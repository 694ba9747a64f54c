#include "llava-onevision.h"

#include <initializer_list>
#include <stdexcept>

void llava_onevision_load_hparams(clip_hparams & hparams) {
    // only for plain mtmd use: a picture becomes one stretched tile, as the base view and video frames are made
    hparams.image_resize_pad  = PAD_NONE;
    hparams.image_resize_algo = RESIZE_ALGO_BICUBIC;
}

// a misshapen file must end in an error, not in a ggml assertion inside the graph
static void expect_shape(const ggml_tensor * t, const char * name, std::initializer_list<int64_t> shape) {
    if (t == nullptr) {
        throw std::runtime_error(string_format("%s: unable to find tensor %s\n", __func__, name));
    }
    int i = 0;
    for (const int64_t want : shape) {
        if (t->ne[i] != want) {
            throw std::runtime_error(string_format("%s: tensor %s has %lld elements in dimension %d, expected %lld\n", __func__,
                name, (long long) t->ne[i], i, (long long) want));
        }
        i++;
    }
}

static void expect_layer(const clip_layer & layer, int64_t n_embd, int64_t n_ff) {
    expect_shape(layer.q_w,       "attn_q.weight",   { n_embd, n_embd });
    expect_shape(layer.k_w,       "attn_k.weight",   { n_embd, n_embd });
    expect_shape(layer.v_w,       "attn_v.weight",   { n_embd, n_embd });
    expect_shape(layer.o_w,       "attn_out.weight", { n_embd, n_embd });
    expect_shape(layer.ln_1_w,    "ln1.weight",      { n_embd });
    expect_shape(layer.ln_2_w,    "ln2.weight",      { n_embd });
    expect_shape(layer.ff_up_w,   "ffn_up.weight",   { n_embd, n_ff });
    expect_shape(layer.ff_down_w, "ffn_down.weight", { n_ff, n_embd });
}

static void expect_tower(const clip_model & model) {
    const auto & hparams = model.hparams;
    if (hparams.patch_size <= 0 || hparams.image_size < hparams.patch_size || hparams.n_head <= 0 || hparams.n_embd % hparams.n_head != 0) {
        throw std::runtime_error(string_format("%s: image_size %d, patch_size %d, embedding_length %d and head_count %d do not fit together\n",
            __func__, hparams.image_size, hparams.patch_size, hparams.n_embd, hparams.n_head));
    }
    const int64_t side   = hparams.image_size / hparams.patch_size;
    const int64_t n_embd = hparams.n_embd;
    expect_shape(model.patch_embeddings_0,  "v.patch_embd.weight",    { hparams.patch_size, hparams.patch_size, 3, n_embd });
    expect_shape(model.position_embeddings, "v.position_embd.weight", { n_embd, side*side });
    for (const auto & layer : model.layers) {
        expect_layer(layer, n_embd, hparams.n_ff);
    }
}

void llava_onevision_load_tensors(clip_model & model, const clip_get_tensor_fn & get_tensor) {
    expect_tower(model);

    model.mm_0_w = get_tensor(string_format(TN_LLAVA_PROJ, 0, "weight"), true);
    model.mm_0_b = get_tensor(string_format(TN_LLAVA_PROJ, 0, "bias"),   true);
    model.mm_2_w = get_tensor(string_format(TN_LLAVA_PROJ, 2, "weight"), true);
    model.mm_2_b = get_tensor(string_format(TN_LLAVA_PROJ, 2, "bias"),   true);
    model.image_newline = get_tensor(TN_IMAGE_NEWLINE, true);

    const int64_t n_mid = model.mm_0_w->ne[1];
    const int64_t n_out = model.mm_2_w->ne[1];
    expect_shape(model.mm_0_w, "mm.0.weight", { model.hparams.n_embd, n_mid });
    expect_shape(model.mm_0_b, "mm.0.bias",   { n_mid });
    expect_shape(model.mm_2_w, "mm.2.weight", { n_mid, n_out });
    expect_shape(model.mm_2_b, "mm.2.bias",   { n_out });
    expect_shape(model.image_newline, TN_IMAGE_NEWLINE, { n_out });
}

ggml_cgraph * clip_graph_llava_onevision::build() {
    // SigLIP; post_ln only where the file has it: LLaVA-OneVision reads the last hidden state, from before that norm
    ggml_tensor * inp = build_patches();                             // [n_embd, n_patches]
    ggml_tensor * cur = build_layers(inp, n_patches, 0, model.position_embeddings);

    return finish_projected(cur);
}
