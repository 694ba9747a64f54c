#include "llava-tower.h"

ggml_tensor * clip_graph_llava_tower::build_patches() const {
    ggml_tensor * pixels = ggml_new_tensor_4d(ctx0, GGML_TYPE_F32, img.nx(), img.ny(), 3, 1);
    ggml_set_name(pixels, "inp_raw");
    ggml_set_input(pixels);

    ggml_tensor * kernel = model.patch_embeddings_0;                                               // [p, p, 3, n_embd]
    ggml_tensor * cur = ggml_im2col(ctx0, kernel, pixels, patch_size, patch_size, 0, 0, 1, 1, true, GGML_TYPE_F32);
    cur = ggml_reshape_2d(ctx0, cur, cur->ne[0], n_patches);                                       // [p*p*3, n_patches]
    cur = ggml_mul_mat(ctx0, ggml_reshape_2d(ctx0, kernel, kernel->ne[0]*kernel->ne[1]*kernel->ne[2], n_embd), cur);
    return model.patch_bias ? ggml_add(ctx0, cur, model.patch_bias) : cur;                         // [n_embd, n_patches]
}

ggml_cgraph * clip_graph_llava_tower::finish_projected(ggml_tensor * cur) {
    cur = build_ffn(cur,
        model.mm_0_w, model.mm_0_b,
        nullptr, nullptr,
        model.mm_2_w, model.mm_2_b,
        FFN_GELU_ERF,
        -1);                                                                                       // [n_mmproj_embd, n]
    cb(cur, "projected", -1);

    ggml_build_forward_expand(gf, cur);
    return gf;
}

// x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)) = 0.5 x (1 + tanh(...))
static ggml_tensor * gelu_tanh(ggml_context * ctx, ggml_tensor * x) {
    ggml_tensor * cur = ggml_scale_bias(ctx, ggml_sqr(ctx, x), 0.044715f, 1.0f);
    cur = ggml_scale(ctx, ggml_mul(ctx, cur, x), 1.5957691216057308f);
    return ggml_mul(ctx, x, ggml_sigmoid(ctx, cur));
}

static ggml_tensor * gelu_quick(ggml_context * ctx, ggml_tensor * x) {
    return ggml_mul(ctx, x, ggml_sigmoid(ctx, ggml_scale(ctx, x, 1.702f)));
}

ggml_tensor * clip_graph_llava_tower::build_mm(ggml_tensor * w, ggml_tensor * x) const {
    if (w->type == GGML_TYPE_F32 && x->op == GGML_OP_UNARY) { // the activation in front of ffn_down; its own node is dropped
        switch (ggml_get_unary_op(x)) {
            case GGML_UNARY_OP_GELU:       x = gelu_tanh (ctx0, x->src[0]); break;
            case GGML_UNARY_OP_GELU_QUICK: x = gelu_quick(ctx0, x->src[0]); break;
            default: break;
        }
    }
    return clip_graph::build_mm(w, x);
}
